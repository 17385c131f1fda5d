"""The score step: stored responses through a task's scorer, on the CPU and without a model."""

from __future__ import annotations

import json
import time

from harness.methods.base import overrides
from harness.plan import PlannedCell, PlannedTask
from harness.steps.bench import Bench, write_lines
from harness.steps.responses import answered, read_responses
from harness.store import Record


def run_score(bench: Bench, cell: PlannedCell, planned: PlannedTask) -> None:
    """Score a task of a cell if its answers are there; why others are not was said where they failed."""
    if bench.store.find("generate", planned.generate.key):
        _score(bench, cell, planned)


def _score(bench: Bench, cell: PlannedCell, planned: PlannedTask) -> None:
    """Leaves `samples.jsonl`, a line a document, and `metrics.json`."""
    held = bench.hold(planned.score)
    if isinstance(held, Record):
        return
    from harness.evaluation.lm import build_requests, score

    with held as attempt:
        generated = bench.finished("generate", planned.generate.key)
        responses = {r.key: r for r in read_responses(generated.path / "responses.jsonl")}
        started = time.monotonic()
        if any(overrides(m, "answer") for m in cell.stack):
            asked = build_requests(planned.task)
            responses |= {r.key: answered(cell.stack, r, responses[r.key]) for r in asked if r.key in responses}
        scored = score(planned.task, responses)
        write_lines(attempt.work / "samples.jsonl", scored.samples)
        (attempt.work / "metrics.json").write_text(json.dumps(scored.metrics, indent=1, sort_keys=True))
        attempt.publish(cost={"seconds": time.monotonic() - started}, extra={"truncated": generated.extra["truncated"]})
