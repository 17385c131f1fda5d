"""What of a plan is still to be done, why, and what it may cost.

Reads the store and the plan of the run before; changes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from harness.digest import differences
from harness.planning.lines import diverged, with_starts
from harness.planning.plan import Plan
from harness.planning.planned import WHOLE, PlannedCell, Step
from harness.results.frame import STEPPING
from harness.store import Store

ASSUMED = {"train": 300.0, "generate": 500.0}  # tokens a second on two cores, until the store knows better
RATES = {"tune": "train", "train": "train", "generate": "generate"}  # whose speed tells how long a kind takes
OUTPUTS = {"data": "rows", "train": "weights", "generate": "answers"}  # what a finished step may have lost
SECONDS = {"data": 2.0, "judge": 60.0, "score": 1.0, "overlap": 0.5, "start": 20.0}


@dataclass(frozen=True)
class Todo:
    """A step that would run, the first cell that needs it, and the reason."""

    step: Step
    cell: str
    what: str  # "train", "generate gsm8k", ...
    reason: str


def pending(
    plan: Plan,
    store: Store,
    before: Mapping[str, Mapping[str, str]] | None = None,
    *,
    thorough: bool = False,
) -> list[Todo]:
    """The steps that `harness run` would do, in order, each once.

    before: {cell: {what: key}} of the previous run of this matrix, for reasons that name what changed.
    thorough: look into the records of finished scores, so that damaged ones are found and done again.
    """
    done = {kind: store.finished(kind) for kind in ("tune", "data", "train", "generate", "judge", "score", "overlap")}
    if thorough:
        planned = {t.score.key for cell in plan.cells for t in cell.tasks}
        done["score"] = {key for key in done["score"] & planned if store.find("score", key)}
    finder = _Finder(plan, store, done, before or {})
    for cell in plan.cells:
        finder.cell(cell)
    return list(finder.found.values())


class _Finder:
    def __init__(
        self, plan: Plan, store: Store, done: Mapping[str, set[str]], before: Mapping[str, Mapping[str, str]]
    ) -> None:
        self.plan, self.store, self.done, self.before = plan, store, done, before
        self.tried = {kind: set(store.keys(kind)) for kind in done}
        self.found: dict[str, Todo] = {}

    def cell(self, cell: PlannedCell) -> None:
        for t in cell.tasks:
            if t.score.key in self.done["score"]:
                if t.overlap and not self._done(t.overlap):
                    self._all_data(cell)
                    self._add(cell, t.overlap, f"overlap {t.task.name}")
                continue
            if self._diverged(cell):
                continue
            if not self._done(t.generate):
                self._train(cell)
                self._add(cell, t.generate, f"generate {t.task.name}")
            if t.calibration and not self._done(t.calibration):
                self._add(cell, t.calibration, f"calibrate the judge of {t.task.name}")
            if t.judge and not self._done(t.judge):
                self._add(cell, t.judge, f"judge {t.task.name}")
            self._add(cell, t.score, f"score {t.task.name}")
            if t.overlap and not self._done(t.overlap):
                self._all_data(cell)
                self._add(cell, t.overlap, f"overlap {t.task.name}")

    def _all_data(self, cell: PlannedCell) -> None:
        for trained in cell.line:
            self._data(trained)

    def _data(self, cell: PlannedCell) -> None:
        if cell.data and not self._done(cell.data):
            if ("tune", cell.tune and cell.tune.key) in cell.data.needs:
                self._tune(cell)
            self._add(cell, cell.data, "data")

    def _tune(self, cell: PlannedCell) -> None:
        if cell.tune and not self._done(cell.tune):
            trials = f"{cell.tune.identity['search']['trials']} trials"
            self._add(cell, cell.tune, "tune", f"{self._reason(cell, cell.tune, 'tune')} ({trials})")

    def _done(self, step: Step) -> bool:
        if step.key not in self.done[step.kind]:
            return False
        return self.store.find(step.kind, step.key, whole=step.kind in WHOLE) is not None

    def _known(self, step: Step) -> bool:
        return step.key in self.done[step.kind] and self.store.find(step.kind, step.key) is not None

    def _train(self, cell: PlannedCell) -> None:
        if cell.start and not (cell.train and all(self._done(step) for step in cell.train)):
            self._train(cell.start)
        for number, step in enumerate(cell.train):
            if self._done(step):
                continue
            self._tune(cell)
            self._data(cell)
            self._add(cell, step, "train" if len(cell.train) == 1 else f"train {cell.stages[number].name}")

    def _diverged(self, cell: PlannedCell) -> bool:
        return any(step.key in self.done["train"] for step in cell.trained) and diverged(cell, self.store)

    def _add(self, cell: PlannedCell, step: Step, what: str, reason: str = "") -> None:
        if step.key not in self.found:
            self.found[step.key] = Todo(step, cell.name, what, reason or self._reason(cell, step, what))

    def _reason(self, cell: PlannedCell, step: Step, what: str) -> str:
        if self._known(step):
            return f"its {OUTPUTS.get(step.kind, 'outputs')} were not kept and are needed again"
        if step.key in self.tried[step.kind] and (past := self.store.history(step.kind, step.key)):
            last = past[-1]
            return f"{last.outcome}: {last.message}" if last.message else last.outcome
        old = self.before.get(cell.name, {}).get(what)
        if old is None or old == step.key:
            return "new"
        was = self.store.identity(step.kind, old)
        if was is None:
            return "new"
        changes = [d for d in differences(was, step.identity) if not _upstream(d)]
        changes = ["what is asked, or the engine" if d.startswith("asked ") else d for d in changes]
        return f"changed: {'; '.join(changes)}" if changes else "upstream changed"


def _upstream(change: str) -> bool:
    return change.split(" ", 1)[0].split(".")[0] in (
        "artifact",
        "generate",
        "calibration",
        "judge",
        "tune",
        "data",
        "after",
        "start",
    )


def keys_by_cell(plan: Plan) -> dict[str, dict[str, str]]:
    """{cell: {what: key}}: kept with a run, so that the next plan can name what changed."""
    result: dict[str, dict[str, str]] = {}
    for cell in with_starts(plan.cells):
        keys = {step.kind: step.key for step in (cell.tune, cell.data) if step}
        for number, step in enumerate(cell.train):
            keys["train" if len(cell.train) == 1 else f"train {cell.stages[number].name}"] = step.key
        for t in cell.tasks:
            keys |= {f"{step.kind} {t.task.name}": step.key for step in t.steps()}
        result[cell.name] = keys
    return result


@dataclass(frozen=True)
class Estimate:
    """Expected seconds by kind of step. `assumed` names the kinds for which nothing has been measured yet."""

    seconds: dict[str, float]
    assumed: tuple[str, ...]

    @property
    def total(self) -> float:
        return sum(self.seconds.values())


def estimate(plan: Plan, todo: list[Todo], store: Store) -> Estimate:
    """What the steps left may take on this machine, from finished steps of the same kind where there are any."""
    seconds: dict[str, float] = {}
    assumed = set()
    rates = {
        rate: _rate(store, rate)
        for rate in dict.fromkeys(RATES.values())
        if any(RATES.get(t.step.kind) == rate for t in todo)
    }
    cells = {c.name: c for c in with_starts(plan.cells)}
    for t in todo:
        kind = t.step.kind
        if rate := RATES.get(kind):
            if rates[rate] is None:
                assumed.add(rate)
            tokens = _tokens(cells[t.cell], t)
            seconds[kind] = seconds.get(kind, 0.0) + tokens / (rates[rate] or ASSUMED[rate])
        else:
            seconds[kind] = seconds.get(kind, 0.0) + SECONDS[kind]
    starts = len({t.cell for t in todo if t.step.kind == "train"})
    starts += sum(t.step.kind == "tune" for t in todo)
    starts += len({cells[t.cell].cell.model for t in todo if t.step.kind == "generate"})
    if starts:
        seconds["start"] = starts * SECONDS["start"]
    return Estimate(seconds, tuple(sorted(assumed)))


def _tokens(cell: PlannedCell, todo: Todo) -> float:
    if todo.step.kind in ("train", "tune"):
        budget, trials = cell.cell.train.budget, todo.step.identity.get("search", {}).get("trials", 1)
        return float(trials * (budget.tokens or (budget.steps or 0) * cell.cell.train.batch_size * 64))
    task = next(t.task for t in cell.tasks if t.generate.key == todo.step.key)
    if task.form.head:
        trained = (task.head_source.count if task.head_source else None) or 1000
        return 64.0 * (3 * trained * task.form.head.recipe.epochs + (task.rows or 1000))  # a step costs three answers
    sampling = task.form.sampling
    return float(task.rows or 1000) * (sampling.max_tokens / 2 if sampling else 64)


def _rate(store: Store, kind: str) -> float | None:
    """Median tokens a second over finished steps of a kind; at most fifty of them are looked at."""
    rates = []
    for key in sorted(store.finished(kind))[:50]:
        record = store.find(kind, key)
        cost: dict[str, Any] = record.cost if record else {}
        if kind == "train":
            took, tokens = sum(cost.get("seconds", {}).get(p, 0.0) for p in STEPPING), cost.get("trained_tokens")
        else:
            took = cost.get("seconds", 0.0) - cost.get("train_seconds", 0.0)  # heads are trained in this step
            tokens = cost.get("prompt_tokens", 0) + cost.get("generated_tokens", 0)
        if took and tokens:
            rates.append(tokens / took)
    return median(rates) if rates else None


def previous(folder: Path) -> dict[str, dict[str, str]]:
    """The keys of the run before, or nothing if there was none."""
    file = folder / "keys.json"
    if not file.exists():
        return {}
    found: dict[str, dict[str, str]] = json.loads(file.read_text())
    return found
