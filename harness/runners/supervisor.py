"""The supervisor of one job: leader of a session and process group of its own, and parent of the worker.

    python supervisor.py LIFELINE_FD EVENTS_FD GRACE_SECONDS COMMAND...

- LIFELINE_FD is the read end of a pipe whose write end only the driver has. When it closes, the driver is gone, even by
  kill -9, and every process of the job is killed at once.
- EVENTS_FD is handed on to the worker.
- When the worker ends, whatever it left behind is killed too, and the supervisor exits with its code, or with 128 + n
  if signal n ended it.
- SIGTERM is passed on to the worker; after GRACE_SECONDS the whole job is killed.
- When the supervisor itself is killed, the kernel kills the worker and the driver kills the group.

Processes of a job are those of the group, and descendants that left it, which become children of the supervisor when
their parents die. Standard library only, started as a file, so that it costs a few milliseconds. Linux only.
"""

from __future__ import annotations

import ctypes
import math
import os
import select
import signal
import sys
import time
from contextlib import suppress

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_SWEEP_SECONDS = 5.0  # a process can be stuck in the kernel; then the supervisor does not wait for it for ever


def processes(group: int) -> set[int]:
    """Live processes of a process group and descendants of its leader, without the leader itself."""
    facts = {int(name): _facts(name) for name in os.listdir("/proc") if name.isdigit()}  # noqa: PTH208 - costs imports
    kin = {group}
    while more := {pid for pid, (_, parent, _) in facts.items() if parent in kin} - kin:
        kin |= more
    mine = kin | {pid for pid, (_, _, process_group) in facts.items() if process_group == group}
    return {pid for pid in mine - {group} if facts[pid][0] not in "ZX"}


def _facts(pid: str) -> tuple[str, int, int]:
    """State, parent and process group of a process; state X (dead) if it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as f:  # noqa: PTH123 - as above
            stat = f.read()
    except (FileNotFoundError, ProcessLookupError):
        return "X", 0, 0
    state, parent, group = stat[stat.rindex(b")") + 2 :].split()[:3]
    return state.decode(), int(parent), int(group)


def sweep(group: int, seconds: float = _SWEEP_SECONDS) -> None:
    """SIGKILL every process of a job but the leader, again and again until none is left or the time is up."""
    until = time.monotonic() + seconds
    while (left := processes(group)) and time.monotonic() < until:
        for pid in left:
            _kill(pid, signal.SIGKILL)
        time.sleep(0.005)


def _kill(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _reap(worker: int) -> int | None:
    """Collect every child that has ended; the worker's wait status if it is among them."""
    status = None
    with suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            status = ended[1] if ended[0] == worker else status
    return status


def _start(command: list[str], prctl: ctypes._NamedFuncPointer) -> int:
    supervisor = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != supervisor:  # it died before the line above took effect
        os._exit(1)
    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT):  # ignored here, and a program inherits that
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        os.write(2, f"cannot start {command[0]}: {error.strerror}\n".encode())
        os._exit(127)


def main(lifeline: int, events: int, grace: float, command: list[str]) -> int:
    """Run a command to its end; returns the exit code for the supervisor."""
    prctl = ctypes.CDLL(None).prctl
    prctl(_PR_SET_CHILD_SUBREAPER, 1)
    os.set_inheritable(lifeline, False)
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: asked.append(number))
    signal.signal(signal.SIGCHLD, lambda *_: None)  # any handler: it wakes the poll below
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    wake, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    worker = _start(command, prctl)
    os.close(events)  # only the worker writes there
    poll = select.poll()
    poll.register(lifeline, select.POLLIN)
    poll.register(wake, select.POLLIN)
    deadline = math.inf
    while True:
        left = deadline - time.monotonic()
        ready = dict(poll.poll(None if left == math.inf else max(0.0, left) * 1000))
        if lifeline in ready or left <= 0:
            sweep(os.getpid())
            return 128 + signal.SIGKILL
        if wake in ready:
            os.read(wake, 4096)
        if (status := _reap(worker)) is not None:
            sweep(os.getpid())
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
        if asked and deadline == math.inf:
            deadline = time.monotonic() + grace
            _kill(worker, signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), sys.argv[4:]))
