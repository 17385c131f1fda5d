"""A board as its live entries give it: the frame of all their cells, and the files that show it.

A pure function of board.yaml and the entries. Cells that two entries share are one; rows of one name that differ are
told apart by the name of their run.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from harness.boards.board import Board
from harness.boards.entries import file_of
from harness.boards.ledger import ENTRIES, Line, read_ledger, states
from harness.boards.manifest import Manifest, read_manifest
from harness.results.frame import CellView, Frame, collect
from harness.results.render import escape
from harness.results.table import Table, make_table
from harness.store import Store
from harness.store.disk import write_whole
from harness.store.transfer import import_

SHOWN = ("board.md", "board.csv", "board-long.csv", "board.json")


@dataclass(frozen=True)
class Live:
    """The results of all live entries, the baseline of the first of them, and a store with what is behind them."""

    frame: Frame
    baseline: str | None
    store: Store


@contextmanager
def live_entries(folder: Path) -> Iterator[Live]:
    """What a board shows; the store goes afterwards."""
    with tempfile.TemporaryDirectory(prefix="board-") as unpacked:
        store = Store(Path(unpacked))
        live = [read_manifest(folder / ENTRIES / n) for n, s in states(read_ledger(folder)).items() if s == "live"]
        for manifest in live:
            for cell in manifest.run.cells:
                import_(store, file_of(cell, folder / ENTRIES / manifest.name))
        yield Live(collect(merged(live), store), live[0].run.baseline if live else None, store)


def merged(entries: Sequence[Manifest]) -> list[CellView]:
    """The cells of several runs in one list."""
    found: dict[tuple[str, str, str], CellView] = {}
    owner: dict[tuple[str, str], str] = {}
    for entry in entries:
        for cell in entry.run.cells:
            keys = [t.key for t in cell.scores]
            if any([t.key for t in other.scores] == keys and other.method == cell.method for other in found.values()):
                continue
            if owner.setdefault((cell.model, cell.method), entry.run.name) != entry.run.name:
                cell = replace(cell, method=f"{cell.method} ({entry.run.name})")
            found[entry.run.name, cell.name, cell.method] = cell
    return list(found.values())


def notes_of(lines: Sequence[Line]) -> list[str]:
    """What a reader must know of entries that are not shown."""
    known = states(lines)
    notes = [f"Withdrawn: {x.entry}, because: {_one_line(x.why)}" for x in lines if x.action == "withdraw"]
    for line in lines:
        if line.replaces and known[line.entry] != "withdrawn":
            notes.append(f"Replaced: {', '.join(line.replaces)}, by {line.entry}.")
    return notes


def _one_line(text: str) -> str:
    return " ".join(text.split())


def write_pages(folder: Path, board: Board) -> Table:
    """Write the board's Markdown, CSV and JSON beside its board.yaml."""
    with live_entries(folder) as live:
        table = make_table(live.frame, baseline=live.baseline, notes=notes_of(read_ledger(folder)))
    texts = (f"# {escape(board.title)}\n\n{table.markdown()}", table.csv(), table.csv_long(), table.json())
    for name, text in zip(SHOWN, texts, strict=True):
        write_whole(folder / name, text.encode())
    return table
