"""The store: finished steps in a folder, addressed by content. The only source of truth.

    FORMAT                              "1"
    <kind>/<key[:2]>/<key>/step.json    exactly what was hashed
                           0001.claim   who took the attempt      0001.end   how it ended
                           0001/        a finished attempt: record.json and its outputs
                           0002.work/   an attempt at work        0002.left/ what a dead or failed one left
                           0003.damaged/ a record that was set aside

Any number of processes and machines may share one store: it needs exclusive `link` and atomic `rename`, nothing else.
It does not decide what to run (harness.planning.plan) or what to remove (harness.store.gc).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from harness.digest import IDENTITY, canonical, key_of
from harness.errors import HarnessError
from harness.store import disk
from harness.store.attempt import Attempt, failure_kind, fence
from harness.store.claims import listing, live, number_of, read_holder, take
from harness.store.record import Damaged, Record, check_content, load, write_shed

FORMAT = "1"
RUNS = "runs"  # folder of the readable views of runs (harness.runs); no results are in it


class Done(Exception):
    """The step is finished already; `record` is its result."""

    def __init__(self, record: Record) -> None:
        super().__init__(f"{record.kind} {record.key} is finished")
        self.record = record


@dataclass(frozen=True)
class Ended:
    """How an earlier attempt ended. kind: failure class, for `failed` and `dead`.  log: path, or "" if unknown."""

    attempt: int
    outcome: Literal["ok", "failed", "dead", "superseded", "damaged"]
    kind: str
    message: str
    log: str


class Store:
    """A store folder. It is created by the first claim, so that looking at an absent store changes nothing.

    warnings: one line for every damaged record that was set aside.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.warnings: list[str] = []
        with disk.guard(self.root):
            self._check_root()

    def _check_root(self) -> None:
        parent = next(p for p in (self.root, *self.root.parents) if p.exists() or p.is_symlink())
        if not parent.is_dir():
            raise HarnessError("the store must be a folder, and this is not one", where=str(parent))
        if not os.access(parent, os.W_OK | os.X_OK):
            raise HarnessError("the store is not writable", where=str(parent), todo="choose another store folder")
        if parent != self.root:
            return
        try:
            found = (self.root / "FORMAT").read_text().strip()
        except FileNotFoundError:
            if any(not name.startswith(".") for name in listing(self.root)):
                raise HarnessError(
                    "this folder is not a store and not empty",
                    where=str(self.root),
                    todo="name an empty or a new folder",
                ) from None
            return
        if found != FORMAT:
            why = f"its format is {found[:20]!r}; this version reads {FORMAT!r}"
            raise HarnessError(
                "unknown store format", where=str(self.root), why=why, todo="use a matching harness version"
            )

    def create(self) -> None:
        """Make the folder, if it is not there."""
        self.root.mkdir(parents=True, exist_ok=True)
        if not (self.root / "FORMAT").exists():
            disk.write_whole(self.root / "FORMAT", f"{FORMAT}\n".encode())

    def folder(self, kind: str, key: str) -> Path:
        """Folder of a step, whether it exists or not."""
        return self.root / kind / key[:2] / key

    def kinds(self) -> list[str]:
        """Kinds of steps that the store knows, in name order."""
        return [name for name in listing(self.root) if not name.startswith(".") and name not in ("FORMAT", RUNS)]

    def keys(self, kind: str) -> Iterator[str]:
        """Every step of a kind that was ever claimed, in key order."""
        for prefix in listing(self.root / kind):
            yield from listing(self.root / kind / prefix)

    def finished(self, kind: str) -> set[str]:
        """Keys with a finished attempt, by file names alone: a damaged record is found only by `find`."""
        done = set()
        for prefix in listing(self.root / kind):
            base = f"{self.root}/{kind}/{prefix}/"
            for key in listing(Path(base)):
                # Nearly every step succeeds at once, and a look at one name is cheaper than a listing.
                if os.access(f"{base}{key}/0001", os.F_OK) or _finished_numbers(Path(base + key)):
                    done.add(key)
        return done

    def find(self, kind: str, key: str, *, whole: bool = False) -> Record | None:
        """The result of a step: its lowest finished attempt, or None. `whole`: the lowest that lacks no output.

        Outputs are checked by size, not by content. A damaged record is set aside and reported in `warnings`.
        """
        return self._first(kind, key, whole=whole, every_byte=False)

    def verify(self, kind: str, key: str) -> Record | None:
        """Like `find`, but every byte is read and digested."""
        return self._first(kind, key, whole=False, every_byte=True)

    def _first(self, kind: str, key: str, *, whole: bool, every_byte: bool) -> Record | None:
        folder = self.folder(kind, key)
        with disk.guard(folder):
            for number in _finished_numbers(folder):
                path = folder / f"{number:04d}"
                try:
                    record = load(path, kind, key)
                    if every_byte:
                        check_content(record)
                except Damaged as damage:
                    self._set_aside(path, str(damage))
                    continue
                if not (whole and record.missing()):
                    return record
        return None

    def _set_aside(self, path: Path, reason: str) -> None:
        aside = path.with_name(f"{path.name}.damaged")
        try:
            path.rename(aside)
        except FileNotFoundError:
            return  # set aside or collected by another process
        self.warnings.append(f"damaged record set aside as {aside}: {reason}; the step is done again when needed")

    def history(self, kind: str, key: str) -> list[Ended]:
        """How earlier attempts ended, oldest first. Attempts at work are left out."""
        folder = self.folder(kind, key)
        names = set(listing(folder))
        ended = []
        for name in sorted((n for n in names if n.endswith(".claim")), key=number_of):
            number = number_of(name)
            holder = read_holder(folder / name)
            log = holder.log if holder else ""
            if f"{number:04d}.damaged" in names:
                ended.append(Ended(number, "damaged", "", "its record was damaged", log))
            elif f"{number:04d}" in names:
                ended.append(Ended(number, "ok", "", "", log))
            elif f"{number:04d}.end" in names:
                ended.append(_read_end(folder, number, log))
            elif not live(folder, [name]):
                ended.append(Ended(number, "dead", "killed", "its process died", log))
        return ended

    def identity(self, kind: str, key: str) -> dict[str, Any] | None:
        """What was hashed into the key of a step that was ever claimed, or None."""
        try:
            body: dict[str, Any] = json.loads((self.folder(kind, key) / "step.json").read_bytes())
        except (FileNotFoundError, ValueError):
            return None
        return {name: value for name, value in body.items() if name not in ("identity", "kind")}

    def holder(self, kind: str, key: str) -> str | None:
        """Who is working on a step now, in words, or None."""
        folder = self.folder(kind, key)
        holder = live(folder, listing(folder))
        return str(holder) if holder else None

    def claim(
        self, kind: str, key: str, identity: Mapping[str, Any], *, whole: bool = False, log: Path | None = None
    ) -> Attempt:
        """Take a step to work on it.

        whole: a record that lacks outputs does not count as finished (to make shed weights again).
        log: where the process writes its log, for `history`.
        Raises Busy while a live process holds it, Done if it is finished, ValueError if key and identity disagree.
        """
        if key != key_of(kind, identity):
            raise ValueError(f"{key} is not the key of this {kind} identity")
        if record := self.find(kind, key, whole=whole):
            raise Done(record)
        folder = self.folder(kind, key)
        with disk.guard(folder):
            self.create()
            claim = take(folder, f"{kind} {key}", str(log or ""))
            try:
                if not (folder / "step.json").exists():
                    hashed = canonical({"identity": IDENTITY, "kind": kind, **identity})
                    disk.write_whole(folder / "step.json", hashed.encode())
                earlier = fence(folder, claim.number)
                # Somebody may have published between the first look and the claim.
                if record := self.find(kind, key, whole=whole):
                    raise Done(record)
                return Attempt(claim, kind, key, identity, earlier, lambda: self.find(kind, key, whole=whole))
            except Done:
                claim.end("superseded")
                raise
            except BaseException as error:
                claim.end("failed", failure_kind(error), str(error))
                raise

    def shed(self, record: Record, names: Iterable[str]) -> int:
        """Remove outputs of a finished step and keep its record and their digests. Returns the bytes freed."""
        chosen = set(names)
        if unknown := chosen - set(record.outputs):
            raise ValueError(f"not outputs of {record.kind} {record.key}: {sorted(unknown)}")
        chosen -= set(record.missing())
        with disk.guard(record.path):
            write_shed(record.path, chosen)  # first, or a kill in between would look like damage
            for name in chosen:
                record.file(name).unlink(missing_ok=True)
        return sum(record.outputs[name]["bytes"] for name in chosen)


def _finished_numbers(folder: Path) -> list[int]:
    return sorted(int(name) for name in listing(folder) if name.isdigit())


def _read_end(folder: Path, number: int, log: str) -> Ended:
    try:
        body = json.loads((folder / f"{number:04d}.end").read_bytes())
        return Ended(number, body["outcome"], body["kind"], body["message"], log)
    except (OSError, ValueError, KeyError, TypeError):
        return Ended(number, "failed", "bug", "how it ended is not known: its end file is unreadable", log)
