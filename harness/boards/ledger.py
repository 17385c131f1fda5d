"""The ledger of a board: what was published and withdrawn, in order, a line each, and never changed.

Every line holds the digest of the one before, so that a line or an entry that was removed or rewritten shows. Nothing
is signed: who rewrites the whole file shows only in the history of the repository that holds it.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from harness.digest import canonical, digest
from harness.errors import HarnessError
from harness.store.disk import write_whole

ENTRIES, LEDGER = "entries", "ledger.jsonl"
State = Literal["live", "replaced", "withdrawn"]


@dataclass(frozen=True)
class Line:
    """action "publish": `entry`, whose entry.json has this digest, and the entries it replaces.

    action "withdraw": `entry`, and why.  previous: digest of the line before, "" for the first.
    """

    action: str
    entry: str
    digest: str = ""
    replaces: tuple[str, ...] = ()
    why: str = ""
    previous: str = ""


def ledger_of(board: Path) -> Path:
    """Where a board's ledger lies."""
    return board / ENTRIES / LEDGER


def read_ledger(board: Path) -> list[Line]:
    """The lines of a board's ledger, [] where there is none. HarnessError where a line or the chain is broken."""
    file = ledger_of(board)
    lines: list[Line] = []
    if not file.exists():
        return lines
    for number, text in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        try:
            body = json.loads(text)
            line = Line(**{**body, "replaces": tuple(body["replaces"])})
        except (ValueError, KeyError, TypeError) as error:
            raise HarnessError("this line cannot be read", where=f"{file}:{number}", why=str(error)) from None
        if line.previous != _after(lines):
            why = "a line before it was changed or removed"
            raise HarnessError("`previous` is not the digest of the line before", where=f"{file}:{number}", why=why)
        lines.append(line)
    return lines


def states(lines: Sequence[Line]) -> dict[str, State]:
    """What has become of every entry, in the order of publication."""
    found: dict[str, State] = {}
    for line in lines:
        if line.action == "withdraw":
            found[line.entry] = "withdrawn"
        else:
            found[line.entry] = "live"
            found |= {old: "replaced" for old in line.replaces if found.get(old) == "live"}
    return found


def append(board: Path, line: Line) -> None:
    """Add a line, in one step; the caller holds the lock."""
    lines = read_ledger(board)
    body = {**asdict(line), "previous": _after(lines)}
    text = "".join(canonical(asdict(old)) + "\n" for old in lines) + canonical(body) + "\n"
    write_whole(ledger_of(board), text.encode(), durable=True)


@contextmanager
def locked(board: Path) -> Iterator[Path]:
    """The folder of entries, held against other publishers of this machine."""
    folder = board / ENTRIES
    folder.mkdir(parents=True, exist_ok=True)
    fd = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield folder
    finally:
        os.close(fd)


def _after(lines: Sequence[Line]) -> str:
    return digest(asdict(lines[-1])) if lines else ""
