"""Cells that begin from other cells: in which order they train, and whose weights are still to be used."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from harness.planning.planned import PlannedCell, PlannedTask
from harness.store import Store


def with_starts(cells: Iterable[PlannedCell]) -> list[PlannedCell]:
    """The cells, each after what it starts from. What is no cell of these is there too, and asked nothing."""
    given = {c.name: c for c in cells}
    return list({c.name: given.get(c.name, c) for cell in given.values() for c in cell.line}.values())


def wanted(cell: PlannedCell, cells: Sequence[PlannedCell], store: Store) -> bool:
    """Whether weights of a cell are still to be used: for its own answers, or by a cell that begins from them.

    cells: all that may begin from it.
    """
    if any(_unanswered(t, store) for t in cell.tasks):
        return True
    if not cell.train:
        return False
    heirs = [c for c in cells if c.start and c.start.train[-1].key == cell.train[-1].key]
    return any((not h.train or not is_over(h, store)) and wanted(h, cells, store) for h in heirs)


def _unanswered(task: PlannedTask, store: Store) -> bool:
    """A score outlives its answers, and nobody asks again for one that is there."""
    answered = store.find("generate", task.generate.key, whole=True) or store.find("score", task.score.key)
    return answered is None


def is_over(cell: PlannedCell, store: Store) -> bool:
    """Whether its training left what it was to leave, or diverged."""
    return diverged(cell, store) or all(store.find("train", s.key, whole=True) for s in cell.train)


def diverged(cell: PlannedCell, store: Store) -> bool:
    """Whether its training, or that of something it starts from, diverged."""
    found = (store.find("train", step.key) for step in cell.trained)
    return any(record is not None and record.status == "diverged" for record in found)
