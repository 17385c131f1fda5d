"""Cells: every model x method x seed of a matrix, and the choice among them with shell patterns.

A cell is a name and what to do; it knows nothing of steps, keys or results.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.errors import HarnessError, Problems, nearest

if TYPE_CHECKING:
    from harness.matrix.entry import MethodEntry
    from harness.matrix.schema import CommandTrainer, TrainSettings, TuneSettings

Members = tuple[tuple[str, dict[str, Any]], ...]  # a stack: each method's name and its parameters, in order


@dataclass(frozen=True, slots=True)
class Group:
    """One value of a column of the training data. of: the label of the method that is trained for each."""

    of: str
    column: str
    value: str | int | bool


@dataclass(frozen=True, slots=True)
class Cell:
    """One fine-tuning and its evaluation; or an untouched model, which has no seed and no data ("").

    start: the method that it begins from, whose cell has the same model and seed; "" for the model itself.
    tune: how its parameters are searched for; what stands in `stack` and `train` is then where the search starts.
    group: the rows that it trains on; None for all.
    """

    name: str
    model: str
    method: str
    seed: int | None
    stack: Members
    train: TrainSettings
    data: str
    trainer: str | CommandTrainer
    start: str = ""
    tune: TuneSettings | None = None
    group: Group | None = None


def make_cell(model: str, entry: MethodEntry, seed: int | None) -> Cell:
    """The cell of a method on a model."""
    name = f"{model}.{entry.label}" if seed is None else f"{model}.{entry.label}.s{seed}"
    given = (entry.stack, entry.train, entry.data, entry.trainer, entry.start, entry.tune, entry.group)
    return Cell(name, model, entry.label, seed, *given)


def make_cells(
    models: Iterable[str],
    methods: Mapping[str, MethodEntry],
    seeds: Sequence[int],
    left_out: AbstractSet[tuple[str, str]],
) -> list[Cell]:
    """All cells, model by model, in the order of the matrix. left_out: pairs of model and method."""
    return [
        make_cell(model, entry, seed)
        for model in models
        for label, entry in methods.items()
        if (model, label) not in left_out
        for seed in (seeds if entry.seeded else (None,))
    ]


def fits(pattern: str, name: str) -> bool:
    """Whether a pattern is the name, or the label of the name's grid, or a shell pattern that matches it."""
    return pattern in (name, origin(name)) or fnmatch.fnmatchcase(name, pattern)


def origin(method: str) -> str:
    """The name of a method without the values that grids added: `lora` for `lora[r=8]`."""
    return re.sub(r"\[[^\]]*\]", "", method)


def select(cells: Sequence[Cell], only: Sequence[str]) -> list[Cell]:
    """The cells of which a pattern matches the name, the method or the model; all of them without patterns.

    Problems when a pattern matches none.
    """
    if not only:
        return list(cells)
    names = {cell.name: (cell.name, cell.method, origin(cell.method), cell.model) for cell in cells}
    known = {name for several in names.values() for name in several}
    wild = {p: re.compile(fnmatch.translate(p)) for p in only if p not in known}
    chosen = {p: {name for name in known if pattern.match(name)} for p, pattern in wild.items()}
    missing = [p for p, found in chosen.items() if not found]
    if missing:
        raise Problems(_unmatched(pattern, cells) for pattern in missing)
    wanted = {p for p in only if p in known}.union(*chosen.values())
    return [cell for cell in cells if not wanted.isdisjoint(names[cell.name])]


def _unmatched(pattern: str, cells: Sequence[Cell]) -> HarnessError:
    models, methods = (list(dict.fromkeys(getattr(cell, what) for cell in cells)) for what in ("model", "method"))
    listed = f"models: {_some(models)}; methods: {_some(methods)}"
    guess = nearest(pattern, [*models, *methods, *map(origin, methods), *(cell.name for cell in cells)])
    return HarnessError(
        "no cell, method or model matches", where=f"--only {pattern}", why=f"there are {listed}", todo=guess
    )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
