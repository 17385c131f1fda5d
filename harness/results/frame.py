"""From what the plan says and what the store holds to one tidy list: a result for every cell and task.

Every cell and task has a result, also where there is no number: its state says why. No statistics and no formatting
here (`stats`, `table`), and nothing is ever made up: what is not known is None.
"""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from harness.errors import HarnessError

if TYPE_CHECKING:
    from harness.store import Record, Store

STEPPING = ("forward", "backward", "optimizer")  # the phases of training that repeat with every step
State = Literal["ok", "diverged", "failed", "missing", "partial"]


@dataclass(frozen=True)
class TaskView:
    """One task of one cell, as the tables see it.

    primary: the metric shown.  headline: part of its suite's headline, which is the mean over such tasks.
    key: of the score step.  generate: of the generate step behind it ("" if there is none); several tasks may share it.
    protocol: digest of everything about the measurement except the model; `measured` is what was digested, so that a
    footnote can name the field that differs.
    chance: the score of a guesser, in the metric's own unit.  items: how many are expected to be scored; of: how many
    the whole test set has.  notes: sentences for the footnotes of the column (`made data`, `no mirror, so ...`).
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


@dataclass(frozen=True)
class CellView:
    """One cell of the matrix, as the tables see it.

    train: keys of its train steps in order, () for an untrained cell.  data: key of its data step.
    seed: None where nothing is random.  flags: marks of its method (`transductive`, ...).
    notes: sentences for the footnotes of the row.
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


@dataclass(frozen=True)
class Samples:
    """Scores by item, in a fixed order that is the same for every cell with the same items.

    items: one name an item, its document's hash (a repeated document gets `#2`, ...).
    values: one float an item, for metrics that are means.  pairs: one (gold, predicted) an item, for corpus metrics.
    """

    items: tuple[str, ...]
    values: array[float] | None = None
    pairs: tuple[tuple[Any, Any], ...] | None = None


@dataclass(frozen=True)
class Result:
    """One cell on one task. state "ok" has a value in the metric's own unit; for the others `reason` says why not.

    others: the task's other metrics.  truncated: share of the answers that the token limit cut, 0 to 1.
    """

    task: TaskView
    state: State
    reason: str = ""
    value: float | None = None
    n: int | None = None
    samples: Samples | None = None
    truncated: float | None = None
    others: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Cost:
    """What a cell cost; None where it is not known or nothing was spent.

    Seconds are wall-clock, summed over stages and phases; train_phases splits them.  tokens_per_second: trained tokens
    by the seconds of optimiser steps alone.  peak_bytes: the largest of all phases.  flops: of training.
    """

    trained_tokens: int | None = None
    loss_tokens: int | None = None
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


@dataclass(frozen=True)
class CellResult:
    """One cell: its results in the order of its tasks, and what it cost. state "partial": some tasks are missing."""

    view: CellView
    state: State
    reason: str
    results: tuple[Result, ...]
    cost: Cost


@dataclass(frozen=True)
class Frame:
    """All cells, in the order of the plan."""

    cells: tuple[CellResult, ...]

    @property
    def incomplete(self) -> bool:
        """Whether something failed or is still to be done; a training that diverged is a finding, not a gap."""
        return any(cell.state not in ("ok", "diverged") for cell in self.cells)


def collect(cells: Sequence[CellView], store: Store) -> Frame:
    """Read the state, scores and cost of every cell. Damaged records are the store's business and read as missing."""
    known_items: dict[tuple[str, ...], tuple[str, ...]] = {}
    return Frame(tuple(_cell(cell, store, known_items) for cell in cells))


def _cell(cell: CellView, store: Store, known_items: dict[tuple[str, ...], tuple[str, ...]]) -> CellResult:
    trained = [store.find("train", key) for key in cell.train]
    generated = {t.generate: store.find("generate", t.generate) for t in cell.scores if t.generate}
    blocked = _blocked(cell, trained, store)
    results = tuple(_result(task, blocked, store, known_items) for task in cell.scores)
    state, reason = _overall(results, blocked)
    return CellResult(cell, state, reason, results, _cost(trained, list(generated.values())))


def _blocked(cell: CellView, trained: Sequence[Record | None], store: Store) -> tuple[State, str] | None:
    """Why nothing below training can have a number, or None."""
    for key, record in zip(cell.train, trained, strict=True):
        if record is None:
            return _unfinished(store, ("train", key), ("data", cell.data))
        if record.status == "diverged":
            how = record.extra.get("diverged")
            return "diverged", "training diverged" + (f": {how}" if how else "")
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
        if history:
            reason = "interrupted"
    return "missing", reason


def _result(
    task: TaskView,
    blocked: tuple[State, str] | None,
    store: Store,
    known_items: dict[tuple[str, ...], tuple[str, ...]],
) -> Result:
    record = store.find("score", task.key)
    if record is not None:  # scores outlive the weights they came from, so they are looked for first
        return _scored(task, record, known_items)
    if blocked is not None:
        return Result(task, *blocked)
    return Result(task, *_unfinished(store, ("score", task.key), ("generate", task.generate)))


def _scored(task: TaskView, record: Record, known_items: dict[tuple[str, ...], tuple[str, ...]]) -> Result:
    metrics = json.loads(record.file("metrics.json").read_text())
    if task.primary not in metrics:
        known = ", ".join(sorted(metrics))
        raise HarnessError(
            f"no metric {task.primary!r}",
            where=str(record.path),
            why=f"the scorer gave {known}",
            todo="name one of these",
        )
    values = {name: m["value"] for name, m in sorted(metrics.items()) if _is_number(m["value"])}
    if task.primary not in values:
        return Result(task, "failed", f"{task.primary} is not a number", others=values)
    value = values.pop(task.primary)
    samples = read_samples(record.file("samples.jsonl"), task.primary, known_items)
    n = metrics[task.primary]["n"]
    return Result(task, "ok", "", value, n, samples, record.extra.get("truncated"), values)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def read_samples(
    path: Path, metric: str, known_items: dict[tuple[str, ...], tuple[str, ...]] | None = None
) -> Samples | None:
    """Scores by item of one metric, ordered by item name; None where this metric has no score for every item.

    known_items: item tuples already seen; equal ones are shared, so that a thousand cells hold the names once.
    """
    scores: dict[str, Any] = {}
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            sample = json.loads(line)
            if metric not in sample["scores"]:
                return None
            name, again = sample["hash"], 1
            while name in scores:
                again += 1
                name = f"{sample['hash']}#{again}"
            scores[name] = sample["scores"][metric]
    items = tuple(sorted(scores))
    items = items if known_items is None else known_items.setdefault(items, items)
    found = [scores[item] for item in items]
    if all(isinstance(v, bool | int | float) for v in found):
        return Samples(items, values=array("d", found))
    if all(isinstance(v, list) and len(v) == 2 for v in found):
        return Samples(items, pairs=tuple((gold, predicted) for gold, predicted in found))
    return None


def _overall(results: Sequence[Result], blocked: tuple[State, str] | None) -> tuple[State, str]:
    states = {r.state for r in results}
    if states <= {"ok"}:
        return blocked or ("ok", "")
    if blocked is not None and "ok" not in states:
        return blocked
    if "failed" in states:
        return "failed", next(r.reason for r in results if r.state == "failed")
    if "ok" not in states:
        return "missing", results[0].reason
    return "partial", f"{sum(r.state == 'ok' for r in results)} of {len(results)} tasks done"


def _cost(trained: Sequence[Record | None], generated: Sequence[Record | None]) -> Cost:
    train = [r.cost for r in trained if r is not None] if trained and None not in trained else []
    generate = [r.cost for r in generated if r is not None] if generated and None not in generated else []
    phases: dict[str, float] = {}
    for cost in train:
        for phase, seconds in cost.get("seconds", {}).items():
            phases[phase] = phases.get(phase, 0.0) + seconds
    tokens = _sum(train, "trained_tokens")
    busy = sum(seconds for phase, seconds in phases.items() if phase in STEPPING)
    peaks = [b for cost in train for b in cost.get("peak_bytes", {}).values()]
    return Cost(
        trained_tokens=_whole(tokens),
        loss_tokens=_whole(_sum(train, "loss_tokens")),
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
