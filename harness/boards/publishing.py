"""Publishing on a board: a run's results become an entry, entries are replaced by new ones, or withdrawn with a reason.

An entry is written beside its place, checked there, and moved in one step; the ledger's line comes after. Whatever is
killed between leaves nothing that counts, and the same command goes on. An entry is never edited.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.boards.board import Board
from harness.boards.findings import Finding
from harness.boards.ledger import Line, append, locked, read_ledger, states
from harness.boards.manifest import Manifest, read_manifest, write_entry
from harness.boards.protocol import Measured
from harness.errors import HarnessError, nearest
from harness.runs import RunView
from harness.store import Store
from harness.store.disk import flush, guard

BESIDE = ".new-"  # begins the name of an entry that is being written

Check = Callable[[Path, Manifest], list[Finding]]


@dataclass(frozen=True)
class Published:
    """What became of it. new: False where the same entry was there.  findings: why it was not admitted."""

    name: str
    new: bool = False
    findings: tuple[Finding, ...] = ()


def publish(
    folder: Path,
    board: Board,
    store: Store,
    run: RunView,
    *,
    check: Check,
    replaces: Sequence[str] = (),
    dry: bool = False,
) -> Published:
    """Publish a run, or with `dry` only check whether it would be admitted.

    HarnessError where another entry of the run is live and not replaced, or where what is to be replaced is not.
    """
    with guard(folder), locked(folder) as entries:
        for left in entries.glob(f"{BESIDE}*"):  # of a publisher that was killed: the lock says nobody works on it
            shutil.rmtree(left)
        beside = entries / f"{BESIDE}{uuid.uuid4().hex}"
        try:
            manifest = write_entry(store, run, board.name, replaces, beside)
            known = states(read_ledger(folder))
            if known.get(manifest.name) == "live":
                return Published(manifest.name)
            _check_place(folder, manifest, known)
            if findings := check(beside, manifest):
                return Published(manifest.name, findings=tuple(findings))
            if not dry:
                _move(folder, beside, manifest)
            return Published(manifest.name, new=True)
        finally:
            shutil.rmtree(beside, ignore_errors=True)


def withdraw(folder: Path, entry: str, why: str) -> None:
    """Withdraw an entry; its files stay. HarnessError for one that is not live, or without a reason."""
    with locked(folder):
        known = states(read_ledger(folder))
        if known.get(entry) != "live":
            raise _not_live(folder, entry, known)
        if not why.strip():
            raise HarnessError("a withdrawal needs a reason", todo="--why TEXT")
        append(folder, Line("withdraw", entry, why=why))


def for_board(run: RunView, tasks: Mapping[str, Measured]) -> RunView:
    """A run with the tasks of a board alone. HarnessError where it has none of them."""
    cells = tuple(replace(c, scores=tuple(t for t in c.scores if t.task in tasks)) for c in run.cells)
    if not any(cell.scores for cell in cells):
        raise HarnessError(f"run `{run.name}` has none of the board's tasks", why=f"the board has {', '.join(tasks)}")
    return replace(run, cells=cells)


def _check_place(folder: Path, manifest: Manifest, known: Mapping[str, str]) -> None:
    for old in manifest.replaces:
        if known.get(old) != "live":
            raise _not_live(folder, old, known)
    if known.get(manifest.name) is not None:
        todo = "what is replaced or withdrawn does not come back; run it anew"
        raise HarnessError(f"entry `{manifest.name}` is {known[manifest.name]}", where=str(folder), todo=todo)
    for name, state in known.items():
        if state == "live" and name not in manifest.replaces and name.rpartition("-")[0] == manifest.run.name:
            todo = f"--replaces {name}, or publish under another name of the matrix"
            raise HarnessError(f"another entry of run `{manifest.run.name}` is live", where=str(folder), todo=todo)


def _not_live(folder: Path, entry: str, known: Mapping[str, str]) -> HarnessError:
    live = [name for name, state in known.items() if state == "live"]
    why = f"it is {known[entry]}" if entry in known else ""
    return HarnessError(f"no entry `{entry}` is live", where=str(folder), why=why, todo=nearest(entry, live))


def _move(folder: Path, beside: Path, manifest: Manifest) -> None:
    place = beside.with_name(manifest.name)
    if not place.exists():  # it does where a publisher was killed before the ledger's line
        for file in beside.iterdir():
            flush(file)
        beside.rename(place)
        flush(place.parent)
    elif read_manifest(place).digest != manifest.digest:
        raise HarnessError("a folder of this name holds something else", where=str(place), todo="move it away")
    append(folder, Line("publish", manifest.name, manifest.digest, manifest.replaces))
