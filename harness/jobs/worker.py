"""One job in a process of its own: `python -m harness.jobs.worker JOB.json`. It plans again and runs its steps.

Progress goes as JSON lines to the descriptor named by HARNESS_EVENTS_FD; everything else it prints is its log. A step
that fails leaves its reason in the store; the exit code says only whether all of the job's steps came out.
"""

from __future__ import annotations

import importlib
import itertools
import json
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from harness.data.models import harness_cache, materialise
from harness.errors import HarnessError, StepFailed
from harness.machine import cores
from harness.matrix import load_matrix
from harness.matrix.schema import Limit
from harness.planning.lines import with_starts
from harness.planning.plan import Plan, Where, make_plan
from harness.planning.planned import PlannedCell, PlannedTask
from harness.runners.base import EVENTS_FD, LOG
from harness.steps import Bench, run_generate, run_heads, run_judge, run_overlap, run_score, run_train
from harness.store import Store

LOOK = 0.2  # seconds between looks for new answers
QUIET = 0.2  # seconds between progress lines of one step, at least


@dataclass(frozen=True)
class JobFile:
    """What a worker is told: how to make the driver's plan again, and what of it to do."""

    task: str  # train, generate, head, judge, score
    cells: tuple[str, ...]
    steps: tuple[str, ...]  # keys
    store: str
    matrix: str
    overrides: tuple[str, ...] = ()
    mirror: str | None = None
    offline: bool = True
    seeds: int | None = None
    limit: Limit | None = None
    follows: str | None = None  # score what another job answers, until this file is there

    def write(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(asdict(self)))

    @classmethod
    def read(cls, file: Path) -> JobFile:
        body = json.loads(file.read_text())
        return cls(**{**body, **{name: tuple(body[name]) for name in ("cells", "steps", "overrides")}})

    def plan(self) -> Plan:
        where = Where(Path(self.mirror) if self.mirror else None, self.offline)
        matrix = load_matrix(Path(self.matrix), overrides=self.overrides)
        return make_plan(matrix, where, only=self.cells, seeds=self.seeds, limit=self.limit)


def scratch(job: Path) -> Path:
    """The folder for the temporary files of a job. Short, since sockets may lie in it."""
    folder = job.with_suffix(".tmp")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def reporter() -> Callable[[str, float, float, str], None]:
    """Writes progress to the driver; without one (a job run by hand) it writes nothing."""
    number = os.environ.get(EVENTS_FD)
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


def work(job: JobFile) -> int:
    """Do a job; 0 when all of its steps came out."""
    log = os.environ.get(LOG)
    bench = Bench(job.plan(), Store(Path(job.store)), reporter(), Path(log) if log else None)
    try:
        return _do(job, bench)
    finally:
        for warning in bench.store.warnings:
            print(f"warning: {warning}", file=sys.stderr)


def _do(job: JobFile, bench: Bench) -> int:
    cells = bench.plan.cells
    if set(job.steps) - bench.plan.steps().keys():
        raise HarnessError("what this run was planned from has changed since it started", todo="run the command again")

    answer = {"generate": run_generate, "head": run_heads, "judge": run_judge}.get(job.task)
    if answer:
        return answer(bench, cells)
    if job.task == "train":
        # What must be converted first is converted beside the imports; a cell that needs it says if that went wrong.
        with ProcessPoolExecutor(1, mp_context=get_context("fork")) as beside:
            for model in {c.model.digest: c.model for c in cells}.values():
                beside.submit(materialise, model, harness_cache())
            load_packages("torch", "transformers.models.auto.modeling_auto", "peft")
        return forked([(c.name, partial(run_train, bench, c)) for c in with_starts(cells)])
    load_packages("harness.evaluation.lm")
    steps = set(job.steps)
    mine = [(c, t) for c in cells for t in c.tasks if steps & {s.key for s in (t.score, t.overlap) if s}]
    ready = follow(mine, bench, Path(job.follows)) if job.follows else mine
    return forked(((f"{c.name}, {t.task.name}", partial(_score, bench, c, t)) for c, t in ready), at_once=scorers())


def _score(bench: Bench, cell: PlannedCell, task: PlannedTask) -> None:
    run_score(bench, cell, task)
    run_overlap(bench, cell, task)


def scorers() -> int:
    """How many processes score at once."""
    return max(1, int(cores()))


def load_packages(*names: str) -> None:
    """Import what the cells of a job need, once, before they are forked."""
    for name in names:
        importlib.import_module(name)


Scorable = tuple[PlannedCell, PlannedTask]


def follow(tasks: Sequence[Scorable], bench: Bench, ended: Path) -> Iterator[Scorable]:
    """Each task as soon as what it scores is there; when the file `ended` is, the rest, whatever there is of them."""
    waiting = list(tasks)
    while waiting:
        over = ended.exists()
        for cell, task in list(waiting):
            if over or all(bench.store.find(kind, key) for kind, key in task.score.needs):
                waiting.remove((cell, task))
                yield cell, task
        time.sleep(0 if over else LOOK)


def forked(tasks: Iterable[tuple[str, Callable[[], None]]], *, at_once: int = 1) -> int:
    """Each named task in a process of its own, forked from this one, which has imported heavy packages for all of them.

    Nothing may compute here before the fork: a child cannot use threads that its parent has started. A task that
    fails, or is killed, does not stop the others. Returns the worst exit code.
    """
    waiting, running, code = iter(tasks), dict[int, str](), 0
    try:
        while True:
            for name, run in itertools.islice(waiting, at_once - len(running)):
                running[_fork(name, run)] = name
            if not running:
                return code
            pid, status = os.wait()
            ended = running.pop(pid, "")
            if ended and status:
                code = max(code, os.waitstatus_to_exitcode(status), 1)
                if os.WIFSIGNALED(status):
                    print(
                        f"{ended}: its process was ended by signal {os.WTERMSIG(status)}", file=sys.stderr, flush=True
                    )
    finally:
        for pid in running:
            os.kill(pid, signal.SIGTERM)
        for pid in running:
            os.waitpid(pid, 0)


def _fork(name: str, run: Callable[[], None]) -> int:
    """The pid of a child that runs one task and exits with its code."""
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        run()
        code = 0
    except HarnessError as error:
        code = error.exit_code
        print(f"{name}: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        code = 130
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # not through the parent's cleanup


def main(argv: list[str]) -> int:
    """Run the job file named on the command line."""
    interruptible()
    try:
        file = Path(argv[0])
        tempfile.tempdir = str(scratch(file))  # so that what a killed worker leaves is found and removed
        return work(JobFile.read(file))
    except StepFailed as error:
        print(error, file=sys.stderr)
        return 1
    except HarnessError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def interruptible() -> None:
    """A driver that is interrupted asks its workers to end; what they hold is then noted as interrupted, not failed."""
    signal.signal(signal.SIGTERM, _interrupt)


def _interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # taking torch and vLLM down in order takes seconds and gives nothing back that the end does not
