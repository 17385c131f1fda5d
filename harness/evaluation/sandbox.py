"""Run model-written code where it can neither forge its verdict nor harm the machine.

Two processes for each program, each a bare interpreter shut in by `jail.isolate`. The candidate holds only the model's
code. The checker runs the data set's tests, in which the functions under test are stand-ins that ship plain values over
a socket pair. A candidate can therefore answer wrongly or not at all, and do nothing else: no status, output, object or
patched built-in of its own ever reaches the verdict.

Isolation has two tiers, probed once: "namespaces" (a root and a network of its own, no view of other processes) and
"filters" (Landlock and a stricter system call filter). `isolation()` says which one this machine has and why,
`describe()` what that means. Root becomes an ordinary user first; where that user could not read the standard library,
nothing is run.

CPU time decides: a program gets 4 s or six times what the reference solution takes here, whichever is more; wall time,
five times that, catches what sleeps. A timeout counts only after a second run with no other trial beside it, and the
reference is timed only then, which gives the same verdicts as timing all of them at the start.

Does not stop: kernel exploits, side channels, CPU contention, memory up to processes x address space (such processes
are the kernel's first choice when memory runs out), or a model that learned the tests. Only the standard library can be
imported. Needs Linux 5.13 on x86-64 or ARM64; elsewhere every verdict is `sandbox-error`.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import io
import math
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from harness.evaluation.jail import wire
from harness.evaluation.verdict import Verdict

_START = "import sys; sys.path.append(sys.argv.pop()); from jail.start import main; sys.path.pop(); main()"
_ENVIRONMENT = {"PYTHONHASHSEED": "0", "PYTHONUTF8": "1"}  # the order of sets must be the same in both processes
_READY = b"isolated\n"
_PATIENCE = 30.0  # seconds that a process may take to start, and to end
_FACTOR = 6  # times the reference's CPU time
_REFERENCE_SECONDS = 20  # of CPU at most
_TIERS = {
    "namespaces": "no network, no files but the standard library, no view of other processes, a private folder /tmp",
    "filters": "no network, no files but the standard library, none to write, no new processes, no signals to others; "
    "names and sizes of files stay visible",
    "none": "nothing is run",
}
_NOT_STOPPED = "not stopped: kernel exploits, side channels, CPU contention, 32 x 1 GiB of memory, learned tests"


@dataclass(frozen=True)
class Limits:
    """CPU time decides, since it does not depend on the machine's load; wall time catches what sleeps."""

    cpu_seconds: int = 4
    wall_seconds: float = 20.0
    memory_bytes: int = 1 << 30  # address space of one process, above what the interpreter takes
    file_bytes: int = 16 << 20
    descriptors: int = 64
    processes: int = 32  # and threads, of one candidate
    confirm: bool = True  # a timeout is run again, alone, before it counts

    def resources(self) -> dict[str, int]:
        """By the name of the resource limit (setrlimit(2))."""
        return {
            "CPU": self.cpu_seconds,
            "AS": self.memory_bytes,
            "FSIZE": self.file_bytes,
            "NOFILE": self.descriptors,
            "NPROC": self.processes,
            "CORE": 0,
        }


@dataclass(frozen=True)
class Isolation:
    """What this machine can do. tier: "namespaces", "filters" or "none"; why: the reason where it is not the first."""

    tier: str
    why: str = ""


@dataclass(frozen=True)
class Trial:
    """program: the model's code.  names: the functions under test.  preamble: the data set's own code that the test
    needs (imports, functions given in the prompt).  test: the data set's test; it passes if it runs to its end.
    reference: the data set's own program, which is timed where the model's runs out of time."""

    program: str
    names: tuple[str, ...]
    preamble: str
    test: str
    reference: str = ""


@dataclass(frozen=True)
class _Ran:
    verdict: Verdict
    cpu_seconds: float  # of the candidate


@functools.cache
def isolation() -> Isolation:
    """Probe, once a process, which tier works here."""
    program = "import fractions\ndef half():\n    return 1 / 2\n"  # an import shows that the library can be read
    trial = Trial(program, ("half",), "", "assert half() == 0.5\n")
    why = ""
    for tier in ("namespaces", "filters"):
        verdict = _run(trial, Limits(), tier).verdict
        if verdict.passed:
            return Isolation(tier, why)
        why = why or verdict.detail
    return Isolation("none", why)


def used() -> str:
    """The tier in which this process has run programs, "" if it has run none; recorded with the scores."""
    return isolation().tier if isolation.cache_info().currsize else ""


def describe(found: Isolation | None = None) -> str:
    """What the sandbox of this machine stops and what it does not, in one line."""
    found = found or isolation()
    return f"{found.tier}: {_TIERS[found.tier]}; {_NOT_STOPPED}"


def judge(trial: Trial, limits: Limits | None = None, *, tier: str = "") -> Verdict:
    """Run one trial. Outcomes: pass, wrong, exception, syntax, timeout, memory, forbidden, sandbox-error.

    `sandbox-error` is our failure and must never be counted as a wrong answer. Safe to call from several threads and
    processes.
    """
    limits, tier = limits or Limits(), tier or isolation().tier
    with _turn(alone=False):
        verdict = _run(trial, limits, tier).verdict
    if verdict.outcome != "timeout" or not limits.confirm:
        return verdict
    with _turn(alone=True):
        return _run(trial, _by_reference(trial, limits, tier), tier).verdict


def _by_reference(trial: Trial, limits: Limits, tier: str) -> Limits:
    """The limits for the second run: as they are, or more where the reference solution takes long here too."""
    if not trial.reference:
        return limits
    timed = replace(limits, cpu_seconds=_REFERENCE_SECONDS, wall_seconds=2.0 * _REFERENCE_SECONDS)
    seconds = math.ceil(_FACTOR * _run(replace(trial, program=trial.reference), timed, tier).cpu_seconds)
    if seconds <= limits.cpu_seconds:
        return limits
    return replace(limits, cpu_seconds=seconds, wall_seconds=max(limits.wall_seconds, 5.0 * seconds))


@contextlib.contextmanager
def _turn(*, alone: bool) -> Iterator[None]:
    """Together with the other trials of this installation, or alone.

    One lock says who runs; whoever enters passes through the other, so that many who share cannot keep one out.
    """
    with Path(wire.__file__).open("rb") as door, Path(__file__).open("rb") as room:
        with contextlib.suppress(OSError):  # file systems without locks: then nobody waits
            fcntl.flock(door, fcntl.LOCK_EX)
            fcntl.flock(room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
            fcntl.flock(door, fcntl.LOCK_UN)
        yield


def _run(trial: Trial, limits: Limits, tier: str) -> _Ran:
    ours, theirs = socket.socketpair()
    verdict_in, verdict_out = os.pipe()
    checker = {"names": list(trial.names), "preamble": trial.preamble, "test": trial.test}
    boxes: list[_Box] = []
    try:
        boxes.append(_Box("candidate", (theirs.fileno(),)))
        boxes[0].start(tier, limits, {"channel": theirs.fileno(), "program": trial.program})
        # The checker holds everything twice and compares it, so that an honest candidate reaches its limits first.
        wider = replace(limits, memory_bytes=2 * limits.memory_bytes, cpu_seconds=2 * limits.cpu_seconds)
        boxes.append(_Box("checker", (ours.fileno(), verdict_out)))
        boxes[1].start(tier, wider, checker | {"channel": ours.fileno(), "verdict": verdict_out})
        for fd in (ours, theirs):
            fd.close()
        os.close(verdict_out)
        verdict_out = -1
        for box in boxes:
            box.wait_until_isolated()
        said = _read(verdict_in, time.monotonic() + limits.wall_seconds)
    except (OSError, wire.Malformed) as error:
        return _Ran(Verdict("sandbox-error", f"the sandbox does not start: {error}"), 0.0)
    finally:
        ours.close()
        theirs.close()
        os.close(verdict_in)
        if verdict_out >= 0:
            os.close(verdict_out)
        for box in boxes:
            box.end()
    return _Ran(_verdict(said, boxes[0], boxes[1], limits), boxes[0].cpu_seconds)


def _read(fd: int, deadline: float) -> bytes | None:
    """All that comes until the end, or None at the deadline (in monotonic seconds)."""
    said = b""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    while (left := deadline - time.monotonic()) > 0:
        if poll.poll(left * 1000):
            part = os.read(fd, 1 << 16)
            if not part:
                return said
            said += part
    return None


def _verdict(said: bytes | None, candidate: _Box, checker: _Box, limits: Limits) -> Verdict:
    for box in (candidate, checker):
        if not box.isolated:
            return Verdict("sandbox-error", f"the {box.role} does not start: {box.complaint}")
    if said is None:
        return Verdict("timeout", f"longer than {limits.wall_seconds:g} s")
    if not said:
        if checker.used_up(2 * limits.cpu_seconds):
            return Verdict("timeout", "comparing its answers took too long")
        return Verdict("sandbox-error", f"the checker ended with status {checker.status} without a verdict")
    outcome, detail = wire.decode(said[4:])
    if outcome != "gone":
        return Verdict(outcome, detail)
    if candidate.used_up(limits.cpu_seconds):
        return Verdict("timeout", f"more than {limits.cpu_seconds} s of CPU")
    return Verdict("exception", f"{detail} ({_how(candidate.status)})")


def _how(status: int | None) -> str:
    if status is None:
        return "its supervisor was killed"
    code = os.waitstatus_to_exitcode(status)
    return f"killed by signal {-code}" if code < 0 else f"exit status {code}"


class _Box:
    """One sandboxed process and its supervisor; after `end`, what became of it."""

    cpu_seconds = 0.0
    said = b""  # to standard error

    def __init__(self, role: str, fds: tuple[int, ...]) -> None:
        self.role = role
        self.folder = tempfile.mkdtemp(prefix="harness-sandbox-")
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-S", "-s", "-P", "-c", _START, str(Path(__file__).parent)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                env=_ENVIRONMENT,
                cwd="/",
                pass_fds=fds,
                start_new_session=True,
            )
        except OSError:
            shutil.rmtree(self.folder)
            raise

    def start(self, tier: str, limits: Limits, fields: dict[str, Any]) -> None:
        settings = {"tier": tier, "folder": self.folder, "hide": _site_folders(), "limits": limits.resources()}
        message = wire.encode({"settings": settings, "role": self.role, **fields})
        wire.send(cast("io.FileIO", self.process.stdin).fileno(), message)

    def wait_until_isolated(self) -> None:
        """Until the process has said so, or is gone, so that the time it takes to start is not the program's."""
        errors = cast("io.FileIO", self.process.stderr).fileno()
        poll = select.poll()
        poll.register(errors, select.POLLIN)
        self.said = os.read(errors, 1 << 12) if poll.poll(1000 * _PATIENCE) else b""

    def end(self) -> None:
        """Close the supervisor's pipe, on which it ends everything inside, and wait until it has."""
        try:
            report, errors = self.process.communicate(timeout=_PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()  # what is inside dies with its supervisor
            report, errors = self.process.communicate()
        errors = self.said + errors
        shutil.rmtree(self.folder, ignore_errors=True)
        self.isolated = errors.startswith(_READY)
        self.complaint = errors.decode("utf-8", "replace").strip()[-500:] or f"status {self.process.returncode}"
        status, _, seconds = report.decode().partition(" ")
        self.status = int(status) if status else None
        self.cpu_seconds = float(seconds or 0)

    def used_up(self, cpu_seconds: int) -> bool:
        """Killed at the CPU limit. The kernel's two clocks differ, more so under load, hence the margin."""
        return self.status == signal.SIGKILL and self.cpu_seconds > 0.5 * cpu_seconds


def _site_folders() -> list[str]:
    """Folders of installed packages, which may hold the data sets' answers."""
    return sorted({p for p in sys.path if Path(p).name in ("site-packages", "dist-packages")})
