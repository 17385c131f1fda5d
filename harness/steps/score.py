"""The score step: stored responses through a task's scorer, on the CPU and without a model."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from harness.evaluation import sandbox
from harness.methods.base import overrides
from harness.planning.planned import WHOLE, PlannedCell, PlannedTask
from harness.results.items import sums
from harness.steps.bench import Bench, write_lines
from harness.steps.responses import answered, read_responses
from harness.store import Record

if TYPE_CHECKING:
    from harness.evaluation.lm import Scored


def run_score(bench: Bench, cell: PlannedCell, planned: PlannedTask) -> None:
    """Score a task of a cell if its answers are there; why others are not was said where they failed."""
    if all(bench.store.find(kind, key, whole=kind in WHOLE) for kind, key in planned.score.needs):
        _score(bench, cell, planned)


def _score(bench: Bench, cell: PlannedCell, planned: PlannedTask) -> None:
    """Leaves `samples.jsonl`, a line a document, and `metrics.json`."""
    held = bench.hold(planned.score)
    if isinstance(held, Record):
        return
    with held as attempt:
        generated = bench.finished("generate", planned.generate.key)
        started = time.monotonic()
        scored = scored_answers(bench, cell, planned)
        if planned.judge:
            scored = judged_answers(planned, scored, bench.finished("judge", planned.judge.key))
        write_lines(attempt.work / "samples.jsonl", scored.samples)
        (attempt.work / "metrics.json").write_text(json.dumps(scored.metrics, indent=1, sort_keys=True))
        ends = {name: generated.extra.get(name) for name in ("truncated", "too_long")}
        extra = {**ends, "sums": sums(scored.samples), "sandbox": sandbox.used()}
        attempt.publish(cost={"seconds": time.monotonic() - started}, extra=extra)


def scored_answers(bench: Bench, cell: PlannedCell, planned: PlannedTask) -> Scored:
    """The stored answers of a task, as the stack's `answer` hooks want them, through its scorer."""
    from harness.evaluation.lm import build_requests, score

    generated = bench.finished("generate", planned.generate.key)
    responses = {r.key: r for r in read_responses(generated.path / "responses.jsonl")}
    if planned.route != "head" and any(overrides(m, "answer") for m in cell.stack):
        asked, stack = build_requests(planned.task), bench.settled(cell).stack
        responses |= {r.key: answered(stack, r, responses[r.key]) for r in asked if r.key in responses}
    return score(planned.task, responses)


def judged_answers(planned: PlannedTask, scored: Scored, judged: Record) -> Scored:
    """What is scored without a judge, and what the judge's stored replies make of it."""
    from harness.evaluation.judge.cases import cases
    from harness.evaluation.judge.scoring import with_replies, withheld
    from harness.evaluation.lm import chosen_rows

    form = planned.task.form.judge
    assert form is not None, "planning makes a judge step for judged tasks only"
    if reason := judged.extra.get("withheld"):
        return withheld(form, scored, reason)
    replies = {r.key: r for r in read_responses(judged.path / "responses.jsonl")}
    return with_replies(form, cases(form, chosen_rows(planned.task), scored.samples), scored, replies)
