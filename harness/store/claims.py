"""Claims: which process may work on a step, decided by files alone, without a server and without locks.

The claims of a step are numbered files, 0001.claim, 0002.claim, ... in its folder, made with an exclusive create and
ended by a file 0001.end beside them. A claim says who holds it: host, boot, process id, process start time. On the
holder's own machine a dead holder is stale at once. Seen from another machine it is stale when it has not been touched
for 180 s by the clock of the file system; holders touch theirs every 30 s.
A claim keeps others from doing the same work. What makes a result safe is the single rename in `harness.store.attempt`.
"""

from __future__ import annotations

import json
import os
import re
import socket
import threading
import uuid
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from harness.errors import HarnessError
from harness.store.disk import create_whole, write_whole

HEARTBEAT = 30.0  # seconds
STALE = 180.0  # seconds; above the usual attribute-cache time of network file systems
_NUMBERED = re.compile(r"(\d{4,})(?:$|\.)")


class Busy(HarnessError):
    """Another live process holds the step."""

    def __init__(self, step: str, holder: str) -> None:
        super().__init__(f"{step} is being worked on by {holder}", todo="wait for it, or end that process")
        self.holder = holder


@dataclass(frozen=True)
class Holder:
    """A process, named so that it can never be mistaken for another one."""

    host: str
    machine: str  # /etc/machine-id, because host names repeat in clusters; "" if there is none
    boot: str
    namespace: str  # of process ids: a container cannot see whether another one's processes are alive
    pid: int
    start: str  # clock ticks since boot
    since: str  # when the claim was made, ISO 8601, UTC
    log: str = ""

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} since {self.since}"

    def running(self) -> bool | None:
        """Whether the process is alive, or None if that cannot be seen from here."""
        here = this_process()
        if (self.host, self.machine) != (here.host, here.machine):
            return None
        if self.boot != here.boot:
            return False
        if self.namespace != here.namespace:
            return None
        return _start_time(self.pid) == self.start


def this_process(log: str = "") -> Holder:
    """The holder that this process is; also after a fork."""
    pid = os.getpid()
    since = datetime.now(UTC).isoformat(timespec="seconds")
    return Holder(*_machine(), pid=pid, start=_start_time(pid) or "", since=since, log=log)


@cache
def _machine() -> tuple[str, str, str, str]:
    def read(path: str) -> str:
        with suppress(OSError):
            return Path(path).read_text().strip()
        return ""

    namespace = ""
    with suppress(OSError):
        namespace = os.readlink("/proc/self/ns/pid")  # noqa: PTH115 - a link to no path
    return socket.gethostname(), read("/etc/machine-id"), read("/proc/sys/kernel/random/boot_id"), namespace


def _start_time(pid: int) -> str | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat[stat.rindex(")") + 2 :].split()
    return None if fields[0] in "ZX" else fields[19]  # a zombie holds nothing any more


class Claim:
    """A claim that this process holds: its number, and a thread that keeps it fresh until `end` or `release`."""

    def __init__(self, folder: Path, number: int) -> None:
        self.folder, self.number = folder, number
        self._over = threading.Event()
        threading.Thread(target=self._beat, name=f"claim-{number}", daemon=True).start()

    @property
    def file(self) -> Path:
        return self.folder / f"{self.number:04d}.claim"

    def _beat(self) -> None:
        while not self._over.wait(HEARTBEAT):
            with suppress(OSError):
                os.utime(self.file)

    def end(self, outcome: str, kind: str = "", message: str = "") -> None:
        """Write how it ended. Never raises: the claim is taken back where there is no space for an end file."""
        self._over.set()
        try:
            write_end(self.folder, self.number, outcome, kind, message)
        except OSError:
            self.release()

    def release(self) -> None:
        """Take the claim back without a trace."""
        self._over.set()
        with suppress(OSError):
            self.file.unlink(missing_ok=True)


def take(folder: Path, step: str, log: str = "") -> Claim:
    """Claim a step whose folder this is; the folder is made if need be. Busy if a live process holds it."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        names = listing(folder)
        if holder := live(folder, names):
            raise Busy(step, str(holder))
        number = 1 + highest(names)
        body = json.dumps(asdict(this_process(log))).encode()
        # Lost: another was first, or the folder was collected. Look again.
        with suppress(FileExistsError, FileNotFoundError):
            create_whole(folder / f"{number:04d}.claim", body)
            return Claim(folder, number)


def live(folder: Path, names: list[str]) -> Holder | None:
    """The live holder of a step, given the names in its folder."""
    for name in sorted(names, reverse=True):
        if name.endswith(".claim") and name.replace(".claim", ".end") not in names:
            holder = read_holder(folder / name)
            running = holder.running() if holder else None
            if running or (running is None and _fresh(folder / name)):
                return holder or Holder("an unknown host", "", "", "", 0, "", "?")
    return None


def number_of(name: str) -> int:
    """The attempt that a file or folder of a step belongs to: 2 for `0002.work`, 0 for `step.json`."""
    match = _NUMBERED.match(name)
    return int(match[1]) if match else 0


def highest(names: list[str]) -> int:
    """The highest attempt number among the names in the folder of a step; 0 if there is none."""
    return max(map(number_of, names), default=0)


def listing(folder: Path) -> list[str]:
    """Names in a folder, sorted; none if it does not exist."""
    try:
        return sorted(os.listdir(folder))  # noqa: PTH208 - names are wanted, for ten thousand folders in a plan
    except (FileNotFoundError, NotADirectoryError):
        return []


def read_holder(claim: Path) -> Holder | None:
    """Who made a claim, or None if the file is gone or a power cut left it empty."""
    try:
        return Holder(**json.loads(claim.read_bytes()))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def write_end(folder: Path, number: int, outcome: str, kind: str = "", message: str = "") -> None:
    """Write NNNN.end. OSError if it cannot be written."""
    body = {"outcome": outcome, "kind": kind, "message": message, "at": datetime.now(UTC).isoformat(timespec="seconds")}
    write_whole(folder / f"{number:04d}.end", json.dumps(body).encode())


def _fresh(claim: Path) -> bool:
    """Touched within STALE seconds by the clock of the file system, since the clocks of two hosts may differ."""
    clock = claim.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        clock.touch()
        return clock.stat().st_mtime - claim.stat().st_mtime < STALE
    except FileNotFoundError:
        return False
    finally:
        clock.unlink(missing_ok=True)
