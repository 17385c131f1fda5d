"""Files without namespaces: Landlock leaves the standard library and the C libraries to read, and nothing to write.

Does not hide names, sizes and dates (a stat call stays possible), nor does it rule modes and owners; `seccomp` does.
Needs Linux 5.13 with Landlock switched on. Constants: linux/landlock.h.
"""

from __future__ import annotations

import ctypes
import os
import struct

from .kernel import check, libc

TYPE_CHECKING = False  # `typing` would double the time that a sandboxed process takes to start
if TYPE_CHECKING:
    from collections.abc import Iterable

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446  # the same number on every architecture
VERSION, PATH_BENEATH = 1, 1
WRITE_FILE, READ_FILE, READ_DIR = 1 << 1, 1 << 2, 1 << 3
KNOWN = {1: 13, 2: 14, 3: 15, 4: 15}  # version: how many rights on files it knows; later ones 16


def confine(readable: Iterable[str], hide: Iterable[str]) -> None:
    """Let this process read what lies under `readable` but not under `hide`, and write to /dev/null only, for ever.

    OSError where the kernel has no Landlock. The process must have given up new privileges.
    """
    version = check(libc.syscall(CREATE_RULESET, None, ctypes.c_size_t(0), VERSION), "Landlock")
    rules = struct.pack("Q", (1 << KNOWN.get(version, 16)) - 1)
    rights = check(libc.syscall(CREATE_RULESET, rules, ctypes.c_size_t(len(rules)), 0), "Landlock")
    hidden = [os.path.realpath(path) for path in hide]
    for path in sorted({os.path.realpath(path) for path in readable}):
        _let_read(rights, path, hidden)
    _allow(rights, "/dev/null", READ_FILE | WRITE_FILE)
    check(libc.syscall(RESTRICT_SELF, rights, 0), "Landlock")
    os.close(rights)


def _let_read(rights: int, path: str, hidden: list[str]) -> None:
    """A right holds for all that lies beneath, so a folder with hidden parts is allowed part by part."""
    if path in hidden:
        return
    whole = not any(other.startswith(f"{path}/") for other in hidden)
    folder = os.path.isdir(path)
    _allow(rights, path, READ_FILE * (whole or not folder) | READ_DIR * folder)
    for name in () if whole else os.listdir(path):
        if not os.path.islink(f"{path}/{name}"):
            _let_read(rights, f"{path}/{name}", hidden)


def _allow(rights: int, path: str, what: int) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # not there, or out of reach already
    try:
        rule = struct.pack("=Qi", what, fd)
        check(libc.syscall(ADD_RULE, rights, PATH_BENEATH, rule, 0), "Landlock")
    finally:
        os.close(fd)
