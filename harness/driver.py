"""The driver of `harness run`: turns what is pending into jobs, launches them, and sheds weights nobody needs again.

It keeps no state of its own: whatever happens to it, the same command goes on from the store.
"""

from __future__ import annotations

import glob
import json
import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from harness.machine import gpus
from harness.pending import Todo
from harness.plan import Plan, PlannedCell
from harness.progress import Progress as View
from harness.runners.base import Ended, Job, Progress, Runner
from harness.store import Store
from harness.worker import JobFile

POLL = 0.5  # seconds
Task = Literal["prepare", "train", "generate", "score"]


@dataclass
class Planned:
    """A job that is not started yet, and the jobs that must have ended before it is."""

    id: str
    task: Task
    cells: tuple[PlannedCell, ...]
    steps: tuple[str, ...]
    after: tuple[str, ...] = ()


@dataclass
class Running:
    """A job that is running, with the share done of each of its steps."""

    planned: Planned
    shares: dict[str, float] = field(default_factory=dict)

    @property
    def done(self) -> float:
        return sum(self.shares.values())


def make_jobs(plan: Plan, todo: Sequence[Todo]) -> list[Planned]:
    """One job that prepares models and data, one a cell that trains, one a model that generates, one that scores it."""
    by_cell: dict[str, list[Todo]] = {}
    for t in todo:
        by_cell.setdefault(t.cell, []).append(t)
    keys = {t.step.key for t in todo}
    cells = [c for c in plan.cells if any(s.key in keys for s in c.steps())]
    jobs = []
    prepare = [c for c in cells if c.data and c.data.key in keys] or cells[:1]
    if any(t.step.kind in ("data", "train", "generate") for t in todo):
        jobs.append(Planned("prepare", "prepare", tuple(prepare), _steps(prepare, keys, "data")))
    first = tuple(j.id for j in jobs)
    trained: set[str] = set()
    for cell in cells:
        steps = tuple(k for k in _steps([cell], keys, "train") if k not in trained)
        if steps:
            trained.update(steps)
            jobs.append(Planned(f"train {cell.name}", "train", (cell,), steps, first))
    for model in dict.fromkeys(c.cell.model for c in cells):
        mine = [c for c in cells if c.cell.model == model]
        generate, score = _steps(mine, keys, "generate"), _steps(mine, keys, "score")
        before = first + tuple(j.id for j in jobs if j.task == "train" and j.cells[0] in mine)
        if generate:
            jobs.append(Planned(f"generate {model}", "generate", tuple(mine), generate, before))
            before = (f"generate {model}",)
        if score:
            jobs.append(Planned(f"score {model}", "score", tuple(mine), score, before))
    return jobs


def _steps(cells: Iterable[PlannedCell], keys: set[str], kind: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(s.key for c in cells for s in c.steps() if s.kind == kind and s.key in keys))


class Driver:
    """Runs jobs on a runner, `slots` heavy ones at a time, and shows how they do."""

    def __init__(
        self,
        plan: Plan,
        store: Store,
        runner: Runner,
        view: View,
        template: JobFile,
        folder: Path,
        slots: Sequence[str],
        *,
        verbose: bool = False,
    ) -> None:
        self.plan, self.store, self.runner, self.view = plan, store, runner, view
        self.template, self.folder = template, folder
        self.free, self.verbose = list(slots), verbose
        self.slot: dict[str, str] = {}
        self.running: dict[str, Running] = {}
        self.ended: dict[str, bool] = {}
        self.started: dict[str, float] = {}
        self.timeline: list[dict[str, Any]] = []

    def drive(self, jobs: Sequence[Planned]) -> bool:
        """Do all jobs; True when each ended well. KeyboardInterrupt ends what is running and is passed on."""
        waiting = list(jobs)
        known = {j.id for j in jobs}
        self.view.start(sum(len(j.steps) for j in jobs))
        try:
            while waiting or self.running:
                for job in [j for j in waiting if all(a in self.ended or a not in known for a in j.after)]:
                    if self.free:
                        waiting.remove(job)
                        self._launch(job)
                for event in self.runner.poll(POLL):
                    self._progress(event) if isinstance(event, Progress) else self._ended(event)
        finally:
            for job_id in list(self.running):
                self.runner.cancel(job_id)
            self.view.close()
            (self.folder / "timeline.json").write_text(json.dumps(self.timeline))
        return all(self.ended.values())

    def _launch(self, job: Planned) -> None:
        name = f"{job.id.replace(' ', '-').replace('/', '_')}-{os.getpid()}"
        file = self.folder / "jobs" / f"{name}.json"
        names = tuple(glob.escape(c.name) for c in job.cells)
        replace(self.template, task=job.task, cells=names).write(file)
        slot = self.free.pop(0)
        self.slot[job.id] = slot
        self.running[job.id] = Running(job)
        self.started[job.id] = time.monotonic()
        argv = (sys.executable, "-m", "harness.worker", str(file))
        self.runner.submit(Job(job.id, argv, environment(slot), file.with_suffix(".log")))
        self.view.job_started(job.id, job.id, len(job.steps))
        if self.verbose:
            self.view.message(f"{job.id}: log in {file.with_suffix('.log')}")

    def _progress(self, event: Progress) -> None:
        job = self.running.get(event.job_id)
        if job is None:
            return
        total = float(event.body["total"])
        if total:
            job.shares[event.body["key"]] = min(1.0, float(event.body["done"]) / total)
        self.view.progress(event.job_id, job.done, max(1, len(job.planned.steps)), str(event.body["note"]))

    def _ended(self, event: Ended) -> None:
        job = self.running.pop(event.job_id)
        self.free.append(self.slot.pop(event.job_id))
        good = event.code == 0
        self.timeline.append({"job": event.job_id, "seconds": time.monotonic() - self.started[event.job_id]})
        self.ended[event.job_id] = good
        text = ""
        if not good:
            how = f"ended by signal {event.signal}" if event.signal else f"exit code {event.code}"
            text = f"{how}; log: {self.folder / 'jobs'}\n{event.tail}"
        self.view.job_ended(event.job_id, good, text)
        if job.planned.task in ("generate", "score"):
            self.shed(job.planned.cells)

    def shed(self, cells: Iterable[PlannedCell]) -> None:
        """Let go of weights that `keep` does not ask for, once every answer that needed them is there."""
        for cell in cells:
            names = sheddable(self.plan, cell, self.store)
            if names:
                record = self.store.find("train", cell.train[-1].key)
                if record is not None:
                    self.store.shed(record, names)


def sheddable(plan: Plan, cell: PlannedCell, store: Store) -> list[str]:
    """The weight files of a cell that may go: `keep` allows it and all its answers are stored."""
    keep = plan.matrix.keep
    if keep == "all" or not cell.train:
        return []
    if any(store.find("generate", t.generate.key) is None for t in cell.tasks):
        return []
    record = store.find("train", cell.train[-1].key)
    if record is None or record.status != "ok":
        return []
    kind = json.loads(record.file("artifact/artifact.json").read_text())["kind"]
    if keep == "adapters" and kind == "adapter":
        return []
    gone = set(record.missing())
    return [n for n in record.outputs if n.startswith("artifact/") and n.endswith(".safetensors") and n not in gone]


def environment(slot: str) -> Mapping[str, str]:
    """The environment of a job: the device it may use, quiet libraries, and the threads this machine has."""
    env = {**os.environ, "CUDA_VISIBLE_DEVICES": slot if slot != "cpu" else ""}
    for name, value in {
        "OMP_WAIT_POLICY": "passive",  # threads that spin while they wait take the cores from whoever has work
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "TRANSFORMERS_VERBOSITY": "error",
        "PYTHONUNBUFFERED": "1",
    }.items():
        env.setdefault(name, value)
    return env


def device_slots(jobs: int | None) -> list[str]:
    """One slot a GPU, or one on a machine without any; `jobs` overrides how many run at once on a CPU."""
    found = gpus()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible else [str(i) for i in range(len(found))]
    if found and names:
        return names
    return ["cpu"] * (jobs or 1)
