"""A root folder of its own for a process: the libraries that Python needs, read-only, and a small private /tmp.

Must run with the right to mount, in a process whose other namespaces are its own already. Nothing of the machine's
files is left beside the libraries, and of these the installed packages are hidden, which may hold tests and answers.
"""

from __future__ import annotations

import ctypes
import os
import sys

from .kernel import check, libc

NEWNS = 0x20000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 8, 4096, 16384, 1 << 18
MNT_DETACH = 2
SYS_MOUNT_SETATTR, AT_FDCWD, AT_RECURSIVE = 442, -100, 0x8000  # the same number on every architecture, Linux 5.12
LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache")
DEVICES = ("/dev/null", "/dev/urandom")


def needed() -> list[str]:
    """Files and folders that Python reads while it runs."""
    return [*LIBRARIES, *DEVICES, os.path.join(sys.base_prefix, "lib"), *sys.path]


def change_root(folder: str, hide: list[str]) -> None:
    """Make `folder` (empty) the root of a new mount namespace. hide: folders that appear empty."""
    check(libc.unshare(NEWNS), "unshare")
    _mount(None, "/", None, MS_REC | MS_PRIVATE)
    _mount("tmpfs", folder, "tmpfs", MS_NOSUID, "size=1m,mode=755")
    bound: list[str] = []
    for path in needed():
        for step in {path: None, os.path.realpath(path): None}:
            _bind(step, folder, bound)
    for path in hide:
        if os.path.isdir(folder + path):
            _mount("tmpfs", folder + path, "tmpfs", MS_NOSUID, "size=4k,mode=755")
    os.mkdir(folder + "/tmp")
    attributes = (ctypes.c_uint64 * 4)(MS_RDONLY | MS_NOSUID, 0, 0, 0)
    check(libc.syscall(SYS_MOUNT_SETATTR, AT_FDCWD, os.fsencode(folder), AT_RECURSIVE, attributes, 32), "mount_setattr")
    _mount("tmpfs", folder + "/tmp", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "size=64m,nr_inodes=4096,mode=1777")
    os.chdir(folder)
    check(libc.pivot_root(b".", b"."), "pivot_root")
    check(libc.umount2(b".", MNT_DETACH), "umount")


def _mount(source: str | None, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    texts = [None if text is None else os.fsencode(text) for text in (source, target, kind, options)]
    check(libc.mount(texts[0], texts[1], texts[2], ctypes.c_ulong(flags), texts[3]), f"mount {target}")


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
