"""Entries: the finished results of a run as files, one a cell, small enough to be committed beside a matrix.

An entry holds the records of a cell's steps, its scores with every sample, and its training curve; weights, training
rows and responses stay behind. `harness run` takes entries over as finished steps. An entry whose keys are no longer
those that the plan computes is stale: it is named and not used.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from harness.errors import HarnessError
from harness.results.frame import CellView
from harness.runs import RunView
from harness.store import Store
from harness.store.transfer import export, import_, read_manifest

SUFFIX = ".tar.gz"
LEFT_BEHIND = {"train": "artifact/*", "generate": "responses.jsonl", "data": "*"}  # outputs, by kind of step


@dataclass
class Entries:
    """What became of the cells of a run: named by cell, in the order of the run.

    new: written, or taken over.  present: there already.  stale: made with other keys.  missing: without an entry.
    """

    new: list[str] = field(default_factory=list)
    present: list[str] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


def write_entries(store: Store, run: RunView, folder: Path) -> Entries:
    """Write an entry for every cell whose scores are all there. An entry with today's keys is not written again."""
    came = Entries()
    for cell, file in _files(run, folder):
        if _is_current(cell, file):
            came.present.append(cell.name)
        elif all(store.find("score", t.key) for t in cell.scores):
            folder.mkdir(parents=True, exist_ok=True)
            manifest = {"cell": cell.name, "keys": keys_of(cell)}
            alone = RunView(run.name, run.baseline, run.notes, (cell,))
            export(store, alone.keys(), file, manifest=manifest, without=LEFT_BEHIND)
            came.new.append(cell.name)
        else:
            came.missing.append(cell.name)
    return came


def take_over(store: Store, run: RunView, folder: Path) -> Entries:
    """Publish in a store what the entries of a run's cells hold. HarnessError if there is no folder, or a bad file."""
    if not folder.is_dir():
        raise HarnessError("there is no such folder of entries", where=str(folder), todo="correct `entries:`")
    came = Entries()
    for cell, file in _files(run, folder):
        if not file.exists():
            came.missing.append(cell.name)
        elif not _is_current(cell, file):
            came.stale.append(cell.name)
        elif all(store.find("score", t.key) for t in cell.scores):
            came.present.append(cell.name)
        else:
            import_(store, file)
            came.new.append(cell.name)
    return came


def _files(run: RunView, folder: Path) -> Iterator[tuple[CellView, Path]]:
    for cell in run.cells:
        yield cell, file_of(cell, folder)


def file_of(cell: CellView, folder: Path) -> Path:
    """The file of a cell among entries. A cell's name may hold what a file name may not."""
    return folder / f"{quote(cell.name, safe='[]=,+')}{SUFFIX}"


def _is_current(cell: CellView, file: Path) -> bool:
    return file.exists() and read_manifest(file).get("keys") == keys_of(cell)


def keys_of(cell: CellView) -> dict[str, str]:
    """The key of every score, by task: it holds all that came before."""
    return {t.task: t.key for t in cell.scores}
