"""What a plan is made of: cells, the tasks of a cell, and steps with their keys. `plan` makes them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from harness.data.models import ModelSource
from harness.digest import key_of
from harness.evaluation.task import Task
from harness.matrix import Cell
from harness.methods.base import Method, Stage
from harness.results.frame import items_identity

WHOLE = frozenset({"data", "train", "generate"})  # steps of which the next one reads the outputs, not the record alone
Route = Literal["engine", "head", "judge"]


@dataclass(frozen=True)
class Step:
    """What is cached: `key` is the hash of `identity`; `needs` are the keys of the steps before it."""

    kind: str  # tune, data, train, generate, judge, score, overlap, items
    key: str
    identity: dict[str, Any]
    needs: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class PlannedTask:
    """One task for one cell: the step that asks, the one that judges the answers, if any, and the one that scores.

    overlap: looks for the test set in the cell's training data, if it has any.  calibration: tests the judge.
    """

    task: Task
    generate: Step
    score: Step
    judge: Step | None = None
    overlap: Step | None = None
    calibration: Step | None = None

    @property
    def route(self) -> Route:
        """Which kind of job makes what is scored: an engine, a head that is trained for the task, or a judge."""
        return "head" if self.task.form.head else "judge" if self.judge else "engine"

    def steps(self) -> Iterator[Step]:
        yield self.generate
        yield from filter(None, (self.calibration, self.judge))
        yield self.score
        if self.overlap:
            yield self.overlap


@dataclass(frozen=True)
class PlannedCell:
    """A cell with everything resolved: its model, its methods and its steps in order.

    start: the cell whose artifact it begins from, as far as that needs it: trained, and asked nothing.
    tune: the search for its parameters, if there is one. `stack` and `stages` are then those where it starts.
    """

    cell: Cell
    model: ModelSource
    stack: tuple[Method, ...]
    stages: tuple[Stage, ...]
    data: Step | None
    train: tuple[Step, ...]  # one a stage
    tasks: tuple[PlannedTask, ...]
    start: PlannedCell | None = None
    tune: Step | None = None

    @property
    def line(self) -> tuple[PlannedCell, ...]:
        """What it starts from, what that starts from, and so on, the first of all first; and itself."""
        return (*(self.start.line if self.start else ()), self)

    @property
    def trained(self) -> tuple[Step, ...]:
        """The train steps behind its artifact, which is the last one's; () for a model as it is."""
        return tuple(step for cell in self.line for step in cell.train)

    @property
    def name(self) -> str:
        return self.cell.name

    def steps(self) -> Iterator[Step]:
        if self.start:
            yield from self.start.steps()
        yield from filter(None, (self.tune, self.data))
        yield from self.train
        for t in self.tasks:
            yield from t.steps()
        if self.tasks:
            yield self.items

    @property
    def items(self) -> Step:
        """The copy of all its scores in one file; made when they are there, and never waited for."""
        identity = items_identity(t.score.key for t in self.tasks)
        return Step("items", key_of("items", identity), identity, tuple(("score", key) for key in identity["scores"]))

    @property
    def flags(self) -> tuple[str, ...]:
        trainers = {c.cell.trainer if isinstance(c.cell.trainer, str) else "command" for c in self.line}
        return tuple(sorted((trainers - {"native"}).union(*(m.flags for c in self.line for m in c.stack))))
