"""Stored responses through today's scorers: which score steps that takes, and which verdicts come out differently.

No engine and no model. What is compared are two score steps over the same responses (and the same judge's words): the
one that today's code asks for, and of the others the one that was made last.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from harness.jobs.worker import forked, load_packages
from harness.machine import cores
from harness.planning.plan import Plan
from harness.planning.planned import PlannedCell, PlannedTask, Step
from harness.results.frame import read_samples
from harness.results.items import name_items
from harness.steps import Bench, run_score
from harness.steps.items import run_items
from harness.store import Record, Store

UPSTREAM = ("generate", "judge")  # parts of a score step's identity that name what it scores


@dataclass(frozen=True)
class Change:
    """A sample whose verdict differs. item: its document's hash.  was, now: outcome, then every score that differs."""

    doc: int
    item: str
    was: str
    now: str
    why: str


@dataclass(frozen=True)
class Rescored:
    """One task of one cell.

    state: "scored" just now; "unchanged" where the scorer is the one that scored it before; "unanswered" where there is
    nothing to score; "failed", and `reason` says why.
    samples: how many.  compared: whether there was another score of these responses.  values: the primary metric then
    and now.
    """

    cell: str
    task: str
    state: Literal["scored", "unchanged", "unanswered", "failed"]
    reason: str = ""
    samples: int = 0
    compared: bool = False
    changes: tuple[Change, ...] = ()
    values: tuple[float | None, float | None] = (None, None)


def rescore(plan: Plan, store: Store) -> list[Rescored]:
    """Score what today's scorers have not scored, on all cores, and compare. One entry for each cell and task."""
    tasks = [(cell, t) for cell in plan.cells for t in cell.tasks]
    fresh = {
        t.score.key: (cell, t)
        for cell, t in tasks
        if store.find("score", t.score.key) is None and all(store.find(*need) for need in t.score.needs)
    }
    if fresh:
        load_packages("harness.evaluation.lm")
        bench = Bench(plan, store, lambda key, done, total, note: None)
        jobs = ((f"{c.name}, {t.task.name}", partial(run_score, bench, c, t)) for c, t in fresh.values())
        forked(jobs, at_once=max(1, int(cores())))
        run_items(store, plan.cells)
    others = _other_scores(store, tasks)
    return [_result(store, cell, t, t.score.key in fresh, others) for cell, t in tasks]


def _other_scores(store: Store, tasks: Sequence[tuple[PlannedCell, PlannedTask]]) -> dict[str, list[str]]:
    """Keys of score steps by the digest of what they score, for whatever these tasks score."""
    wanted = {_scored(t.score.identity) for _, t in tasks}
    found: dict[str, list[str]] = {}
    for key in store.keys("score"):
        identity = store.identity("score", key)
        if identity is not None and (what := _scored(identity)) in wanted:
            found.setdefault(what, []).append(key)
    return found


def _scored(identity: Mapping[str, Any]) -> str:
    return json.dumps([identity.get(name) for name in UPSTREAM])


def _result(
    store: Store, cell: PlannedCell, planned: PlannedTask, fresh: bool, others: Mapping[str, Sequence[str]]
) -> Rescored:
    now = store.find("score", planned.score.key)
    if now is None:
        past = store.history("score", planned.score.key)
        state: Literal["failed", "unanswered"] = "failed" if fresh else "unanswered"
        reason = past[-1].message if past and fresh else _missing(store, planned.score)
        return Rescored(cell.name, planned.task.name, state, reason)
    samples = name_items(read_samples(now.file("samples.jsonl")))
    before = _latest(store, [key for key in others.get(_scored(planned.score.identity), []) if key != now.key])
    changes: tuple[Change, ...] = ()
    if before:
        changes = tuple(compare(name_items(read_samples(before.file("samples.jsonl"))), samples))
    return Rescored(
        cell.name,
        planned.task.name,
        "scored" if fresh else "unchanged",
        samples=len(samples),
        compared=before is not None,
        changes=changes,
        values=(_value(before, planned.task.primary), _value(now, planned.task.primary)),
    )


def _missing(store: Store, score: Step) -> str:
    """What is not there that the score needs."""
    return ", ".join(f"no {kind} step" for kind, key in score.needs if store.find(kind, key) is None)


def _latest(store: Store, keys: Sequence[str]) -> Record | None:
    """The one that was made last; two of the same second, by key."""
    records = [record for key in keys if (record := store.find("score", key))]
    return max(records, key=lambda r: (r.file("metrics.json").stat().st_mtime, r.key), default=None)


def _value(record: Record | None, metric: str) -> float | None:
    if record is None:
        return None
    with suppress(KeyError):
        value: float = json.loads(record.file("metrics.json").read_text())[metric]["value"]
        return value
    return None


def compare(before: Mapping[str, Mapping[str, Any]], now: Mapping[str, Mapping[str, Any]]) -> Iterator[Change]:
    """The samples with another outcome or score. A metric that only one of the two has is no change of verdict."""
    for item, sample in now.items():
        old = before.get(item)
        if old is None:
            yield Change(sample["doc"], item, "not scored", _words(sample, []), str(sample["why"]))
            continue
        both = old["scores"].keys() & sample["scores"].keys()
        metrics = sorted(metric for metric in both if old["scores"][metric] != sample["scores"][metric])
        if metrics or old["outcome"] != sample["outcome"]:
            yield Change(sample["doc"], item, _words(old, metrics), _words(sample, metrics), str(sample["why"]))


def _words(sample: Mapping[str, Any], metrics: Sequence[str]) -> str:
    return ", ".join([sample["outcome"] or "-", *(f"{m} {json.dumps(sample['scores'][m])}" for m in metrics)])


def count(results: Sequence[Rescored]) -> Counter[str]:
    """How many changes of each kind there are, by outcome: `wrong -> right`."""
    kinds = (f"{c.was.split(',')[0]} -> {c.now.split(',')[0]}" for r in results for c in r.changes)
    return Counter(kinds)
