"""The steps of a cell and what is in their keys: the whole identity of the results.

Placement, names and notes are in none of them. `plan` decides which steps there are.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from harness.data.models import ModelSource
from harness.data.sources import Source
from harness.digest import digest, key_of
from harness.engines.base import EngineSpec
from harness.evaluation import contamination
from harness.evaluation.task import Task
from harness.matrix import Cell
from harness.methods.base import Method, Stage, generates, overrides
from harness.planning.planned import PlannedCell, PlannedTask, Step

HEAD_TRAINER = ["heads", 1]  # the second is raised whenever the same recipe may train another head


def tune_step(model: ModelSource, method: Mapping[str, Any], source: Source, search: Mapping[str, Any]) -> Step:
    """One for all seeds of a method. It cuts and curates rows of its own."""
    whole = {**method, "model": model.digest, "source": source.digest, "search": search}
    return Step("tune", key_of("tune", whole), whole)


def data_step(
    cell: Cell, model: ModelSource, stack: Sequence[Method], source: Source, engine: EngineSpec, tune: Step | None
) -> Step:
    """Depends on model and seed where a member curates, and on the engine where one generates."""
    curators = [m for m in stack if overrides(m, "curate")]
    identity: dict[str, Any] = {"source": source.digest}
    if not curators:
        return Step("data", key_of("data", identity), identity)
    identity |= {"curate": stack_identity(curators), "seed": cell.seed, "model": model.digest}
    if generates(curators):
        identity["engine"] = engine.identity()
    if tune:
        identity["tune"] = tune.key
    return Step("data", key_of("data", identity), identity, (("tune", tune.key),) if tune else ())


def train_step(
    cell: Cell,
    model: ModelSource,
    method: Mapping[str, Any],
    stage: tuple[int, Stage],
    *,
    data: Step | None,
    before: Sequence[Step],
    start: PlannedCell | None,
    tune: Step | None,
) -> Step:
    """method: the part that has no seed.  The parameters of a tuned cell are not known yet: the key of their search
    stands for them."""
    whole: dict[str, Any] = {
        **method,
        "model": model.digest,
        "data": data.key if data else None,
        "seed": cell.seed,
        "stage": [stage[0], stage[1].name],
        "after": [step.key for step in before],
    }
    if tune:
        whole["tune"] = tune.key
    needs = tuple((step.kind, step.key) for step in (tune, data, *before) if step)
    if start:
        whole["start"] = start.trained[-1].key
        needs += (("train", whole["start"]),)
    return Step("train", key_of("train", whole), whole, needs)


class TaskKeys:
    """The steps of tasks, asked by an engine; what all cells share is worked out once."""

    def __init__(self, tasks: Iterable[Task], engine: EngineSpec) -> None:
        self.tasks = {t.name: t for t in tasks}
        self.asked = {t.name: {"task": t.asking(), **answerer(t, engine)} for t in self.tasks.values()}

    def steps(self, planned: PlannedCell) -> tuple[PlannedTask, ...]:
        """Every task of a cell that is planned as far as its artifact."""
        stack, trained = planned.stack, planned.trained
        upstream = (("train", trained[-1].key),) if trained else ()
        artifact = trained[-1].key if trained else planned.model.digest
        prompts = stack_identity([m for m in stack if overrides(m, "prompt") or overrides(m, "respond")])
        answers = stack_identity([m for m in stack if overrides(m, "answer")])
        data = tuple(dict.fromkeys(c.data.key for c in planned.line if c.data))
        return tuple(
            self._task(t, artifact, upstream, prompts, answers, self._overlap(data, t.name) if data else None)
            for t in self.tasks.values()
        )

    def _task(
        self,
        task: Task,
        artifact: str,
        upstream: tuple[tuple[str, str], ...],
        prompts: list[Any],
        answers: list[Any],
        overlap: Step | None,
    ) -> PlannedTask:
        asking: dict[str, Any] = {"artifact": artifact, "asked": self._digest(task.name)}
        if prompts and not task.form.head:  # a head reads the rows themselves, and what it says is no text of a model
            asking["prompts"] = prompts
        generate = Step("generate", key_of("generate", asking), asking, upstream)
        scoring: dict[str, Any] = {"generate": generate.key, "scoring": task.scoring()}
        if answers and not task.form.head:
            scoring["answers"] = answers
        needs = (("generate", generate.key),)
        if not task.form.judge:
            score = Step("score", key_of("score", scoring), scoring, needs)
            return PlannedTask(task, generate, score, overlap=overlap)
        tested = {"calibration": {"regime": task.form.judge.regime(), **(task.judged_by or {})}}
        calibration = Step("judge", key_of("judge", tested), tested)
        judging = {
            name: part for name, part in scoring.items() if name != "scoring"
        }  # another scorer asks no judge again
        judging |= {"judge": task.scoring()["judge"], "calibration": calibration.key}
        judge = Step("judge", key_of("judge", judging), judging, (*needs, ("judge", calibration.key)))
        scoring["judge"] = judge.key
        score = Step("score", key_of("score", scoring), scoring, (*needs, ("judge", judge.key)))
        return PlannedTask(task, generate, score, judge, overlap, calibration)

    @functools.cache  # noqa: B019 - lives as long as one planning
    def _overlap(self, data: tuple[str, ...], task: str) -> Step:
        """Depends on the sets alone, so that all cells trained on the same data share it."""
        sets: str | list[str] = data[0] if len(data) == 1 else list(data)
        identity = {"data": sets, "task": self.tasks[task].asking(), "rules": contamination.VERSION}
        return Step("overlap", key_of("overlap", identity), identity, tuple(("data", key) for key in data))

    @functools.cache  # noqa: B019
    def _digest(self, task: str) -> str:
        return digest(self.asked[task])


def stack_identity(stack: Sequence[Method]) -> list[list[Any]]:
    """What of a stack is in a key: name, version and parameters of every member."""
    return [[m.name, m.version, _parameters(m)] for m in stack]


def _parameters(member: Method) -> dict[str, Any]:
    """All parameters, but for later ones that change nothing."""
    given = member.params.model_dump(mode="json")
    return {name: value for name, value in given.items() if name not in member.later or value != member.later[name]}


def answerer(task: Task, engine: EngineSpec) -> dict[str, Any]:
    """What of the side that answers is in a key: the engine, or the trainer of heads, which needs none."""
    return {"trainer": HEAD_TRAINER} if task.form.head else {"engine": engine.identity()}
