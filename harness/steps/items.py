"""The items step: the per-item scores of all tasks of a cell in one columnar file, so that tables read one file a cell.

It copies what the score steps say and adds nothing; without it a table reads those, only slower.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress

from harness.planning.planned import PlannedCell, Step
from harness.results.frame import read_samples
from harness.results.items import write_items
from harness.store import Busy, Done, Store


def run_items(store: Store, cells: Iterable[PlannedCell]) -> None:
    """Pack every cell whose tasks are all scored and that is not packed yet."""
    done = store.finished("items")
    for cell in cells:
        if cell.tasks and cell.items.key not in done:
            _pack(store, cell.items)


def _pack(store: Store, step: Step) -> None:
    records = {score: store.find("score", score) for score in step.identity["scores"]}
    scored = {score: record for score, record in records.items() if record is not None}
    if len(scored) < len(records):
        return
    with suppress(Busy, Done), store.claim(step.kind, step.key, step.identity) as attempt:
        write_items(
            attempt.work / "items.parquet",
            {score: read_samples(record.file("samples.jsonl")) for score, record in scored.items()},
        )
        tasks = {
            score: {
                "metrics": json.loads(record.file("metrics.json").read_text()),
                **{name: record.extra.get(name) for name in ("truncated", "too_long")},
            }
            for score, record in scored.items()
        }
        attempt.publish(extra={"tasks": tasks})
