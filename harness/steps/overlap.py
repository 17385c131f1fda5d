"""The overlap step: which items of a test set occur in the training data of a cell, and by which rule."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict

from harness.methods.base import overrides
from harness.planning.planned import PlannedCell, PlannedTask
from harness.results.frame import read_samples
from harness.results.items import name_items
from harness.steps.bench import Bench, write_lines
from harness.steps.data import run_data
from harness.store import Busy, Done


def run_overlap(bench: Bench, cell: PlannedCell, planned: PlannedTask) -> None:
    """Leaves `hits.jsonl`, a line for each item that was found: {item, question, answer}.

    A step that another process is at is left to it.
    """
    step = planned.overlap
    if step is None or bench.store.find(step.kind, step.key):
        return
    for trained in cell.line:
        if not any(
            overrides(m, "curate") for m in trained.stack
        ):  # curation may ask an engine, which is no job of ours
            run_data(bench, trained)
    from harness.evaluation.contamination import Item, overlap
    from harness.evaluation.lm import documents

    with suppress(Busy, Done), bench.store.claim(step.kind, step.key, step.identity, log=bench.log) as attempt:
        sets = [bench.finished(kind, key).path / "rows" for kind, key in step.needs]
        files = [file for rows in sets for file in sorted(rows.glob("*.jsonl"))]
        train = (row for file in files for row in read_samples(file))
        asked = name_items({"hash": d.hash, "document": d} for d in documents(planned.task))
        items = [Item(name, d["document"].question, d["document"].answer) for name, d in asked.items()]
        found = overlap(train, items)
        write_lines(attempt.work / "hits.jsonl", ({"item": name, **asdict(f)} for name, f in found.items.items()))
        attempt.publish(extra=found.summary())
