"""LocalRunner: jobs as processes on this machine, each under a supervisor (see harness.runners.supervisor).

It does not decide how many jobs may run at once; whoever submits them does.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from harness.runners import supervisor
from harness.runners.base import EVENTS_FD, Ended, Event, Job, Progress
from harness.store import disk

GRACE = 5.0  # seconds between SIGTERM and SIGKILL
_PIPE = 1 << 20  # bytes of progress a worker can write before it has to wait for a driver that does not look
_LINE = 1 << 16  # bytes; a longer line is not progress
_TAIL_LINES, _TAIL_BYTES = 20, 1 << 16
_UNBUFFERED = {"PYTHONUNBUFFERED": "1"}  # lines of a job that is killed are in its log, and before its last error

_lifelines: set[int] = set()


def _drop_lifelines() -> None:
    for fd in _lifelines:
        os.close(fd)
    _lifelines.clear()


# A forked child of the driver that outlives it must not keep the supervisors believing that the driver is alive.
os.register_at_fork(after_in_child=_drop_lifelines)


@dataclass
class _Running:
    job: Job
    process: subprocess.Popen[bytes]  # the supervisor; its id is the process group of the job
    lifeline: int  # write end; also tells when the supervisor, its only reader, is gone
    events: int  # read end, or -1 once every writer has closed it
    log_start: int  # where this run's part of the log begins
    unread: bytearray = field(default_factory=bytearray)


class LocalRunner:
    """Starts jobs on this machine. grace: seconds a cancelled job has between SIGTERM and SIGKILL."""

    def __init__(self, *, grace: float = GRACE) -> None:
        self._grace = grace
        self._running: dict[str, _Running] = {}

    def submit(self, job: Job) -> None:
        """Start a job now. HarnessError if its log cannot be written, ValueError if a job of that id is running."""
        if job.id in self._running:
            raise ValueError(f"a job {job.id} is running")
        with disk.guard(job.log):
            job.log.parent.mkdir(parents=True, exist_ok=True)
            with job.log.open("ab") as log:
                self._running[job.id] = _start(job, log, self._grace)

    def poll(self, timeout: float) -> list[Event]:
        """What happened since the last call; waits up to `timeout` seconds, also when no job is running."""
        poll, owner = select.poll(), {}
        for running in self._running.values():
            poll.register(running.lifeline, 0)  # reports an error when its reader is gone
            owner[running.lifeline] = running
            if running.events >= 0:
                poll.register(running.events, select.POLLIN)
                owner[running.events] = running
        ready = [(fd, owner[fd]) for fd, _ in poll.poll(timeout * 1000)]
        events: list[Event] = []
        for fd, running in ready:
            if fd == running.events:
                events += _read_events(running)
        for fd, running in ready:
            if fd == running.lifeline:
                events += _finish(running)
                del self._running[running.job.id]
        return events

    def cancel(self, job_id: str) -> None:
        """SIGTERM to the worker, SIGKILL to everything of the job after the grace. Its `Ended` comes with `poll`."""
        if running := self._running.get(job_id):
            # Not Popen.send_signal: it may reap the supervisor, whose id must stand for the group until `_finish`.
            os.kill(running.process.pid, signal.SIGTERM)

    def close(self) -> None:
        """Cancel every job and wait until no process of any is left; what is still to be told about them is dropped."""
        for job_id in self._running:
            self.cancel(job_id)
        until = time.monotonic() + self._grace + 1
        while self._running and time.monotonic() < until:
            self.poll(0.1)
        for running in self._running.values():
            os.kill(running.process.pid, signal.SIGKILL)
            _finish(running)
        self._running.clear()


def _start(job: Job, log: IO[bytes], grace: float) -> _Running:
    log_start = os.fstat(log.fileno()).st_size
    lifeline_read, lifeline = os.pipe()
    events, events_write = os.pipe()
    with suppress(OSError):  # the administrator may allow less
        fcntl.fcntl(events, fcntl.F_SETPIPE_SZ, _PIPE)
    os.set_blocking(events, False)
    # Isolated and without `site`: it must not import anything of ours, and be up in milliseconds.
    python = (sys.executable, "-I", "-S", supervisor.__file__)
    try:
        process = subprocess.Popen(
            [*python, str(lifeline_read), str(events_write), str(grace), *job.argv],
            env={**_UNBUFFERED, **os.environ, **job.env, EVENTS_FD: str(events_write)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=(lifeline_read, events_write),
            start_new_session=True,
        )
    except BaseException:
        os.close(lifeline)
        os.close(events)
        raise
    finally:
        os.close(lifeline_read)
        os.close(events_write)
    _lifelines.add(lifeline)
    return _Running(job, process, lifeline, events, log_start)


def _finish(running: _Running) -> list[Event]:
    """Make sure that nothing of the job is left, and say how it ended."""
    pid = running.process.pid
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # not reaped yet, so that the group's id cannot be reused
    supervisor.sweep(pid)
    events = _read_events(running) if running.events >= 0 else []
    result = running.process.wait()
    _lifelines.discard(running.lifeline)
    os.close(running.lifeline)
    if running.events >= 0:
        os.close(running.events)
    by_signal = -result if result < 0 else result - 128 if result - 128 in signal.valid_signals() else None
    code = result if by_signal is None else None
    return [*events, Ended(running.job.id, code, by_signal, _tail(running.job.log, running.log_start))]


def _read_events(running: _Running) -> list[Event]:
    """Progress that lies in the pipe, without waiting. Whatever is not a JSON object on a line is ignored."""
    try:
        running.unread += (chunk := os.read(running.events, _PIPE))
        if not chunk:
            os.close(running.events)
            running.events = -1
    except BlockingIOError:
        pass
    *lines, rest = running.unread.split(b"\n")
    running.unread = rest if len(rest) <= _LINE else bytearray()
    found: list[Event] = []
    for line in lines:
        with suppress(ValueError, RecursionError):
            if isinstance(body := json.loads(line), dict):
                found.append(Progress(running.job.id, body))
    return found


def _tail(log: Path, start: int) -> str:
    """The last lines of a log from byte `start` on; of a progress bar, what it showed last."""
    try:
        with log.open("rb") as f:
            end = f.seek(0, os.SEEK_END)
            f.seek(max(start, end - _TAIL_BYTES))
            text = f.read().decode(errors="replace")
    except OSError:
        return ""
    lines = [line.rstrip().rsplit("\r", 1)[-1] for line in text.split("\n")]
    return "\n".join(lines[-_TAIL_LINES - 1 :]).strip("\n")
