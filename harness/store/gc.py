"""What can be removed from a store, and removing it.

It decides nothing about keeping: the caller says which steps are wanted and which outputs its keep policy gives up.
Nothing of a step with a live claim is ever touched: removing takes the claim of the step itself.
"""

from __future__ import annotations

import shutil
import time
import uuid
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from harness.store import Store, disk
from harness.store.claims import Busy, listing, live, number_of, take
from harness.store.record import Record

Why = Literal["unfinished work", "damaged record", "unwanted step", "weights no longer needed", "half removed"]
_TRASH = ".trash"


@dataclass(frozen=True)
class Removal:
    """Something that can go: a folder, or, with `record`, the outputs `names` of a finished step. Size in bytes."""

    why: Why
    path: Path
    bytes: int
    kind: str = ""
    key: str = ""
    record: Record | None = None
    names: tuple[str, ...] = ()


def plan(
    store: Store,
    wanted: Collection[tuple[str, str]] | None = None,
    sheddable: Iterable[tuple[Record, Sequence[str]]] = (),
) -> list[Removal]:
    """Everything that can be removed now, in store order; nothing is changed.

    wanted: (kind, key) of the steps to keep; None keeps every step.  sheddable: finished steps with the outputs that
    are not needed any more. Of an unfinished step that is wanted, the newest work folder with something in it stays,
    since the next attempt continues from it.
    """
    removals = [_folder("half removed", path) for path in _debris(store.root)]
    for kind in store.kinds():
        for key in store.keys(kind):
            folder = store.folder(kind, key)
            if live(folder, listing(folder)):
                continue
            if wanted is not None and (kind, key) not in wanted:
                removals.append(_folder("unwanted step", folder, kind, key))
            else:
                removals.extend(_leftovers(folder, kind, key))
    gone = {(r.kind, r.key) for r in removals if r.why == "unwanted step"}
    removals.extend(_weights(store, [(r, n) for r, n in sheddable if (r.kind, r.key) not in gone]))
    return removals


def carry_out(store: Store, removals: Iterable[Removal]) -> int:
    """Remove what was planned, except of steps that were claimed meanwhile. Returns the bytes freed."""
    freed = 0
    for removal in removals:
        with disk.guard(removal.path):
            if removal.why == "half removed":
                shutil.rmtree(removal.path, ignore_errors=True)
                freed += removal.bytes
            elif store.folder(removal.kind, removal.key).exists():
                freed += _under_claim(store, removal)
    return freed


def _under_claim(store: Store, removal: Removal) -> int:
    folder = store.folder(removal.kind, removal.key)
    try:
        claim = take(folder, f"{removal.kind} {removal.key}")
    except Busy:
        return 0
    try:
        if removal.record:
            return store.shed(removal.record, removal.names)
        if removal.path.exists():
            _discard(store, removal.path)
            return removal.bytes
        return 0
    finally:
        claim.release()


def _discard(store: Store, path: Path) -> None:
    """Out of sight by one rename, then removed: a kill in between leaves nothing half there."""
    trash = store.root / _TRASH / uuid.uuid4().hex
    trash.parent.mkdir(exist_ok=True)
    path.rename(trash)
    shutil.rmtree(trash, ignore_errors=True)
    with suppress(OSError):  # empty folders go, others stay
        trash.parent.rmdir()


def _debris(root: Path) -> list[Path]:
    """What a kill left of an earlier collection, or of an import a day ago or more."""
    imports = [path for path in root.glob(".import-*") if time.time() - path.stat().st_mtime > 86_400]
    return sorted([*(root / _TRASH).glob("*"), *imports])


def _leftovers(folder: Path, kind: str, key: str) -> Iterator[Removal]:
    names = sorted(listing(folder), key=number_of, reverse=True)
    unfinished = [folder / name for name in names if name.endswith((".work", ".left"))]
    if not any(name.isdigit() for name in names):
        resumable = next((path for path in unfinished if listing(path)), None)
        unfinished = [path for path in unfinished if path != resumable]
    for path in unfinished:
        yield _folder("unfinished work", path, kind, key)
    for name in names:
        if name.endswith(".damaged"):
            yield _folder("damaged record", folder / name, kind, key)


def _weights(store: Store, sheddable: Iterable[tuple[Record, Sequence[str]]]) -> Iterator[Removal]:
    for record, names in sheddable:
        folder = store.folder(record.kind, record.key)
        here = tuple(sorted(set(names) - set(record.missing())))
        if here and not live(folder, listing(folder)):
            size = sum(record.outputs[name]["bytes"] for name in here)
            yield Removal("weights no longer needed", record.path, size, record.kind, record.key, record, here)


def _folder(why: Why, path: Path, kind: str = "", key: str = "") -> Removal:
    return Removal(why, path, disk.tree_bytes(path), kind, key)
