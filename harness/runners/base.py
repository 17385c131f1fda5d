"""The seam of a runner: what a job is, what happens to it, and what every runner does.

A runner starts commands and says how they ended. It knows nothing of steps, cells or the store.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

EVENTS_FD = "HARNESS_EVENTS_FD"  # environment variable of a worker: the fd on which it writes JSON objects, one a line

LOG = "HARNESS_LOG"  # environment variable of a worker: the path of its log


@dataclass(frozen=True)
class Job:
    """One process to run. env is added to the runner's own environment; stdout and stderr are appended to log."""

    id: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    log: Path


@dataclass(frozen=True)
class Progress:
    """Something a worker wrote to its events fd: any JSON object."""

    job_id: str
    body: dict[str, Any]


@dataclass(frozen=True)
class Ended:
    """A job is over and no process of it is left. Either an exit code or the signal that ended it.

    tail: the last lines of its log.
    """

    job_id: str
    code: int | None
    signal: int | None
    tail: str


Event = Progress | Ended


class Runner(Protocol):
    """What every runner does. A job ends with exactly one `Ended`, unless `close` comes first."""

    def submit(self, job: Job) -> None:
        """Start a job. HarnessError if it cannot be started, ValueError if a job of that id is running."""

    def poll(self, timeout: float) -> list[Event]:
        """What happened since the last call, oldest first; waits up to `timeout` seconds for something to happen."""

    def cancel(self, job_id: str) -> None:
        """Ask a job to end, and end it by force if it does not. Its `Ended` follows. Unknown jobs are ignored."""

    def close(self) -> None:
        """Cancel everything and return when no process is left."""
