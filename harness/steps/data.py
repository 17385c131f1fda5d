"""The data step: rows in the chat format, curated where a method says so."""

from __future__ import annotations

from functools import partial
from typing import Any

from harness.data.chat import to_rows
from harness.data.models import harness_cache, materialise
from harness.data.sources import rows as source_rows
from harness.methods.base import overrides
from harness.planning.groups import source_of
from harness.planning.planned import PlannedCell
from harness.steps.bench import Bench, write_lines
from harness.steps.tune import run_tune
from harness.store import Record


def run_data(bench: Bench, cell: PlannedCell) -> None:
    """Leaves `rows/NAME.jsonl` for every named set, and `ledger.jsonl`: what curation changed and why."""
    if cell.data is None:
        return
    held = bench.hold(cell.data)
    if isinstance(held, Record):
        return
    with held as attempt:
        label = cell.cell.data
        source = source_of(bench.plan.sources[label], cell.cell)
        rows = to_rows(source_rows(source), bench.plan.matrix.data[label])
        sets, ledger, cost = {"train": rows}, list[dict[str, Any]](), dict[str, Any]()
        if any(overrides(m, "curate") for m in cell.stack):
            from harness.training.budget import Meter
            from harness.training.curation import curate
            from harness.training.stage import device

            model = materialise(cell.model, harness_cache())
            run_tune(bench, cell)
            meter, seed = Meter(device()), cell.cell.seed or 0
            sets, ledger = curate(
                bench.settled(cell).stack,
                rows,
                seed=seed,
                model=model,
                engine=bench.plan.engine,
                meter=meter,
                told=partial(_told, bench, cell),
            )
            cost = meter.cost()
        for name, members in sets.items():
            write_lines(attempt.work / "rows" / f"{name}.jsonl", members)
        write_lines(attempt.work / "ledger.jsonl", ledger)
        attempt.publish(cost=cost, extra={"rows": {name: len(members) for name, members in sets.items()}})


def _told(bench: Bench, cell: PlannedCell, answered: int, asked: int) -> None:
    assert cell.data
    bench.report(cell.data.key, 0, 0, f"{cell.name}, curating: {answered} of {asked} answers")
