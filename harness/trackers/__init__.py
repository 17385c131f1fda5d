"""What trackers of experiments are told of a run: the training curve and the final scores of every finished cell.

A cell is told of once, when it is finished, as one run of the tracker; a note in the run's folder says which were. The
store holds all of it anyway: a tracker that fails is a warning, its cells are told of by the next `harness run`, and
nothing is read back. Curves are not streamed while a cell trains.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from harness.errors import MissingExtra
from harness.results.curve_points import curve_points
from harness.results.frame import CellResult, CellView, collect
from harness.runs import write
from harness.store import Store

# How each is called in a matrix, and the module that it is imported as.
PACKAGES = {"tensorboard": "tensorboard", "wandb": "wandb", "mlflow": "mlflow", "trackio": "trackio"}


@dataclass(frozen=True)
class Report:
    """One finished cell.

    curve: (step, values) in order, steps counted on over stages.  scores: by the name of task and metric, in the
    metric's own unit.  settings: what a reader filters by (model, method, seed, costs).
    """

    project: str
    cell: str
    settings: Mapping[str, str | int | float]
    curve: Sequence[tuple[int, Mapping[str, float]]]
    scores: Mapping[str, float]


class Tracker(Protocol):
    """A module of this package. folder: of the run, for trackers that write files beside it."""

    def send(self, report: Report, folder: Path) -> None:
        """Tell of one cell; any exception is reported and the cell is told of again next time."""


def check(names: Sequence[str]) -> None:
    """MissingExtra for the first tracker whose package is not installed."""
    for name in names:
        if importlib.util.find_spec(PACKAGES[name]) is None:
            raise MissingExtra(PACKAGES[name], f"`report_to: {name}`", f"pip install {PACKAGES[name]}")


def tell_and_warn(names: Sequence[str], project: str, cells: Sequence[CellView], store: Store, folder: Path) -> None:
    """`tell`, with its warnings on standard error."""
    for warning in tell(names, project, cells, store, folder):
        print(f"warning: {warning}", file=sys.stderr)


def tell(names: Sequence[str], project: str, cells: Sequence[CellView], store: Store, folder: Path) -> list[str]:
    """Tell every tracker of the cells that are finished and that it has not been told of; warnings, if any."""
    warnings = []
    for name in names:
        note = folder / f"told-{name}.json"
        told = _told(note)
        mine = [cell for cell in cells if told.get(cell.name) != _identity(cell)]
        try:
            tracker: Tracker = importlib.import_module(f"harness.trackers.{name}")
            for result in collect(mine, store).cells:
                if result.state in ("ok", "diverged"):
                    tracker.send(_report(project, result, store), folder)
                    told[result.view.name] = _identity(result.view)
                    write(note, json.dumps(told))
        except Exception as error:  # a service that is away must not end a run whose results are safe
            why = f"{type(error).__name__}: {error}"
            warnings.append(f"{name} was not told of every cell: {why}; the next `harness run` tries again")
    return warnings


def _told(note: Path) -> dict[str, list[str]]:
    """What a tracker was told of before; a damaged note reads as nothing, and cells are told of again."""
    with suppress(OSError, ValueError):
        return dict(json.loads(note.read_text(encoding="utf-8")))
    return {}


def _identity(cell: CellView) -> list[str]:
    return [*cell.train, *(task.key for task in cell.scores)]


def _report(project: str, result: CellResult, store: Store) -> Report:
    view, cost = result.view, result.cost
    known = {
        "model": view.model,
        "method": view.method,
        "seed": view.seed,
        "state": result.state,
        "trained_tokens": cost.trained_tokens,
        "train_seconds": cost.train_seconds,
        "peak_bytes": cost.peak_bytes,
        "trainable_parameters": cost.trainable_parameters,
        "generate_seconds": cost.generate_seconds,
    }
    settings = {name: value for name, value in known.items() if value is not None}
    scores = {f"{r.task.suite}/{r.task.task}/{r.task.primary}": r.value for r in result.results if r.value is not None}
    return Report(project, view.name, settings, list(curve_points(view, store)), scores)
