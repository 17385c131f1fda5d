"""Shut a process in: namespaces and a root of its own where the kernel allows, filters where not, limits always.

`run` is called once, in a fresh process. It forks: the child is isolated and does the work; the parent stays outside as
its supervisor, waits for it, and ends everything the child started when the work is over or when the pipe on its
standard input closes, so that nothing outlives the scoring process even if that is killed with -9.

Tier "namespaces": user (unless we are root), pid, network, ipc, uts and mount namespaces, a root that holds the shared
libraries and the standard library, read-only, and a small private folder /tmp; and the system call filter.
Tier "filters": Landlock for files (nothing can be written), and a stricter system call filter: no new processes.
Root becomes an ordinary user of a number that no other process has, whom the limit on processes binds.
"""

from __future__ import annotations

import ctypes
import os
import resource
import select

from . import landlock, seccomp
from .kernel import check, libc
from .root import change_root, needed

TYPE_CHECKING = False  # `typing` would double the time that a sandboxed process takes to start
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET = 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 4, 36, 38
SIGKILL = 9
NOBODY = 65534
USERS = 1_900_000_000  # from here on user numbers are made, one a process
MAX_DESCRIPTOR = 4096  # of a process that has just started
READY = b"isolated\n"  # written to standard error when the work starts: what comes after is the work's own doing


def run(settings: dict[str, Any], keep: tuple[int, ...], work: Callable[[], None]) -> None:
    """Do `work` in an isolated child that keeps the descriptors `keep`; never returns.

    settings: tier, folder (an empty directory), hide (folders of installed packages), limits. Writes one line to
    standard output when all is over: the child's wait status and its CPU seconds.
    """
    libc.prctl(PR_SET_PDEATHSIG, SIGKILL)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1)
    user = _own_user()
    if os.geteuid() == 0:
        os.chown(settings["folder"], user, -1)
    if settings["tier"] == "namespaces":
        _new_namespaces(user)
    alive, held = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(held)
            _isolate(settings, keep, alive, user)
        except BaseException as error:
            os.write(2, f"{type(error).__name__}: {error}".encode())
            os._exit(1)
        _work_and_exit(work)
    for fd in keep:
        os.close(fd)
    os._exit(_supervise(child))


def _work_and_exit(work: Callable[[], None]) -> None:
    os.write(2, READY)
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.close(null)
    try:
        work()
    finally:
        os._exit(0)


def _supervise(child: int) -> int:
    """Wait for the child or for our standard input to close, then end the child and all its descendants."""
    handle = os.pidfd_open(child)
    poll = select.poll()
    poll.register(0, select.POLLHUP)
    poll.register(handle, select.POLLIN)
    poll.poll()
    os.kill(child, SIGKILL)
    _, status, usage = os.wait4(child, 0)
    _end_orphans()
    os.write(1, f"{status} {usage.ru_utime + usage.ru_stime:.3f}\n".encode())
    return 0


def _end_orphans() -> None:
    """As subreaper we inherit every orphan, so this ends only when none is left."""
    while True:
        try:
            if os.waitpid(-1, os.WNOHANG) == (0, 0):
                for pid in _children():
                    os.kill(pid, SIGKILL)
                os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _children() -> list[int]:
    me = os.getpid()
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as f:
                    parent = int(f.read().rpartition(b")")[2].split()[1])
            except (FileNotFoundError, ProcessLookupError):
                continue
            if parent == me:
                found.append(int(name))
    return found


def _new_namespaces(user: int) -> None:
    """Leave the machine's namespaces; children get the pid namespace. OSError where kernel or container forbid it.

    Root needs no user namespace, and keeps the right to become an ordinary user, whom the limit on processes binds.
    """
    flags = NEWPID | NEWNET | NEWIPC | NEWUTS
    if os.geteuid() == 0:
        if libc.unshare(flags) == 0:
            return
        _become_ordinary(user)
    uid, gid = os.geteuid(), os.getegid()
    check(libc.unshare(flags | NEWUSER), "unshare")
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        with open(f"/proc/self/{name}", "w") as f:
            f.write(text)


def _isolate(settings: dict[str, Any], keep: tuple[int, ...], alive: int, user: int) -> None:
    os.setsid()
    folder, limits = settings["folder"], dict(settings["limits"])
    namespaces = settings["tier"] == "namespaces"
    with open("/proc/self/oom_score_adj", "w") as f:
        f.write("1000")
    with open("/proc/self/statm") as f:
        limits["AS"] += int(f.read().split()[0]) * resource.getpagesize()
    if namespaces:
        change_root(folder, settings["hide"])
        folder = "/tmp"
    elif os.geteuid() != 0:
        limits["NPROC"] += _tasks_of(os.geteuid())  # all that this user runs counts, and only threads can be added
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(HOME=folder, TMPDIR=folder)
    _drop_rights(user)
    libc.prctl(PR_SET_PDEATHSIG, SIGKILL)  # a change of user would clear it
    if select.select([alive], [], [], 0)[0]:
        raise OSError("the supervisor is gone")
    first = 3
    for fd in (*sorted(keep), MAX_DESCRIPTOR):
        os.closerange(first, fd)
        first = fd + 1
    if not namespaces:
        landlock.confine(needed(), settings["hide"])
    for name, value in limits.items():
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (value, value))
    seccomp.install(namespaces=namespaces)


def _own_user() -> int:
    """For root: a user to whom no other process belongs, where this machine or container has so many."""
    with open("/proc/self/uid_map") as f:
        spans = [tuple(map(int, line.split())) for line in f]
    wanted = USERS + os.getpid()
    return wanted if any(first <= wanted < first + count for first, _, count in spans) else NOBODY


def _become_ordinary(user: int) -> None:
    """From root to an ordinary user, whom limits bind. OSError where that user could not import Python's library."""
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.seteuid(user)
    readable = os.access(os.__file__, os.R_OK, effective_ids=True)
    os.seteuid(0)
    if not readable:
        raise OSError(f"only root can read {os.path.dirname(os.__file__)}: run as an ordinary user")
    os.setresuid(user, user, user)


def _drop_rights(user: int) -> None:
    """An ordinary user without capabilities, for whom no program can win any back. user: taken if we are root."""
    if os.geteuid() == 0:
        _become_ordinary(user)
    check(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    check(libc.capset(header, (ctypes.c_uint32 * 6)()), "capset")
    check(libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0), "dumpable")  # nobody else opens its memory


def _tasks_of(user: int) -> int:
    """How many processes and threads a user has."""
    count = 0
    for name in os.listdir("/proc"):
        try:
            if name.isdigit() and os.stat(f"/proc/{name}").st_uid == user:
                count += len(os.listdir(f"/proc/{name}/task"))
        except OSError:
            continue
    return count
