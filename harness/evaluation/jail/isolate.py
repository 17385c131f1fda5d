"""Shut a process in: namespaces and a root of its own where the kernel allows, resource limits always.

`run` is called once, in a fresh process. It forks: the child is isolated and does the work; the parent stays outside as
its supervisor, waits for it, and ends everything the child started when the work is over or when the pipe on its
standard input closes, so that nothing outlives the scoring process even if that is killed with -9.

Tier "namespaces": user (unless we are root), pid, network, ipc, uts and mount namespaces; the root holds the shared
libraries and the standard library, read-only, without installed packages, and a small private folder /tmp.
Tier "limits": the resource limits and the private folder only. The network and readable files stay reachable.
Does not stop: kernel exploits, side channels, CPU contention, and memory up to processes x address space.
"""

from __future__ import annotations

import ctypes
import os
import resource
import select
import sys
from collections.abc import Callable
from typing import Any

NEWNS, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET = 0x20000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 8, 4096, 16384, 1 << 18
MNT_DETACH = 2
SYS_MOUNT_SETATTR, AT_FDCWD, AT_RECURSIVE = 442, -100, 0x8000  # the same number on every architecture, Linux 5.12
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 36, 38
SIGKILL = 9
NOBODY = 65534
MAX_DESCRIPTOR = 4096  # of a process that has just started
READY = b"isolated\n"  # written to standard error when the work starts: what comes after is the work's own doing
LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache", "/dev/null", "/dev/urandom")

libc = ctypes.CDLL(None, use_errno=True)


def run(settings: dict[str, Any], keep: tuple[int, ...], work: Callable[[], None]) -> None:
    """Do `work` in an isolated child that keeps the descriptors `keep`; never returns.

    settings: tier, folder (an empty directory), hide (folders of installed packages), limits. Writes one line to
    standard output when all is over: the child's wait status and its CPU seconds.
    """
    libc.prctl(PR_SET_PDEATHSIG, SIGKILL)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1)
    if os.geteuid() == 0:
        os.chown(settings["folder"], NOBODY, NOBODY)
    if settings["tier"] == "namespaces":
        _new_namespaces()
    alive, held = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(held)
            _isolate(settings, keep, alive)
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


def _check(result: int, what: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def _new_namespaces() -> None:
    """Leave the machine's namespaces; children get the pid namespace. OSError where kernel or container forbid it.

    Root needs no user namespace, and keeps the right to become an ordinary user, whom the limit on processes binds.
    """
    flags = NEWPID | NEWNET | NEWIPC | NEWUTS
    if os.geteuid() == 0:
        if libc.unshare(flags) == 0:
            return
        _become_nobody()
    uid, gid = os.geteuid(), os.getegid()
    _check(libc.unshare(flags | NEWUSER), "unshare")
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        with open(f"/proc/self/{name}", "w") as f:
            f.write(text)


def _isolate(settings: dict[str, Any], keep: tuple[int, ...], alive: int) -> None:
    os.setsid()
    folder = settings["folder"]
    with open("/proc/self/oom_score_adj", "w") as f:
        f.write("1000")
    if settings["tier"] == "namespaces":
        _private_root(folder, settings["hide"])
        folder = "/tmp"
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(HOME=folder, TMPDIR=folder)
    _drop_rights()
    libc.prctl(PR_SET_PDEATHSIG, SIGKILL)  # a change of user would clear it
    if select.select([alive], [], [], 0)[0]:
        raise OSError("the supervisor is gone")
    first = 3
    for fd in (*sorted(keep), MAX_DESCRIPTOR):
        os.closerange(first, fd)
        first = fd + 1
    _limit(settings["limits"])


def _limit(limits: dict[str, int]) -> None:
    for name, value in limits.items():
        number = getattr(resource, f"RLIMIT_{name}")
        resource.setrlimit(number, (value, value))


def _become_nobody() -> None:
    """From root to an ordinary user, whom limits bind. OSError where that user could not import Python's library."""
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.seteuid(NOBODY)
    readable = os.access(os.__file__, os.R_OK, effective_ids=True)
    os.seteuid(0)
    if not readable:
        raise OSError(f"only root can read {os.path.dirname(os.__file__)}: run as an ordinary user")
    os.setresuid(NOBODY, NOBODY, NOBODY)


def _drop_rights() -> None:
    """An ordinary user without capabilities, for whom no program can win any back."""
    if os.geteuid() == 0:
        _become_nobody()
    _check(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    _check(libc.capset(header, (ctypes.c_uint32 * 6)()), "capset")


def _mount(source: str | None, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    texts = [None if text is None else os.fsencode(text) for text in (source, target, kind, options)]
    _check(libc.mount(texts[0], texts[1], texts[2], ctypes.c_ulong(flags), texts[3]), f"mount {target}")


def _private_root(folder: str, hide: list[str]) -> None:
    """Make `folder` the root of a new mount namespace: libraries read-only, /tmp private, nothing else."""
    _check(libc.unshare(NEWNS), "unshare")
    _mount(None, "/", None, MS_REC | MS_PRIVATE)
    _mount("tmpfs", folder, "tmpfs", MS_NOSUID, "size=1m,mode=755")
    bound: list[str] = []
    for path in (*LIBRARIES, os.path.join(sys.base_prefix, "lib"), *sys.path):
        for step in {path: None, os.path.realpath(path): None}:
            _bind(step, folder, bound)
    for path in hide:
        if os.path.isdir(folder + path):
            _mount("tmpfs", folder + path, "tmpfs", MS_NOSUID, "size=4k,mode=755")
    os.mkdir(folder + "/tmp")
    attributes = (ctypes.c_uint64 * 4)(MS_RDONLY | MS_NOSUID, 0, 0, 0)
    _check(
        libc.syscall(SYS_MOUNT_SETATTR, AT_FDCWD, os.fsencode(folder), AT_RECURSIVE, attributes, 32), "mount_setattr"
    )
    _mount("tmpfs", folder + "/tmp", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "size=64m,nr_inodes=4096,mode=1777")
    os.chdir(folder)
    _check(libc.pivot_root(b".", b"."), "pivot_root")
    _check(libc.umount2(b".", MNT_DETACH), "umount")


def _bind(path: str, folder: str, bound: list[str]) -> None:
    if not os.path.exists(path) or any(f"{path}/".startswith(f"{top}/") for top in bound):
        return
    target = folder + path
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if os.path.islink(path):
        os.symlink(os.readlink(path), target)
        return
    if os.path.isdir(path):
        os.makedirs(target, exist_ok=True)
    else:
        os.close(os.open(target, os.O_CREAT | os.O_RDONLY))
    _mount(path, target, None, MS_BIND | MS_REC)
    bound.append(path)
