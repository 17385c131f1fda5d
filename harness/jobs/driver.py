"""The driver of `harness run`: turns what is pending into jobs, launches them, and sheds weights nobody needs again.

It keeps no state of its own: whatever happens to it, the same command goes on from the store.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from harness.jobs.progress import Progress as View
from harness.jobs.worker import JobFile
from harness.machine import gpus
from harness.planning.lines import wanted, with_starts
from harness.planning.pending import Todo
from harness.planning.plan import Plan
from harness.planning.planned import PlannedCell, Route, Step
from harness.runners.base import LOG, Ended, Job, Progress, Runner
from harness.store import Record, Store

POLL = 0.5  # seconds
CELLS = 8  # trainings a job: enough to share its start, few enough to balance devices
Task = Literal["train", "generate", "head", "judge", "score"]


@dataclass
class Planned:
    """A job that is not started yet.

    after: jobs that must have ended before it is.  follows: the job whose answers it scores while they come in. Such
    a job mostly waits, so it takes no slot.
    """

    id: str
    task: Task
    cells: tuple[PlannedCell, ...]
    steps: tuple[str, ...]
    after: tuple[str, ...] = ()
    follows: str = ""


@dataclass
class Running:
    """A job that is running, with the share done of each of its steps."""

    planned: Planned
    shares: dict[str, float] = field(default_factory=dict)

    @property
    def done(self) -> float:
        return sum(self.shares.values())


def make_jobs(plan: Plan, todo: Sequence[Todo]) -> list[Planned]:
    """Per model: jobs that train some cells each, one that generates for all of them, one that scores."""
    keys = {t.step.key for t in todo}
    jobs: list[Planned] = []
    trained: set[str] = set()
    for model in dict.fromkeys(c.cell.model for c in plan.cells):
        mine = [c for c in plan.cells if c.cell.model == model and any(s.key in keys for s in c.steps())]
        to_train = []
        for cell in mine:
            if set(_steps([cell], keys, "train")) - trained:
                to_train.append(cell)
                trained.update(_steps([cell], keys, "train"))
        parts = _parts(to_train)
        for number, part in enumerate(parts, 1):
            name = f"train {model}" if len(parts) == 1 else f"train {model} {number}/{len(parts)}"
            jobs.append(Planned(name, "train", tuple(part), _steps(part, keys, "tune", "data", "train")))
        needed = {s.key for c in mine for s in c.trained}  # two labels of one model may share a training
        trained_by = tuple(j.id for j in jobs if j.task == "train" and needed & set(j.steps))
        jobs += _evaluation_jobs(model, mine, keys, trained_by)
    return jobs


def _parts(cells: Sequence[PlannedCell]) -> list[list[PlannedCell]]:
    """Shares of about `CELLS` cells. What begins from the same training is never in two jobs, which would wait."""
    families: dict[str, list[PlannedCell]] = {}
    for cell in cells:
        families.setdefault(cell.trained[0].key, []).append(cell)
    parts: list[list[PlannedCell]] = []
    for family in families.values():
        if parts and len(parts[-1]) + len(family) <= CELLS:
            parts[-1] += family
        else:
            parts.append(family)
    return parts


def _evaluation_jobs(
    model: str, cells: Sequence[PlannedCell], keys: set[str], trained_by: tuple[str, ...]
) -> Iterator[Planned]:
    """What answers, what trains heads, what judges, and beside each of them what scores its results as they come."""
    routes: tuple[tuple[Task, str, Route, tuple[Route, ...]], ...] = (
        ("generate", "generate", "engine", ("engine", "judge")),
        ("head", "generate", "head", ("head",)),
        ("judge", "judge", "judge", ("judge",)),
    )
    ids: dict[str, str] = {}
    for task, kind, scores, answers in routes:
        made = tuple(s for s in _route_steps(cells, keys, answers) if s.kind == kind)
        scored = tuple(s for s in _route_steps(cells, keys, [scores]) if s.kind in ("score", "overlap"))
        ids[task] = f"{task} {model}" if made else ""
        after = trained_by if task != "judge" else tuple(filter(None, (ids["generate"],)))
        if made:
            yield Planned(ids[task], task, tuple(cells), tuple(s.key for s in made), after)
        if scored:
            name = f"score {model}" if task == "generate" else f"score {task} {model}"
            yield Planned(name, "score", tuple(cells), tuple(s.key for s in scored), after, ids[task])


def _route_steps(cells: Iterable[PlannedCell], keys: set[str], routes: Collection[Route]) -> Iterator[Step]:
    """The pending steps of the tasks that go one of these ways, each once."""
    found = {s.key: s for c in cells for t in c.tasks if t.route in routes for s in t.steps() if s.key in keys}
    yield from found.values()


def _steps(cells: Iterable[PlannedCell], keys: set[str], *kinds: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(s.key for c in cells for s in c.steps() if s.kind in kinds and s.key in keys))


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
        remove_leftovers(self.folder / "jobs")
        waiting = list(jobs)
        known = {j.id for j in jobs}
        self.view.start(sum(len(j.steps) for j in jobs))
        try:
            while waiting or self.running:
                for job in [j for j in waiting if all(a in self.ended or a not in known for a in j.after)]:
                    if job.follows in (*self.running, *self.ended) if job.follows else self.free:
                        waiting.remove(job)
                        self._launch(job)
                for event in self.runner.poll(POLL):
                    self._progress(event) if isinstance(event, Progress) else self._ended(event)
        finally:
            for job_id in list(self.running):
                self.runner.cancel(job_id)
            self.view.close()
            with suppress(OSError):  # a full disk: what ended the run says so
                (self.folder / "timeline.json").write_text(json.dumps(self.timeline))
        return all(self.ended.values())

    def _launch(self, job: Planned) -> None:
        file = self.folder / "jobs" / f"{file_name(job.id)}.json"
        names = tuple(c.name for c in job.cells)
        follows = str(self._marker(job.follows)) if job.follows else None
        replace(self.template, task=job.task, cells=names, steps=job.steps, follows=follows).write(file)
        self._marker(job.id).unlink(missing_ok=True)
        slot = "cpu" if job.follows else self.free.pop(0)
        if not job.follows:
            self.slot[job.id] = slot
        self.running[job.id] = Running(job)
        self.started[job.id] = time.monotonic()
        argv = (sys.executable, "-m", "harness.jobs.worker", str(file))
        log = file.with_suffix(".log")
        env = {**environment(slot, self.template.offline), LOG: str(log.absolute())}
        self.runner.submit(Job(job.id, argv, env, log))
        self.view.job_started(job.id, job.id, len(job.steps))
        if self.verbose:
            self.view.message(f"{job.id}: log in {log}")

    def _marker(self, job: str) -> Path:
        """A file that is there once a job has ended."""
        return self.folder / "jobs" / f"{file_name(job)}.ended"

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
        if event.job_id in self.slot:
            self.free.append(self.slot.pop(event.job_id))
        self._marker(event.job_id).touch()
        good = event.code == 0
        self.timeline.append({"job": event.job_id, "seconds": time.monotonic() - self.started[event.job_id]})
        self.ended[event.job_id] = good
        text = ""
        if not good:
            how = f"ended by signal {event.signal}" if event.signal else f"exit code {event.code}"
            log = self.folder / "jobs" / f"{file_name(event.job_id)}.log"
            text = f"{how}; log: {log}\n{_without_traceback(event.tail)}"
        self.view.job_ended(event.job_id, good, text)
        shutil.rmtree(self.folder / "jobs" / f"{file_name(event.job_id)}.tmp", ignore_errors=True)
        if job.planned.task in ("generate", "head"):
            shed(self.plan, self.store)


def file_name(job: str) -> str:
    """The stem of a job's files: two drivers of one run must not share them."""
    return f"{job.replace(' ', '-').replace('/', '_')}-{os.getpid()}"


def remove_leftovers(jobs: Path) -> None:
    """Temporary files of drivers that were killed; a file's stem ends with the pid of its driver."""
    for folder in jobs.glob("*.tmp"):
        if not Path(f"/proc/{folder.stem.rpartition('-')[2]}").exists():
            shutil.rmtree(folder, ignore_errors=True)


def _without_traceback(tail: str) -> str:
    """A traceback is for the log; its last line says enough here."""
    head, mark, trace = tail.partition("Traceback (most recent call last)")
    return f"{head}{trace.rstrip().splitlines()[-1]}" if mark else tail


def shed(plan: Plan, store: Store) -> None:
    """Let go of weights that `keep` does not ask for, once every answer that needed them is there."""
    for record, names in sheddable(plan, store):
        store.shed(record, names)


def sheddable(plan: Plan, store: Store) -> list[tuple[Record, list[str]]]:
    """The weight files that may go, by record: `keep` allows it, all answers are stored, and nothing is to begin from
    them. What other cells start from may be left out of this run, not of the matrix: it is then left as it is."""
    cells = with_starts(plan.cells)
    rows = {c.name for c in plan.cells}
    return [
        pair
        for cell in cells
        if cell.name in rows or (cell.cell.model, cell.cell.method) in plan.matrix.left_out
        for pair in _weights(plan.matrix.keep, cell, cells, store)
    ]


def _weights(
    keep: str, cell: PlannedCell, cells: Sequence[PlannedCell], store: Store
) -> list[tuple[Record, list[str]]]:
    if keep == "all" or not cell.train or wanted(cell, cells, store):
        return []
    record = store.find("train", cell.train[-1].key, whole=True)  # weights may have been made a second time
    if record is None or record.status != "ok":
        return []
    kind = json.loads(record.file("artifact/artifact.json").read_text())["kind"]
    if keep == "adapters" and kind == "adapter":
        return []
    names = [n for n in record.outputs if n.startswith("artifact/") and n.endswith(".safetensors")]
    return [(record, names)] if names else []


SETTINGS = {
    "GOMP_SPINCOUNT": "10000",  # threads that spin on while they wait take the cores from whoever has work
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
    "PYTHONUNBUFFERED": "1",
}
# glibc then keeps what tensors gave back. Returned to the kernel it would be cleared page by page when it is asked for
# again: up to a third of a training's time on a CPU, for about a twentieth more memory at the peak
KEEP_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**40)}


def environment(slot: str, offline: bool) -> Mapping[str, str]:
    """The environment of a job: the device it may use, quiet libraries, and settings for speed."""
    env = {**os.environ, "CUDA_VISIBLE_DEVICES": slot if slot != "cpu" else ""}
    for name, value in {**SETTINGS, **(KEEP_MEMORY if slot == "cpu" else {})}.items():
        env.setdefault(name, value)
    if offline:
        env |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    return env


def device_slots(jobs: int | None) -> list[str]:
    """One slot a GPU, or one on a machine without any; `jobs` overrides how many run at once on a CPU."""
    found = gpus()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [str(i) for i in range(len(found))] if visible is None else [n for n in visible.split(",") if n.strip()]
    if found and names:
        return names
    return ["cpu"] * (jobs or 1)
