"""A system call filter for candidate and checker: what no solution needs and an attack does is refused.

Refused in both tiers: sockets of every family (a pair of connected streams is allowed, event loops need one), tracing
and other processes' memory, mounts, new namespaces, keyrings, bpf, performance counters, io_uring (which would go
around this filter), kernel modules, clocks, memory that no limit counts (memfd, System V), running other programs.
Refused beside these where there are no namespaces: new processes, signals to others, truncating and changing the mode,
owner, times or attributes of files, which Landlock does not rule.

A refusal is EPERM, so that the program sees a PermissionError. Calls newer than this table do not exist (ENOSYS).
Knows x86-64 and ARM64 on Linux; elsewhere OSError. Numbers: the kernel's unistd.h.
Does not stop: whatever can be done with the calls that Python itself needs.
"""

from __future__ import annotations

import ctypes
import os
import struct

from .kernel import check, libc

TYPE_CHECKING = False  # `typing` would double the time that a sandboxed process takes to start
if TYPE_CHECKING:
    from collections.abc import Iterator

EPERM, ENOSYS = 1, 38
PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2
KILL, ERRNO, ALLOW = 0x80000000, 0x00050000, 0x7FFF0000
LOAD, EQUAL, AT_LEAST, ANY_BIT, AND, RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06  # instructions of classic BPF
NUMBER, ARCHITECTURE = 0, 4  # offsets in the kernel's struct seccomp_data; argument n is at 16 + 8 n
NEWEST = 462  # mseal, Linux 6.10

# name: (x86-64, ARM64); None where an architecture has no such call
ALWAYS: dict[str, tuple[int | None, int | None]] = {
    "socket": (41, 198), "connect": (42, 203), "bind": (49, 200), "listen": (50, 201),
    "accept": (43, 202), "accept4": (288, 242),
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272),
    "process_madvise": (440, 440), "process_mrelease": (448, 448), "pidfd_getfd": (438, 438),
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51), "open_tree": (428, 428),
    "move_mount": (429, 429), "fsopen": (430, 430), "fsconfig": (431, 431), "fsmount": (432, 432),
    "fspick": (433, 433), "mount_setattr": (442, 442), "swapon": (167, 224), "swapoff": (168, 225),
    "quotactl": (179, 60), "quotactl_fd": (443, 443), "unshare": (272, 97), "setns": (308, 268),
    "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219),
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    "kexec_load": (246, 104), "kexec_file_load": (320, 294), "init_module": (175, 105), "finit_module": (313, 273),
    "delete_module": (176, 106), "reboot": (169, 142), "acct": (163, 89), "syslog": (103, 116), "vhangup": (153, 58),
    "settimeofday": (164, 170), "clock_settime": (227, 112), "adjtimex": (159, 171), "clock_adjtime": (305, 266),
    "sethostname": (170, 161), "setdomainname": (171, 162), "iopl": (172, None), "ioperm": (173, None),
    "modify_ldt": (154, None), "personality": (135, 92), "mknod": (133, None), "mknodat": (259, 33),
    "open_by_handle_at": (304, 265), "name_to_handle_at": (303, 264), "fanotify_init": (300, 262),
    "memfd_create": (319, 279), "memfd_secret": (447, 447), "shmget": (29, 194), "msgget": (68, 186),
    "semget": (64, 190), "mq_open": (240, 180), "execve": (59, 221), "execveat": (322, 281),
    "setpriority": (141, 140), "ioprio_set": (251, 30), "sched_setaffinity": (203, 122), "sched_setattr": (314, 274),
    "sched_setscheduler": (144, 119), "sched_setparam": (142, 118), "migrate_pages": (256, 238),
    "move_pages": (279, 239),
}  # fmt: skip
WITHOUT_NAMESPACES: dict[str, tuple[int | None, int | None]] = {
    "fork": (57, None), "vfork": (58, None), "tkill": (200, 130), "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240), "pidfd_open": (434, 434), "pidfd_send_signal": (424, 424),
    "creat": (85, None), "truncate": (76, 45), "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53),
    "fchmodat2": (452, 452), "chown": (92, None), "fchown": (93, 55), "lchown": (94, None), "fchownat": (260, 54),
    "utime": (132, None), "utimes": (235, None), "futimesat": (261, None), "utimensat": (280, 88),
    "setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7), "removexattr": (197, 14),
    "lremovexattr": (198, 15), "fremovexattr": (199, 16),
}  # fmt: skip
MISSING = {"clone3": (435, 435)}  # its flags lie in memory, where no filter can see them; the C library uses clone then
OPENAT2 = {"openat2": (437, 437)}  # likewise
CLONE, SOCKETPAIR, IOCTL, FCNTL = (56, 220), (53, 199), (16, 29), (72, 25)
PRLIMIT, KILL_CALL, TGKILL, OPEN, OPENAT = (302, 261), (62, 129), (234, 131), (2, None), (257, 56)
CLONE_THREAD, CLONE_NEW = 0x10000, 0x7E020080  # the latter: every kind of namespace
TERMINAL_OR_OWNER = (0x5412, 0x541C, 0x8901, 0x8902)  # ioctls that type into a terminal or have signals sent
OWNER = (8, 10, 15)  # F_SETOWN, F_SETSIG, F_SETOWN_EX: signals to any process of the same user
O_TRUNC, SOCK_STREAM, SOCK_TYPES = 0x200, 1, 0xF
ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column of the tables, AUDIT_ARCH

Instruction = tuple[int, int, int, int]  # code, jump if true, jump if false, operand


def install(*, namespaces: bool) -> None:
    """Filter this process and all it starts, for ever. OSError where the kernel or the architecture cannot."""
    program = b"".join(struct.pack("HBBI", *step) for step in build(namespaces=namespaces))
    code = ctypes.create_string_buffer(program, len(program))
    head = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(code)))
    check(libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, head, 0, 0), "seccomp")


def build(*, namespaces: bool) -> list[Instruction]:
    """The filter for this machine and this process (its own number is part of it)."""
    machine = os.uname().machine
    if machine not in ARCHITECTURES:
        raise OSError(f"no system call filter for {machine}")
    column, architecture = ARCHITECTURES[machine]
    steps = [(LOAD, 0, 0, ARCHITECTURE), (EQUAL, 1, 0, architecture), (RETURN, 0, 0, KILL), (LOAD, 0, 0, NUMBER)]
    steps += [(AT_LEAST, 0, 1, NEWEST + 1), (RETURN, 0, 0, ERRNO | ENOSYS)]  # the x32 calls too
    for table, code in _tables(namespaces):
        for numbers in table.values():
            number = numbers[column]
            if number is not None:
                steps += [(EQUAL, 0, 1, number), (RETURN, 0, 0, ERRNO | code)]
    for numbers, argument, tests in _by_argument(namespaces):
        number = numbers[column]
        if number is not None:
            body = [(LOAD, 0, 0, 16 + 8 * argument), *tests, (RETURN, 0, 0, ALLOW)]
            steps += [(EQUAL, 0, len(body), number), *body]
    return [*steps, (RETURN, 0, 0, ALLOW)]


def _tables(namespaces: bool) -> Iterator[tuple[dict[str, tuple[int | None, int | None]], int]]:
    yield ALWAYS, EPERM
    yield dict(MISSING), ENOSYS
    if not namespaces:
        yield WITHOUT_NAMESPACES, EPERM
        yield dict(OPENAT2), ENOSYS


def _by_argument(namespaces: bool) -> Iterator[tuple[tuple[int | None, int | None], int, list[Instruction]]]:
    """Calls that are refused for some arguments only: numbers, which argument, instructions that refuse or fall on."""
    refuse = (RETURN, 0, 0, ERRNO | EPERM)
    only_threads = [] if namespaces else [(ANY_BIT, 1, 0, CLONE_THREAD), refuse]
    yield CLONE, 0, [(ANY_BIT, 0, 1, CLONE_NEW), refuse, *only_threads]
    yield SOCKETPAIR, 1, [(AND, 0, 0, SOCK_TYPES), (EQUAL, 1, 0, SOCK_STREAM), refuse]
    yield IOCTL, 1, [step for code in TERMINAL_OR_OWNER for step in ((EQUAL, 0, 1, code), refuse)]
    yield FCNTL, 1, [step for code in OWNER for step in ((EQUAL, 0, 1, code), refuse)]
    yield PRLIMIT, 0, [(EQUAL, 1, 0, 0), refuse]
    if not namespaces:
        for call in (KILL_CALL, TGKILL):
            yield call, 0, [(EQUAL, 1, 0, os.getpid()), refuse]
        yield OPEN, 1, [(ANY_BIT, 0, 1, O_TRUNC), refuse]
        yield OPENAT, 2, [(ANY_BIT, 0, 1, O_TRUNC), refuse]
