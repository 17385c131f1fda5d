"""One job in a process of its own: `python -m harness.worker JOB.json`. It plans again, finds its steps, and runs them.

Progress goes as JSON lines to the descriptor named by HARNESS_EVENTS_FD; everything else it prints is its log. A step
that fails leaves its reason in the store; the exit code says only whether all of the job's steps came out.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.data.models import harness_cache, materialise
from harness.errors import HarnessError, StepFailed
from harness.matrix import load_matrix
from harness.plan import Plan, PlannedCell, Where, make_plan
from harness.steps import Bench, run_data, run_generate, run_scores, run_train
from harness.store import Store

QUIET = 0.2  # seconds between progress lines of one step, at least


@dataclass(frozen=True)
class JobFile:
    """What a worker is told: how to make the driver's plan again, and what of it to do."""

    task: str  # prepare, train, generate, score
    cells: tuple[str, ...]
    store: str
    matrix: str
    overrides: tuple[str, ...] = ()
    mirror: str | None = None
    offline: bool = True
    seeds: int | None = None
    limit: int | None = None

    def write(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(asdict(self)))

    @classmethod
    def read(cls, file: Path) -> JobFile:
        body = json.loads(file.read_text())
        return cls(**{**body, "cells": tuple(body["cells"]), "overrides": tuple(body["overrides"])})

    def plan(self) -> Plan:
        where = Where(Path(self.mirror) if self.mirror else None, self.offline)
        matrix = load_matrix(Path(self.matrix), overrides=self.overrides)
        return make_plan(matrix, where, only=self.cells, seeds=self.seeds, limit=self.limit)


def reporter() -> Callable[[str, float, float, str], None]:
    """Writes progress to the driver; without one (a job run by hand) it writes nothing."""
    number = os.environ.get("HARNESS_EVENTS_FD")
    if number is None:
        return lambda key, done, total, note: None
    stream = os.fdopen(int(number), "w", buffering=1)
    last: dict[str, float] = {}

    def report(key: str, done: float, total: float, note: str) -> None:
        now = time.monotonic()
        if now - last.get(key, 0.0) >= QUIET or done >= total:
            last[key] = now
            stream.write(json.dumps({"key": key, "done": done, "total": total, "note": note}) + "\n")

    return report


def each(cells: list[PlannedCell], run: Callable[[PlannedCell], Any]) -> int:
    """Run a step for every cell; one that fails is reported and does not stop the others."""
    failed = 0
    for cell in cells:
        try:
            run(cell)
        except HarnessError as error:
            failed = max(failed, error.exit_code)
            print(f"{cell.name}: {error}", file=sys.stderr, flush=True)
    return failed


def work(job: JobFile) -> int:
    """Do a job; 0 when all of its steps came out."""
    bench = Bench(job.plan(), Store(Path(job.store)), reporter())
    cells = bench.plan.cells
    if job.task == "prepare":
        for model in {c.model.digest: c.model for c in cells}.values():
            materialise(model, harness_cache())
        return each(cells, lambda c: run_data(bench, c))
    if job.task == "train":
        return each(cells, lambda c: run_train(bench, c))
    if job.task == "generate":
        run_generate(bench, cells)
        return 0
    return each(cells, lambda c: run_scores(bench, c))


def main(argv: list[str]) -> int:
    """Run the job file named on the command line."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        return work(JobFile.read(Path(argv[0])))
    except StepFailed as error:
        print(error, file=sys.stderr)
        return 1
    except HarnessError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _interrupt(number: int, frame: Any) -> None:
    """A driver that is interrupted asks its workers to end; what they hold is then noted as interrupted, not failed."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
