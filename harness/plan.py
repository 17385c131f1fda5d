"""A matrix becomes cells with steps; what is finished drops out, and every step that is left has a reason.

Planning imports no torch and starts nothing. Every mistake it finds is collected and reported together. The keys it
computes are the whole identity of the results: placement, names and notes are not in them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from harness import sampling, tuning
from harness.data.chat import gives_pairs
from harness.data.models import ModelSource, find_model
from harness.data.sources import Source, pin
from harness.data.sources import rows as source_rows
from harness.digest import digest, key_of
from harness.encoders import refusals
from harness.engines import check as check_engine
from harness.engines.base import EngineSpec
from harness.errors import HarnessError, Problems, Refused
from harness.evaluation import contamination
from harness.evaluation.judge.judges import JudgeSpec, plan_judge, with_judge
from harness.evaluation.native_tools import check_tools
from harness.evaluation.suite import Task, choose_tasks, load_suite
from harness.matrix import Cell, Matrix, SuiteEntry
from harness.matrix.method_entries import TUNED
from harness.matrix.schema import PLACEMENT, Limit
from harness.methods import build
from harness.methods.base import Method, Stage, check_served, overrides, owner
from harness.planned import PlannedCell, PlannedTask, Step
from harness.training.adapters import make as make_adapter

HEAD_TRAINER = ["heads", 1]  # the second is raised whenever the same recipe may train another head


@dataclass(frozen=True)
class Where:
    """What the user's machine offers to planning: a mirror, and whether the hub may be asked."""

    mirror: Path | None = None
    offline: bool = True


@dataclass
class Plan:
    """All cells of a matrix with their steps. `notes` say what was chosen on the user's behalf."""

    matrix: Matrix
    where: Where
    engine: EngineSpec
    cells: list[PlannedCell]
    sources: dict[str, Source]
    notes: list[str] = field(default_factory=list)
    judge: JudgeSpec | None = None

    def steps(self) -> dict[str, Step]:
        """Every step once, by key, in an order in which each comes after what it needs."""
        found: dict[str, Step] = {}
        for cell in self.cells:
            for step in cell.steps():
                found.setdefault(step.key, step)
        return found


def make_plan(
    matrix: Matrix, where: Where, *, only: Sequence[str] = (), seeds: int | None = None, limit: Limit | None = None
) -> Plan:
    """Resolve a matrix. Problems (all of them) for unknown methods, models, suites, missing data, refused stacks."""
    cells = matrix.cells(only=only, seeds=seeds)
    resolver = _Resolver(matrix, where, limit)
    planned = [p for c in cells if (p := resolver.cell(c)) is not None]
    if resolver.problems:
        raise Problems(resolver.problems)
    return Plan(matrix, where, resolver.engine, planned, resolver.sources, resolver.notes, resolver.judge)


class _Resolver:
    """Resolves each model, method, data set and suite of a matrix once, and collects what is wrong with them."""

    def __init__(self, matrix: Matrix, where: Where, limit: Limit | None) -> None:
        self.matrix, self.where, self.problems = matrix, where, list[HarnessError]()
        self.notes: list[str] = []
        self.sources: dict[str, Source] = {}
        self.engine = EngineSpec(**matrix.engine.model_dump())
        self._try("engine.name", lambda: check_engine(self.engine.name))
        self.models = {name: self._model(name) for name in matrix.models}
        self.tasks = [t for entry in matrix.suites for t in self._suite(entry.name, entry, limit)]
        self.judge: JudgeSpec | None = self._try("judge", lambda: plan_judge(matrix, self.engine, where.offline))
        if self.judge or not matrix.judge:
            self.tasks = self._try("suites", lambda: with_judge(self.tasks, self.judge)) or []
        self._try("models", lambda: check_tools(self.models, self.tasks))
        self.by_name = {t.name: t for t in self.tasks}
        self.asked = {t.name: {"task": t.asking(), **answerer(t, self.engine)} for t in self.tasks}

    def _try(self, place: str, build_it: Callable[[], Any]) -> Any:
        """The result, or None with the problems kept, each with the line of the matrix where it comes from."""
        try:
            return build_it()
        except HarnessError as error:
            found = list(error.problems) if isinstance(error, Problems) else [error]
        for problem in found:
            if problem.where:  # a file of its own: a data file, a suite
                problem.what = f"{problem.where}: {problem.what}"
            problem.where = self.matrix.where(place)
        self.problems += found
        return None

    def _model(self, label: str) -> ModelSource | None:
        entry = self.matrix.models[label]

        def resolve() -> ModelSource:
            model = find_model(entry.source, base=entry.base, offline=self.where.offline)
            if model.context is not None and not model.encoder and self.engine.max_model_len > model.context:
                raise HarnessError(
                    f"`engine.max_model_len` is {self.engine.max_model_len}, and model `{label}` holds {model.context}",
                    todo=f"--set engine.max_model_len={model.context}",
                )
            return replace(model, name=entry.name) if entry.name else model

        found: ModelSource | None = self._try(f"models.{label}", resolve)
        return found

    def _suite(self, name: str, entry: SuiteEntry, limit: Limit | None) -> list[Task]:
        def resolve() -> list[Task]:
            tasks, notes = choose_tasks(
                load_suite(name),
                limit=limit if limit is not None else entry.limit,
                only=entry.tasks,
                made=entry.made,
                mirror=self.where.mirror,
                offline=self.where.offline,
            )
            self.notes += notes
            return tasks

        return self._try(f"suites.{name}", resolve) or []

    @functools.cache  # noqa: B019 - a resolver lives as long as one planning
    def _source(self, label: str) -> Source | None:
        entry = self.matrix.data[label]

        def resolve() -> Source:
            source = pin(entry, mirror=self.where.mirror, offline=self.where.offline)
            if not source.at_hand:
                raise HarnessError(f"the data of `{entry.source}` is not at hand", todo=source.needs)
            return source

        source: Source | None = self._try(f"data.{label}", resolve)
        if source:
            self.sources[label] = source
        return source

    @functools.cache  # noqa: B019
    def _method(self, label: str) -> tuple[tuple[Method, ...], tuple[Stage, ...], dict[str, Any]] | None:
        """The members, the stages and the seedless part of the train identity of one entry of `methods:`."""
        entry = self.matrix.methods[label]

        def resolve() -> tuple[tuple[Method, ...], tuple[Stage, ...], dict[str, Any]]:
            stack = build(entry.stack)
            if not any(m.trains for m in stack):
                return stack, (), {}
            adapter = make_adapter(entry.trainer)
            adapter.check(stack)
            check_served(stack, self.engine.name)
            stages = tuple(owner(stack, "stages").stages(None))
            if not stages and any(overrides(m, hook) for m in stack for hook in ("wrap", "unwrap")):
                stages = (Stage(),)  # one step that opens, wraps and unwraps
            settings = entry.train.model_dump(mode="json", exclude=PLACEMENT)
            return stack, stages, {"stack": stack_identity(stack), "settings": settings, "trainer": adapter.identity()}

        return self._try(f"methods.{label}", resolve)  # type: ignore[no-any-return]

    @functools.cache  # noqa: B019
    def _fits(self, label: str, data: str) -> bool:
        """Whether a data set has what a method needs of its rows; if not, the problem is kept."""
        method = self._method(label)
        stack, stages = method[:2] if method else ((), ())
        wanting = [m.name for m in (*stack, *(m for s in stages for m in s.run)) if "pairs" in m.needs]
        if not wanting or any(overrides(m, "curate") for m in stack):  # curation may make pairs
            return True
        entry, source = self.matrix.data[data], self.sources[data]
        pairs = self._try(f"data.{data}", lambda: gives_pairs(source_rows(source)[0], entry))
        if pairs is False:
            self.problems.append(
                Refused(
                    f"`{wanting[0]}` learns from pairs of answers, and the data `{data}` has one answer a row",
                    where=self.matrix.where(f"methods.{label}"),
                    todo="give it rows with `chosen` and `rejected` (`data:`)",
                )
            )
        return bool(pairs)

    @functools.cache  # noqa: B019
    def _search(self, label: str) -> dict[str, Any] | None:
        """What is searched for an entry of `methods:` that is tuned, and how; None where that cannot be."""
        entry, method = self.matrix.methods[label], self._method(label)
        tune = entry.tune
        if tune is None or method is None:
            return None

        def resolve() -> dict[str, Any]:
            searched = tuning.space(entry, method[0], tune)
            return tuning.identity(tune, searched, sampling.identity(tune.sampler, tune.trials))

        problem = len(self.problems)
        found: dict[str, Any] | None = self._try(f"methods.{label}", resolve)
        for error in self.problems[problem:]:
            error.what = f"`{label.removesuffix(TUNED)}` cannot be tuned: {error.what}"
        return found

    def cell(self, cell: Cell) -> PlannedCell | None:
        """The cell with its steps, or None where something it needs is in error."""
        model, method = self.models[cell.model], self._method(cell.method)
        source = self._source(cell.data) if cell.data and method and method[1] else None
        if model is None or method is None or (method[1] and source is None):
            return None
        stack, stages, identity = method
        if source and not self._fits(cell.method, cell.data):
            return None
        if model.encoder and (refused := refusals(self.matrix, cell, stack, self.tasks)):
            known = {str(p) for p in self.problems}
            self.problems += [p for p in refused if str(p) not in known]
            return None
        search = self._search(cell.method) if cell.tune else None
        if cell.tune and search is None:
            return None
        if any(t.chat for t in self.tasks) or stages:
            self._need_template(cell.model, model)
        tune = self._tune_step(model, identity, source, search) if search and source else None
        data = self._data_step(cell, model, stack, source, tune) if source else None
        train: list[Step] = []
        for number, stage in enumerate(stages):
            train.append(self._train_step(cell, model, identity, data, (number, stage), train, tune))
        upstream = (("train", train[-1].key),) if train else ()
        artifact = train[-1].key if train else model.digest
        prompts = stack_identity([m for m in stack if overrides(m, "prompt") or overrides(m, "respond")])
        answers = stack_identity([m for m in stack if overrides(m, "answer")])
        overlaps = [self._overlap(data.key, t.name) if data else None for t in self.tasks]
        tasks = tuple(
            self._task_steps(t, artifact, upstream, prompts, answers, overlap)
            for t, overlap in zip(self.tasks, overlaps, strict=True)
        )
        return PlannedCell(cell, model, stack, stages, data, tuple(train), tasks, tune)

    def _tune_step(self, model: ModelSource, method: dict[str, Any], source: Source, search: dict[str, Any]) -> Step:
        """One for all seeds of a method. It cuts and curates rows of its own."""
        whole = {**method, "model": model.digest, "source": source.digest, "search": search}
        return Step("tune", key_of("tune", whole), whole)

    def _data_step(
        self, cell: Cell, model: ModelSource, stack: Sequence[Method], source: Source, tune: Step | None
    ) -> Step:
        curators = [m for m in stack if overrides(m, "curate")]
        identity: dict[str, Any] = {"source": source.digest}
        if not curators:
            return Step("data", key_of("data", identity), identity)
        identity |= {"curate": stack_identity(curators), "seed": cell.seed, "model": model.digest}
        if tune:
            identity["tune"] = tune.key
        return Step("data", key_of("data", identity), identity, (("tune", tune.key),) if tune else ())

    def _train_step(
        self,
        cell: Cell,
        model: ModelSource,
        identity: dict[str, Any],
        data: Step | None,
        stage: tuple[int, Stage],
        before: Sequence[Step],
        tune: Step | None,
    ) -> Step:
        """The parameters of a tuned cell are not known yet: the key of their search stands for them."""
        whole = {
            **identity,
            "model": model.digest,
            "data": data.key if data else None,
            "seed": cell.seed,
            "stage": [stage[0], stage[1].name],
            "after": [step.key for step in before],
        }
        if tune:
            whole["tune"] = tune.key
        upstream = [step for step in (tune, data, *before) if step]
        needs = tuple((step.kind, step.key) for step in upstream)
        return Step("train", key_of("train", whole), whole, needs)

    @functools.cache  # noqa: B019
    def _overlap(self, data: str, task: str) -> Step:
        """Depends on the two sets alone, so that all cells trained on the same data share it."""
        identity = {"data": data, "task": self.by_name[task].asking(), "rules": contamination.VERSION}
        return Step("overlap", key_of("overlap", identity), identity, (("data", data),))

    def _task_steps(
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

    @functools.cache  # noqa: B019
    def _digest(self, task: str) -> str:
        return digest(self.asked[task])

    def _need_template(self, label: str, model: ModelSource) -> None:
        if model.chat_template or label in self._bare:
            return
        self._bare.add(label)
        self.problems.append(
            HarnessError(
                f"model `{label}` has no chat template, and this matrix trains on or asks conversations",
                where=self.matrix.where(f"models.{label}"),
                todo="use an instruction-tuned model, or add a chat_template.jinja to the model's folder",
            )
        )

    @functools.cached_property
    def _bare(self) -> set[str]:
        return set()


def stack_identity(stack: Sequence[Method]) -> list[list[Any]]:
    """What of a stack is in a key: name, version and all parameters of every member."""
    return [[m.name, m.version, m.params.model_dump(mode="json")] for m in stack]


def answerer(task: Task, engine: EngineSpec) -> dict[str, Any]:
    """What of the side that answers is in a key: the engine, or the trainer of heads, which needs none."""
    return {"trainer": HEAD_TRAINER} if task.form.head else {"engine": engine.identity()}


def measured(plan: Plan, task: Task) -> dict[str, Any]:
    """Everything about how a number is measured but the model."""
    return {"task": task.asking(), "scoring": task.scoring(), **answerer(task, plan.engine)}


def protocol_of(plan: Plan, task: Task) -> str:
    """The digest of `measured`, which names a column of a table."""
    return digest(measured(plan, task))[:16]
