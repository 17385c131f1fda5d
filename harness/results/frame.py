"""From what the plan says and what the store holds to one tidy list: a result for every cell and task.

Every cell and task has a result, also where there is no number: its state says why. No statistics and no formatting
here (`stats`, `table`), and nothing is ever made up: what is not known is None.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from harness.digest import key_of
from harness.errors import HarnessError
from harness.results.items import KnownItems, Samples, by_metric, read_items
from harness.results.searched import Tuning, tuning_of

if TYPE_CHECKING:
    from harness.store import Record, Store

STEPPING = ("forward", "backward", "optimizer")  # the phases of training that repeat with every step
State = Literal["ok", "withheld", "diverged", "failed", "missing", "partial"]


@dataclass(frozen=True)
class TaskView:
    """One task of one cell, as the tables see it.

    primary: the metric shown.  label: the column's name.  headline: part of its suite's headline, which is the mean
    over such tasks.  means: the named means that it is part of, with how many parts each has.
    key: of the score step.  overlap: of the step that looked for the test set in the training data, "" without one.
    generate: of the generate step behind it ("" if there is none); several tasks may share it.
    protocol: digest of everything about the measurement except the model; `measured` is what was digested, so that a
    footnote can name the field that differs.
    chance: the score of a guesser, in the metric's own unit.  items: how many are expected to be scored; of: how many
    the whole test set has.  notes: sentences for the footnotes of the column (`made data`, `no mirror, so ...`).
    judge: key of the judge step between the two ("" if there is none).
    """

    suite: str
    task: str
    primary: str
    headline: bool
    key: str
    protocol: str
    generate: str = ""
    measured: Mapping[str, Any] = field(default_factory=dict)
    chance: float | None = None
    items: int | None = None
    of: int | None = None
    notes: tuple[str, ...] = ()
    overlap: str = ""
    label: str = ""
    means: tuple[tuple[str, int], ...] = ()
    judge: str = ""


@dataclass(frozen=True)
class CellView:
    """One cell of the matrix, as the tables see it.

    train: keys of its train steps in order, () for an untrained cell.  data: key of its data step.
    seed: None where nothing is random.  flags: marks of its method (`transductive`, ...).
    notes: sentences for the footnotes of the row.
    started: the train steps among these of cells that it starts from, each with its cell and the key of its data.
    tune: key of the search for its parameters ("" without one).
    group_of: the method of which this cell is one of the groups, "" for any other.
    """

    name: str
    model: str
    method: str
    seed: int | None
    flags: tuple[str, ...]
    train: tuple[str, ...]
    scores: tuple[TaskView, ...]
    data: str = ""
    notes: tuple[str, ...] = ()
    started: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    tune: str = ""
    group_of: str = ""

    @property
    def row(self) -> str:
        """The method in whose row of a table the cell is."""
        return self.group_of or self.method


@dataclass(frozen=True)
class Overlap:
    """What of a test set occurs in the training data. items: as in `Samples`.  rules: items by the rule that found
    their question."""

    items: frozenset[str]
    rules: Mapping[str, int]


@dataclass(frozen=True)
class Result:
    """One cell on one task. state "ok" has a value in the metric's own unit; for the others `reason` says why not.

    others: the task's other metrics.  truncated: share of the answers that the token limit cut, 0 to 1.  too_long:
    prompts that did not fit the context and count as wrong.
    overlap: with the training data; None where nobody looked.  seconds: of answering.
    seed: of its training.  settled: nothing in the cell is random, so that there is no other seed to fear.
    """

    task: TaskView
    state: State
    reason: str = ""
    value: float | None = None
    n: int | None = None
    samples: Samples | None = None
    truncated: float | None = None
    too_long: int = 0
    others: Mapping[str, float] = field(default_factory=dict)
    overlap: Overlap | None = None
    seconds: float | None = None
    seed: int | None = None
    settled: bool = False


@dataclass(frozen=True)
class Cost:
    """What a cell cost; None where it is not known or nothing was spent.

    Seconds are wall-clock, summed over curation, stages and phases; train_phases splits them.  sampled_tokens: read and
    written by an engine for training, in rollouts and curation.  tokens_per_second: trained tokens by the seconds of
    optimiser steps alone.  peak_bytes: the largest of all phases.  flops: of training, without the engine's.
    trials, tuning_tokens, tuning_seconds: of the search for its parameters, shared by all seeds.
    """

    trained_tokens: int | None = None
    loss_tokens: int | None = None
    sampled_tokens: int | None = None
    train_seconds: float | None = None
    train_phases: Mapping[str, float] = field(default_factory=dict)
    tokens_per_second: float | None = None
    peak_bytes: int | None = None
    trainable_parameters: int | None = None
    artifact_bytes: int | None = None
    flops: float | None = None
    generate_seconds: float | None = None
    prompt_tokens: int | None = None
    generated_tokens: int | None = None
    trials: int | None = None
    tuning_tokens: int | None = None
    tuning_seconds: float | None = None


@dataclass(frozen=True)
class CellResult:
    """One cell: its results in the order of its tasks, and what it cost. state "partial": some tasks are missing."""

    view: CellView
    state: State
    reason: str
    results: tuple[Result, ...]
    cost: Cost
    tuning: Tuning | None = None


@dataclass(frozen=True)
class Frame:
    """All cells, in the order of the plan."""

    cells: tuple[CellResult, ...]

    @property
    def incomplete(self) -> bool:
        """Whether something failed or is still to be done; what diverged or is withheld is a finding, no gap."""
        return any(cell.state not in ("ok", "diverged") for cell in self.cells)


def collect(cells: Sequence[CellView], store: Store) -> Frame:
    """Read the state, scores and cost of every cell. Damaged records are the store's business and read as missing."""
    known: KnownItems = {}
    return Frame(tuple(_cell(cell, store, known) for cell in cells))


def items_identity(keys: Iterable[str]) -> dict[str, list[str]]:
    """What identifies the columnar file of a cell: the keys of its score steps."""
    return {"scores": sorted(set(keys))}


def _cell(cell: CellView, store: Store, known: KnownItems) -> CellResult:
    trained = [store.find("train", key) for key in cell.train]
    generated = {t.generate: store.find("generate", t.generate) for t in cell.scores if t.generate}
    blocked = _blocked(cell, trained, store)
    scores = _scores(cell, store, known)
    results = tuple(
        replace(
            _result(task, scores.get(task.key), blocked, store),
            overlap=_overlap(task, store),
            seconds=record.cost.get("seconds") if (record := generated.get(task.generate)) else None,
            seed=cell.seed,
            settled=cell.seed is None,
        )
        for task in cell.scores
    )
    state, reason = _overall(results, blocked)
    view = replace(cell, notes=(*cell.notes, *_served(generated.values())))
    searched = store.find("tune", cell.tune) if cell.tune else None
    cost = _with_search(_cost(store.find("data", cell.data), trained, list(generated.values())), searched)
    return CellResult(view, state, reason, results, cost, tuning_of(searched))


def _with_search(cost: Cost, searched: Record | None) -> Cost:
    if searched is None:
        return cost
    spent = searched.cost
    return replace(cost, trials=spent["trials"], tuning_tokens=spent["trained_tokens"], tuning_seconds=spent["seconds"])


def _served(generated: Iterable[Record | None]) -> Iterator[str]:
    """What there is to say of how the cell's weights came to be served."""
    activations = [r.extra.get("activation") or {} for r in generated if r is not None]
    if any("restart" in activation.get("way", "") for activation in activations):
        yield "its update is too small for the canary to tell from other weights: served by an engine of its own"
    if any((activation.get("canary") or {}).get("no_op") for activation in activations):
        yield "its weights are those of the base: training changed nothing"


@dataclass(frozen=True)
class _Score:
    """A finished score step. where: its record or the one that holds a copy of it."""

    where: Path
    metrics: Mapping[str, Any]
    samples: Mapping[str, Samples]
    truncated: float | None
    too_long: int


def _scores(cell: CellView, store: Store, known: KnownItems) -> dict[str, _Score]:
    """The finished score steps of a cell, from its columnar file where there is one."""
    keys = list(dict.fromkeys(t.key for t in cell.scores))
    if keys and (packed := store.find("items", key_of("items", items_identity(keys)))):
        samples = read_items(packed.file("items.parquet"), known)
        return {
            key: _Score(
                packed.path,
                task["metrics"],
                {metric: found for (of, metric), found in samples.items() if of == key},
                task["truncated"],
                task["too_long"] or 0,
            )
            for key, task in packed.extra["tasks"].items()
        }
    found = {}
    for key in keys:
        if record := store.find("score", key):
            metrics = json.loads(record.file("metrics.json").read_text())
            samples_of = by_metric(read_samples(record.file("samples.jsonl")), known)
            found[key] = _Score(
                record.path, metrics, samples_of, record.extra.get("truncated"), record.extra.get("too_long") or 0
            )
    return found


def _blocked(cell: CellView, trained: Sequence[Record | None], store: Store) -> tuple[State, str] | None:
    """Why nothing below training can have a number, or None."""
    for key, record in zip(cell.train, trained, strict=True):
        name, data = cell.started.get(key, ("", cell.data))
        by = f"{name}, from which it starts: " if name else ""
        if record is None:
            state, reason = _unfinished(store, ("train", key), ("data", data), ("tune", cell.tune))
            return state, f"{by}{reason}"
        if record.status == "diverged":
            how = record.extra.get("diverged")
            return "diverged", f"{by}training diverged" + (f": {how}" if how else "")
    return None


def _unfinished(store: Store, *steps: tuple[str, str]) -> tuple[State, str]:
    """State of a step without a record, from how the last attempt at it or at what it needs ended.

    steps: (kind, key), the nearest first; an empty key is no step. What was interrupted is merely not done.
    """
    reason = "not run yet"
    for kind, key in steps:
        history = store.history(kind, key) if key else []
        if history and history[-1].outcome in ("failed", "dead") and history[-1].kind != "interrupted":
            last = history[-1]
            detail = f" ({last.message.splitlines()[0]})" if last.message else ""
            return "failed", f"{kind} failed: {last.kind}{detail}"
        if history and history[-1].outcome not in ("ok", "superseded"):
            reason = "interrupted"
    return "missing", reason


def _result(task: TaskView, score: _Score | None, blocked: tuple[State, str] | None, store: Store) -> Result:
    if score is not None:  # scores outlive the weights they came from, so they are looked for first
        return _scored(task, score)
    if blocked is not None:
        return Result(task, *blocked)
    return Result(task, *_unfinished(store, ("score", task.key), ("judge", task.judge), ("generate", task.generate)))


def _scored(task: TaskView, score: _Score) -> Result:
    if task.primary not in score.metrics:
        known = ", ".join(sorted(score.metrics))
        raise HarnessError(
            f"no metric {task.primary!r}",
            where=str(score.where),
            why=f"the scorer gave {known}",
            todo="name one of these",
        )
    values = {name: m["value"] for name, m in sorted(score.metrics.items()) if _is_number(m["value"])}
    if reason := score.metrics[task.primary].get("withheld"):
        return Result(task, "withheld", reason, truncated=score.truncated, too_long=score.too_long, others=values)
    if task.primary not in values:
        return Result(task, "failed", f"{task.primary} is not a number", others=values)
    value = values.pop(task.primary)
    n = score.metrics[task.primary]["n"]
    return Result(task, "ok", "", value, n, score.samples.get(task.primary), score.truncated, score.too_long, values)


def _overlap(task: TaskView, store: Store) -> Overlap | None:
    record = store.find("overlap", task.overlap) if task.overlap else None
    if record is None:
        return None
    found = [line for line in read_samples(record.file("hits.jsonl")) if line["question"]]
    rules = Counter(rule for line in found for rule in line["question"]["rules"])
    return Overlap(frozenset(line["item"] for line in found), dict(sorted(rules.items())))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def read_samples(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a samples.jsonl."""
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def _overall(results: Sequence[Result], blocked: tuple[State, str] | None) -> tuple[State, str]:
    states = {r.state for r in results}
    if states <= {"ok", "withheld"}:
        return blocked or ("ok", "")
    if blocked is not None and "ok" not in states:
        return blocked
    if "failed" in states:
        return "failed", next(r.reason for r in results if r.state == "failed")
    if "ok" not in states:
        return "missing", results[0].reason
    tasks = {r.task.key for r in results}
    done = {r.task.key for r in results if r.state == "ok"}
    return "partial", f"{len(done)} of {len(tasks)} tasks done"


def _cost(curated: Record | None, trained: Sequence[Record | None], generated: Sequence[Record | None]) -> Cost:
    train = [r.cost for r in trained if r is not None] if trained and None not in trained else []
    spent = [*([curated.cost] if curated and train else []), *train]
    generate = [r.cost for r in generated if r is not None] if generated and None not in generated else []
    phases: dict[str, float] = {}
    for cost in spent:
        for phase, seconds in cost.get("seconds", {}).items():
            phases[phase] = phases.get(phase, 0.0) + seconds
    tokens = _sum(train, "trained_tokens")
    busy = sum(seconds for phase, seconds in phases.items() if phase in STEPPING)
    peaks = [b for cost in spent for b in cost.get("peak_bytes", {}).values()]
    return Cost(
        trained_tokens=_whole(tokens),
        loss_tokens=_whole(_sum(train, "loss_tokens")),
        sampled_tokens=_whole(_sum([cost for cost in spent if cost.get("rollout")], "rollout")),
        train_seconds=sum(phases.values()) if phases else None,
        train_phases=phases,
        tokens_per_second=tokens / busy if tokens and busy else None,
        peak_bytes=max(peaks, default=None),
        trainable_parameters=max(
            (c["trainable_parameters"] for c in train if "trainable_parameters" in c), default=None
        ),
        artifact_bytes=train[-1].get("artifact_bytes") if train else None,
        flops=_sum(train, "flops"),
        generate_seconds=_sum(generate, "seconds"),
        prompt_tokens=_whole(_sum(generate, "prompt_tokens")),
        generated_tokens=_whole(_sum(generate, "generated_tokens")),
    )


def _sum(costs: Sequence[Mapping[str, Any]], name: str) -> float | None:
    """The sum of one cost over steps, or None if any step does not know it."""
    values = [cost.get(name) for cost in costs]
    if not values or any(v is None for v in values):
        return None
    return float(sum(v if not isinstance(v, Mapping) else sum(v.values()) for v in values if v is not None))


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)
