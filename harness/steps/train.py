"""The train step: one stage of a cell through its trainer adapter."""

from __future__ import annotations

from pathlib import Path

from harness.data.models import harness_cache, materialise
from harness.errors import HarnessError
from harness.planning.lines import is_over, wanted, with_starts
from harness.planning.planned import PlannedCell, Step
from harness.steps.bench import Bench
from harness.steps.data import run_data
from harness.steps.tune import run_tune
from harness.store import Record


def run_train(bench: Bench, cell: PlannedCell) -> None:
    """Data and every stage of a cell in order, up to the first that diverges. Nothing if its weights are there or not
    wanted any more, or if what it starts from diverged."""
    if is_over(cell, bench.store) or not wanted(cell, with_starts(bench.plan.cells), bench.store):
        return
    run_tune(bench, cell)
    run_data(bench, cell)
    cell = bench.settled(cell)
    for number, step in enumerate(cell.train):
        if _stage(bench, cell, number, step).status == "diverged":
            break


def _start(bench: Bench, cell: PlannedCell) -> Path | None:
    """The artifact that a cell begins from. HarnessError where training it failed."""
    if cell.start is None:
        return None
    try:
        return bench.finished("train", cell.start.trained[-1].key).path / "artifact"
    except HarnessError as error:
        raise HarnessError(f"there is nothing to start from: {cell.start.name} failed", why=error.why) from error


def _stage(bench: Bench, cell: PlannedCell, number: int, step: Step) -> Record:
    rows = sorted((bench.finished("data", cell.data.key).path / "rows").glob("*.jsonl")) if cell.data else []
    held = bench.hold(step)
    if isinstance(held, Record):
        return held
    from harness.training.adapters import TrainTask, make

    with held as attempt:
        bench.report(step.key, 0, 0, f"{cell.name}, opening the model")
        before = zip(cell.stages[:number], cell.train, strict=False)
        task = TrainTask(
            model=materialise(cell.model, harness_cache()),
            stack=cell.cell.stack,
            rows={p.stem: p for p in rows},
            settings=cell.cell.train,
            seed=cell.cell.seed or 0,
            engine=bench.plan.engine,
            stage=number,
            init=_start(bench, cell),
            done={stage.name: bench.finished("train", past.key).path / "artifact" for stage, past in before},
        )
        result = make(cell.cell.trainer).train(
            task,
            attempt.work,
            attempt.earlier,
            lambda done, total, note: bench.report(step.key, done, total, f"{cell.name}, {note}"),
        )
        return attempt.publish(result.status, cost=result.cost, extra=result.summary)
