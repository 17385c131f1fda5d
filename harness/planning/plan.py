"""A matrix becomes cells with steps; what is finished drops out, and every step that is left has a reason.

Planning imports no torch and starts nothing. Every mistake it finds is collected and reported together.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from harness.data.chat import columns, gives_pairs, to_rows
from harness.data.facts import facts_of
from harness.data.models import ModelSource, find_model
from harness.data.sources import Source, pin
from harness.data.sources import rows as source_rows
from harness.digest import digest
from harness.engines import check as check_engine
from harness.engines.base import EngineSpec
from harness.errors import HarnessError, Problems, Refused
from harness.evaluation.judge.judges import JudgeSpec, plan_judge, with_judge
from harness.evaluation.native_tools import check_tools
from harness.evaluation.suite import Task, choose_tasks, load_suite
from harness.matrix import Cell, Matrix, SuiteEntry, make_cell
from harness.matrix.method_entries import TUNED
from harness.matrix.schema import PLACEMENT, Limit
from harness.methods import build
from harness.methods.base import Method, Stage, check_served, check_start, generates, overrides, owner, stage_stack
from harness.methods.facts import ModelFacts
from harness.planning import sampling, tuning
from harness.planning.encoders import refusals
from harness.planning.groups import by_groups, source_of
from harness.planning.keys import TaskKeys, answerer, data_step, stack_identity, train_step, tune_step
from harness.planning.planned import PlannedCell, Step
from harness.planning.refused import no_room, no_text, of_method, of_model, sends_conversations
from harness.planning.rows_needed import check_rows, checks_rows, lacking
from harness.training.adapters import make as make_adapter


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
    matrix, ungrouped = by_groups(matrix, where.mirror, where.offline)
    cells = matrix.cells(only=only, seeds=seeds)
    resolver = _Resolver(matrix, where, limit)
    resolver.problems += [p for label in dict.fromkeys(c.method for c in cells) for p in ungrouped.get(label, ())]
    planned = [p for c in cells if c.method not in ungrouped and (p := resolver.cell(c)) is not None]
    if resolver.problems:
        raise Problems(resolver.problems)
    return Plan(matrix, where, resolver.engine, planned, resolver.sources, resolver.notes, resolver.judge)


class _Resolver:
    """Resolves each model, method, data set and suite of a matrix once, and collects what is wrong with them."""

    def __init__(self, matrix: Matrix, where: Where, limit: Limit | None) -> None:
        self.matrix, self.where, self.problems = matrix, where, list[HarnessError]()
        self.notes: list[str] = []
        self.sources: dict[str, Source] = {}
        self.facts: dict[str, ModelFacts] = {}
        self.bare: set[str] = set()  # models without a template that were complained of
        self.engine = EngineSpec(**matrix.engine.model_dump())
        self._try("engine.name", lambda: check_engine(self.engine.name))
        self.models = {name: self._model(name) for name in matrix.models}
        self.tasks = [t for entry in matrix.suites for t in self._suite(entry.name, entry, limit)]
        self.judge: JudgeSpec | None = self._try("judge", lambda: plan_judge(matrix, self.engine, where.offline))
        if self.judge or not matrix.judge:
            self.tasks = self._try("suites", lambda: with_judge(self.tasks, self.judge)) or []
        self._try("models", lambda: check_tools(self.models, self.tasks))
        self.keys = TaskKeys(self.tasks, self.engine)

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
            self.facts[label] = facts_of(model, label)
            if wrong := of_model(self.facts[label]):
                for problem in wrong:
                    problem.what = f"model `{label}` cannot be opened: {problem.what}"
                raise Problems(wrong)
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
        begun = self._method(entry.start) if entry.start else ((), (), {})
        if begun is None:
            return None

        def resolve() -> tuple[tuple[Method, ...], tuple[Stage, ...], dict[str, Any]]:
            stack = build(entry.stack)
            if entry.start:
                check_start(entry.start, begun[0], stack, trained=bool(begun[1]))
            if not any(m.trains for m in stack):
                return stack, (), {}
            adapter = make_adapter(entry.trainer)
            if entry.start and "start" not in adapter.hooks:
                raise Refused(f"a trainer `{adapter.name}` begins from the model itself, not from `{entry.start}`")
            adapter.check(stack)
            check_served((*begun[0], *stack), self.engine.name)
            stages = tuple(owner(stack, "stages").stages(None))
            if not stages and any(overrides(m, hook) for m in stack for hook in ("wrap", "unwrap")):
                stages = (Stage(),)  # one step that opens, wraps and unwraps
            settings = entry.train.model_dump(mode="json", exclude=PLACEMENT)
            identity = {"stack": stack_identity(stack), "settings": settings, "trainer": adapter.identity()}
            if generates((*stack, *(m for s in stages for m in s.run))):
                identity["engine"] = self.engine.identity()
            return stack, stages, identity

        return self._try(f"methods.{label}", resolve)  # type: ignore[no-any-return]

    @functools.cache  # noqa: B019
    def _fits(self, label: str, data: str) -> bool:
        """Whether a data set has what a method needs of its rows; if not, the problem is kept."""
        method = self._method(label)
        stack, stages = method[:2] if method else ((), ())
        if not self._verifiable(label, data, stack, stages):
            return False
        seen = self._first_row(data)
        if seen is None:
            return False
        wrong = lacking(stack, stages, data, seen[0], pairs=seen[1])
        for problem in wrong:
            problem.where = self.matrix.where(f"methods.{label}")
        self.problems += wrong
        return not wrong

    @functools.cache  # noqa: B019
    def _first_row(self, data: str) -> tuple[list[str], bool] | None:
        """The columns that a data set's first row has beside its conversation, and whether it is a pair of answers."""

        def resolve() -> tuple[list[str], bool]:
            (first, *_), entry = source_rows(self.sources[data]), self.matrix.data[data]
            return sorted(columns(first, entry)), gives_pairs(first, entry)

        found: tuple[list[str], bool] | None = self._try(f"data.{data}", resolve)
        return found

    @functools.cache  # noqa: B019
    def _supported(self, label: str, model: str) -> bool:
        """Whether a model can support a method, and write text where it is asked for any; if not, why is kept."""
        facts, entry = self.facts[model], self.matrix.methods[label]
        stack, stages, _ = self._method(label) or ((), (), {})
        asks = bool(stages) or any(not t.form.head for t in self.tasks)
        silent = no_text(facts) if asks else None
        found = [silent] if silent else of_method(facts, stack, stages, native=entry.trainer == "native")
        acting = {m.name: m for stage in stages for m in stage_stack(stack, stage)}
        lengths = {
            f"model `{model}`": facts.context,
            "`train.max_length`": entry.train.max_length,
            "`engine.max_model_len`": self.engine.max_model_len,
        }
        if short := no_room(acting.values(), lengths):
            found.append(short)
        for problem in found:
            problem.what = f"method `{label}` cannot be used on model `{model}`: {problem.what}"
            problem.where = self.matrix.where(f"methods.{label}")
        self.problems += found
        return not found

    def _verifiable(self, label: str, data: str, stack: Sequence[Method], stages: Sequence[Stage]) -> bool:
        """Whether sampled answers to the rows can be checked, where they are; if not, why is kept."""
        name = checks_rows(stack, stages)
        if name is None:
            return True
        before, entry = len(self.problems), self.matrix.data[data]
        found = self._try(f"methods.{label}", lambda: check_rows(to_rows(source_rows(self.sources[data]), entry)))
        for problem in self.problems[before:]:
            problem.what = f"`{name}` samples answers and checks them, and in the data `{data}` {problem.what}"
        return bool(found)

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
        planned = self._training(cell)
        return planned and replace(planned, tasks=self.keys.steps(planned))

    def _training(self, cell: Cell) -> PlannedCell | None:
        """The cell as far as its artifact, and nothing asked of it."""
        model, method = self.models[cell.model], self._method(cell.method)
        source = self._source(cell.data) if cell.data and method and method[1] else None
        if model is None or method is None or (method[1] and source is None):
            return None
        stack, stages, identity = method
        start = (
            self._training(make_cell(cell.model, self.matrix.methods[cell.start], cell.seed)) if cell.start else None
        )
        if cell.start and start is None:
            return None
        fits = source is None or self._fits(cell.method, cell.data)
        if model.encoder and (refused := refusals(self.matrix, cell, stack, self.tasks)):
            known = {str(p) for p in self.problems}
            self.problems += [p for p in refused if str(p) not in known]
            return None
        supported = model.encoder or self._supported(cell.method, cell.model)
        if not (fits and supported):
            return None
        search = self._search(cell.method) if cell.tune else None
        if cell.tune and search is None:
            return None
        if stages or (any(t.chat for t in self.tasks) and sends_conversations(stack)):
            self._need_template(cell, model)
        if stages and model.context and cell.train.max_length > model.context:
            self._note(f"model `{cell.model}` holds {model.context} tokens: rows above that are errors in training")
        tune = tune_step(model, identity, source, search) if search and source else None
        rows = source and source_of(source, cell)
        data = data_step(cell, model, stack, rows, self.engine, tune) if rows else None
        train: list[Step] = []
        for stage in enumerate(stages):
            train.append(train_step(cell, model, identity, stage, data=data, before=train, start=start, tune=tune))
        return PlannedCell(cell, model, stack, stages, data, tuple(train), (), start, tune)

    def _need_template(self, cell: Cell, model: ModelSource) -> None:
        if model.chat_template or cell.model in self.bare:
            return
        self.bare.add(cell.model)
        asks = [f"task `{t.name}` asks" for t in self.tasks if t.chat] or [f"method `{cell.method}` trains on"]
        self.problems.append(
            HarnessError(
                f"model `{cell.model}` has no chat template, and {asks[0]} conversations",
                where=self.matrix.where(f"models.{cell.model}"),
                todo="use an instruction-tuned model, or add a chat_template.jinja to the model's folder",
            )
        )

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)


def measured(plan: Plan, task: Task) -> dict[str, Any]:
    """Everything about how a number is measured but the model."""
    return {"task": task.asking(), "scoring": task.scoring(), **answerer(task, plan.engine)}


def protocol_of(plan: Plan, task: Task) -> str:
    """The digest of `measured`, which names a column of a table."""
    return digest(measured(plan, task))[:16]
