"""How a run is doing, on standard error: a live view on a terminal, plain lines anywhere else.

A job is one process; it works through some steps. Results are not shown here, and standard output is never touched.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import TaskID

QUIET = 10.0  # seconds between progress lines of one job, where each line stays on the screen
WIDE = 100  # columns from which notes are shown beside the bars


class Progress(Protocol):
    """What the driver tells. Ids are its own; done and total have one unit for each job (steps, shares of steps)."""

    def start(self, steps_total: int) -> None:
        """The run begins; it has this many steps."""

    def job_started(self, id: str, label: str, steps: int = 1) -> None:
        """A job of so many steps was launched."""

    def progress(self, id: str, done: float, total: float, note: str) -> None:
        """done of total. An unknown job is ignored: its last words may come late."""

    def job_ended(self, id: str, ok: bool, text: str) -> None:
        """A job is over; text says what went wrong, or is empty."""

    def message(self, text: str) -> None:
        """A line for the user."""

    def close(self) -> None:
        """The run is over, well or not. The terminal is as it was before."""


@dataclass
class _Job:
    label: str
    steps: float
    started: float
    share: float = 0.0
    spoken: float = 0.0
    note: str = ""

    def moved(self, done: float, total: float, note: str) -> None:
        self.share = min(1.0, max(0.0, done / total)) if total > 0 else 0.0
        self.note = note


def make_progress(console: Console | None = None) -> Progress:
    """A live view if the console (default: standard error) is a terminal that can be redrawn, else plain lines."""
    from rich.console import Console

    console = console or Console(stderr=True, highlight=False)
    return LiveProgress(console) if console.is_terminal and not console.is_dumb_terminal else PlainProgress(console)


class PlainProgress:
    """One line for every change of state, and at most one in ten seconds for what goes on in between."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console, self._clock = console, clock
        self._jobs: dict[str, _Job] = {}
        self._steps, self._done, self._begun = 0, 0.0, clock()

    def start(self, steps_total: int) -> None:
        self._steps, self._begun = steps_total, self._clock()
        self._say(f"{steps_total} steps to do" if steps_total else "nothing to do")

    def job_started(self, id: str, label: str, steps: int = 1) -> None:
        now = self._clock()
        self._jobs[id] = _Job(label, steps, now, spoken=now)
        self._say(f"{label}: started")

    def progress(self, id: str, done: float, total: float, note: str) -> None:
        job, now = self._jobs.get(id), self._clock()
        if job is None:
            return
        job.moved(done, total, note)
        if now - job.spoken >= QUIET:
            job.spoken = now
            detail = f", {job.note}" if job.note else ""
            left = _left(job.share, now - job.started)
            self._say(f"{job.label}: {job.share:.0%}{detail}{left and f', {left} left'}")

    def job_ended(self, id: str, ok: bool, text: str) -> None:
        job = self._jobs.pop(id, None) or _Job(id, 0, self._clock())
        self._done += job.steps if ok else job.steps * job.share
        self._say(_verdict(job, ok, text, self._clock()))

    def message(self, text: str) -> None:
        self._say(text)

    def close(self) -> None:
        self._jobs.clear()

    def _say(self, text: str) -> None:
        done = int(self._done + sum(job.steps * job.share for job in self._jobs.values()) + 1e-6)
        stamp = f"[{duration(self._clock() - self._begun)} {done}/{self._steps}]"
        self._console.print(f"{stamp} {text}", markup=False, soft_wrap=True)


class LiveProgress:
    """One line a job with bar, share, note and time left, an overall line below; what is over scrolls up as text."""

    def __init__(self, console: Console) -> None:
        from rich.progress import BarColumn, Progress, ProgressColumn, TaskProgressColumn, TextColumn
        from rich.table import Column

        wide = console.width >= WIDE
        label = Column(ratio=2, no_wrap=True, overflow="ellipsis")
        note = Column(ratio=1, no_wrap=True, overflow="ellipsis")
        columns: list[ProgressColumn] = [TextColumn("{task.description}", markup=False, table_column=label)]
        if console.width >= 60:
            columns.append(BarColumn(bar_width=24 if wide else 12))
        columns += [TaskProgressColumn(), TextColumn("{task.fields[left]}", justify="right", markup=False)]
        if wide:
            columns.append(TextColumn("{task.fields[note]}", markup=False, table_column=note))
        self._bars = Progress(
            *columns,
            console=console,
            transient=True,
            expand=True,
            refresh_per_second=4,
            redirect_stdout=False,  # tables and JSON go there
        )
        self._console = console
        self._jobs: dict[str, _Job] = {}
        self._lines: dict[str, TaskID] = {}
        self._overall: TaskID | None = None
        self._steps, self._done, self._begun = 0, 0.0, time.monotonic()

    def start(self, steps_total: int) -> None:
        self._steps, self._begun = steps_total, time.monotonic()
        if steps_total:
            self._bars.start()
            self._redraw_overall()

    def job_started(self, id: str, label: str, steps: int = 1) -> None:
        self._jobs[id] = _Job(label, steps, time.monotonic())
        self._lines[id] = self._bars.add_task(label, total=1.0, note="", left="")
        self._redraw_overall(last=True)

    def progress(self, id: str, done: float, total: float, note: str) -> None:
        job = self._jobs.get(id)
        if job is None:
            return
        job.moved(done, total, note)
        left = _left(job.share, time.monotonic() - job.started)
        self._bars.update(self._lines[id], completed=job.share, note=note, left=left)
        self._redraw_overall()

    def job_ended(self, id: str, ok: bool, text: str) -> None:
        job = self._jobs.pop(id, None) or _Job(id, 0, time.monotonic())
        self._done += job.steps if ok else job.steps * job.share
        if id in self._lines:
            self._bars.remove_task(self._lines.pop(id))
        style = "" if ok else "bold red"
        self._console.print(_verdict(job, ok, text, time.monotonic()), style=style, markup=False, soft_wrap=True)
        self._redraw_overall()

    def message(self, text: str) -> None:
        self._console.print(text, markup=False, soft_wrap=True)

    def close(self) -> None:
        self._bars.stop()

    def _redraw_overall(self, *, last: bool = False) -> None:
        """last: the line is moved below all others."""
        if last and self._overall is not None:
            self._bars.remove_task(self._overall)
            self._overall = None
        done = self._done + sum(job.steps * job.share for job in self._jobs.values())
        took = time.monotonic() - self._begun
        left = _left(done / self._steps, took) if self._steps else ""
        text = f"all: {int(done + 1e-6)} of {self._steps} steps, {duration(took)}"
        if self._overall is None:
            self._overall = self._bars.add_task(text, total=max(1, self._steps), note="", left=left)
        self._bars.update(self._overall, description=text, completed=done, left=left)


def duration(seconds: float) -> str:
    """`8s`, `2m05s`, `1h02m`."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


def _left(share: float, took: float) -> str:
    """Time left at the pace so far; nothing while that is a guess."""
    return duration(took / share * (1 - share)) if 0.02 <= share < 1 and took >= 2 else ""


def _verdict(job: _Job, ok: bool, text: str, now: float) -> str:
    how = "done" if ok else "FAILED"
    return f"{job.label}: {how} in {duration(now - job.started)}" + (f"\n{text.rstrip()}" if text.strip() else "")
