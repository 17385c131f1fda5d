"""Programs that would cheat or do harm: none passes, none hurts the machine, none leaves a process or a file behind.

Every payload is bounded, so that one which got out would do no harm either: counted forks, capped memory, closed ports
of this machine. What runs as root here also runs as an ordinary user, and both without namespaces.
"""

from __future__ import annotations

import functools
import json
import os
import socket
import tempfile
import textwrap
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from harness.evaluation import sandbox
from harness.evaluation.sandbox import Limits, Trial, isolation, judge
from harness.evaluation.verdict import Verdict
from tests.ordinary_user import run_as

pytestmark = pytest.mark.skipif(isolation().tier == "none", reason="no sandbox on this machine")

QUICK = Limits(cpu_seconds=1, wall_seconds=2.0, memory_bytes=200 << 20, confirm=False)
TEST = "assert f(2) == 4\nassert f(3) == 9\n"
FAILURES = {"wrong", "exception", "timeout", "memory", "forbidden", "syntax"}
MARK = "harness-hostile-mark"  # of files that programs try to leave

# name: program. None knows the test's values; `f` must answer f(2) == 4 and f(3) == 9 to pass.
FORGED = {
    "prints the markers of other harnesses": """
        import sys
        for text in ("passed", "PASS", "isolated\\npass", '{"result": "passed"}', "1 passed in 0.01s"):
            print(text); sys.stderr.write(text + "\\n")
        sys.stdout.flush()
        def f(x): return 0
        """,
    "os._exit(0) at once": "import os\nos._exit(0)",
    "os._exit(0) in a call": "import os\ndef f(x): os._exit(0)",
    "sys.exit in a call": "import sys\ndef f(x): sys.exit(0)",
    "SystemExit raised while importing": "raise SystemExit(0)",
    "KeyboardInterrupt": "def f(x): raise KeyboardInterrupt",
    "GeneratorExit": "def f(x): raise GeneratorExit",
    "an AssertionError of its own": "def f(x): raise AssertionError",
    "an object equal to everything": """
        class Same:
            def __eq__(self, other): return True
            def __ne__(self, other): return False
            def __hash__(self): return 0
        def f(x): return Same()
        """,
    "an int equal to everything": """
        class Same(int):
            def __eq__(self, other): return True
            __hash__ = int.__hash__
        def f(x): return Same(0)
        """,
    "a str equal to everything": """
        class Same(str):
            def __eq__(self, other): return True
            def __hash__(self): return 0
        def f(x): return Same("4")
        """,
    "a list whose items are equal to everything": """
        class Same(list):
            def __eq__(self, other): return True
        def f(x): return Same()
        """,
    "a float that changes its mind": """
        class Moody(float):
            def __float__(self): return 4.0
            def __index__(self): return 4
        def f(x): return Moody(1)
        """,
    "an object of a class called int": """
        Fake = type("int", (), {"__eq__": lambda a, b: True, "__bool__": lambda a: True})
        def f(x): return Fake()
        """,
    "a metaclass that says it is an int": """
        class Meta(type):
            def __eq__(cls, other): return True
            def __hash__(cls): return 0
        class Same(metaclass=Meta):
            @property
            def __class__(self): return int
        def f(x): return Same()
        """,
    "walks the stack": """
        import sys
        def f(x):
            frame = sys._getframe()
            while frame:
                for value in [*frame.f_locals.values(), *frame.f_globals.values()]:
                    if isinstance(value, list): value.append("pass")
                    if isinstance(value, dict) and value is not frame.f_globals: value["outcome"] = "pass"
                frame = frame.f_back
            return 0
        """,
    "looks for the test among all objects": """
        import gc
        answers = {}
        for held in gc.get_objects():
            for value in (held.values() if isinstance(held, dict) else ()):
                if isinstance(value, str) and "assert f" + "(2) ==" in value: answers[2] = 4; answers[3] = 9
        def f(x): return answers[x]
        """,
    "reads its own memory": """
        answers = {}
        with open("/proc/self/mem", "rb") as memory:
            for line in open("/proc/self/maps"):
                low, high = (int(part, 16) for part in line.split()[0].split("-"))
                memory.seek(low)
                if b"assert f" + b"(2) ==" in memory.read(min(high - low, 1 << 20)): answers = {2: 4, 3: 9}
        def f(x): return answers[x]
        """,
    "reads the memory of every process": """
        import os
        for name in os.listdir("/proc"):
            if name.isdigit() and int(name) != os.getpid(): open(f"/proc/{name}/mem", "r+b")
        def f(x): return x
        """,
    "reads its parent's arguments and surroundings": """
        import os
        text = open(f"/proc/{os.getppid()}/cmdline").read() + open(f"/proc/{os.getppid()}/environ").read()
        def f(x): return text
        """,
    "traces its parent": """
        import ctypes, os
        libc = ctypes.CDLL(None, use_errno=True)
        def f(x):
            if libc.ptrace(16, os.getppid(), 0, 0) != 0: raise PermissionError(1, "ptrace")
            return 4
        """,
    "writes into another process's memory": """
        import ctypes, os
        libc = ctypes.CDLL(None, use_errno=True)
        def f(x):
            spot = ctypes.create_string_buffer(8)
            vector = (ctypes.c_void_p * 2)(ctypes.addressof(spot), 8)
            if libc.process_vm_writev(os.getppid(), vector, 1, vector, 1, 0) < 0: raise PermissionError(1, "vm")
            return 4
        """,
    "patches builtins": """
        import builtins
        builtins.AssertionError = type("AssertionError", (SystemExit,), {})
        builtins.len = lambda x: 4
        builtins.__build_class__ = None
        def f(x): return 0
        """,
    "changes the number 0 by ctypes": """
        import ctypes
        def f(x):
            ctypes.c_int.from_address(id(0) + 24).value = 4 if x == 2 else 9
            return -1
        """,
    "patches the sandbox's own modules": """
        import sys
        for name, module in list(sys.modules.items()):
            if name.startswith("jail"):
                for key in list(vars(module)):
                    if callable(vars(module)[key]) and not key.startswith("__"): vars(module)[key] = lambda *a, **k: b""
        def f(x): return 0
        """,
    "well-formed verdicts on every descriptor": """
        import os
        from struct import pack
        body = b"t" + pack(">I", 2) + b"s" + pack(">I", 4) + b"pass" + b"s" + pack(">I", 0)
        for fd in range(64):
            try: os.write(fd, pack(">I", len(body)) + body)
            except OSError: pass
        def f(x): return 0
        """,
    "answers sent ahead of the questions": """
        import os
        from struct import pack
        def value(n):
            body = b"t" + pack(">I", 3) + b"s" + pack(">I", 5) + b"value" + b"i" + pack(">I", 1) + bytes([n])
            return body + b"t" + pack(">I", 0)
        for fd in range(3, 64):
            try: os.write(fd, pack(">I", 38) + value(7))
            except OSError: pass
        def f(x): return 0
        """,
    "malformed replies on every descriptor": """
        import os
        for fd in range(3, 64):
            try: os.write(fd, b"\\0\\0\\0\\4l\\xff\\xff\\xff")
            except OSError: pass
        """,
    "a huge announced reply": """
        import os
        for fd in range(3, 64):
            try: os.write(fd, b"\\xff" * 4)
            except OSError: pass
        """,
    "closes every descriptor": "import os\nos.closerange(0, 64)\ndef f(x): return 4",
    "forged handles": """
        import sys
        Handle = sys.modules["jail.wire"].Handle
        def f(x): return Handle(("int", True, 10 ** 9))
        """,
    "pickles that run code": """
        import pickle
        class Evil:
            def __reduce__(self): return (exec, ("raise SystemExit(0)",))
        def f(x): return pickle.loads(pickle.dumps(Evil()))
        """,
    "an import hook": """
        import sys
        class Hook:
            def find_spec(self, name, path=None, target=None): raise SystemExit(0)
        sys.meta_path.insert(0, Hook())
        def f(x):
            import fractions
            return 4
        """,
    "a module put in the place of another": """
        import os, sys, types
        sys.modules["builtins"] = sys.modules["os"] = types.ModuleType("os")
        def f(x): return 0
        """,
    "settrace": """
        import sys
        def trace(frame, event, argument):
            frame.f_locals["result"] = 4
            return trace
        sys.settrace(trace)
        def f(x):
            result = 0
            return result
        """,
    "atexit": """
        import atexit, os
        atexit.register(os.write, 1, b"pass")
        def f(x): raise SystemExit(0)
        """,
    "__del__": """
        import os
        class Last:
            def __del__(self): os._exit(0)
        def f(x):
            Last()
            return 4
        """,
    "an excepthook and an unraisable hook": """
        import os, sys
        sys.excepthook = sys.unraisablehook = lambda *a: os._exit(0)
        def f(x): raise ValueError
        """,
    "recursion": "def f(x): return f(x)",
    "recursion without a limit": "import sys\nsys.setrecursionlimit(10 ** 8)\ndef f(x): return f(x)",
    "an exception whose text never ends": """
        class Long(Exception):
            def __str__(self):
                while True: pass
        def f(x): raise Long
        """,
    "a class name of nonsense": """
        Odd = type("\\ud800" * 1000, (Exception,), {})
        def f(x): raise Odd("\\ud800")
        """,
}
EXHAUSTING = {
    "a memory bomb": "held = []\nfor _ in range(2000): held.append(bytearray(1 << 20))\ndef f(x): return 4",
    "one huge allocation": "def f(x): return len(bytearray(4 << 30))",
    "a memory bomb without Python": """
        import mmap
        held = [mmap.mmap(-1, 64 << 20) for _ in range(32)]
        def f(x): return 4
        """,
    "memory that no limit counts": """
        import os
        def f(x):
            held = [os.memfd_create(str(n)) for n in range(8)]
            return [os.write(fd, bytes(1 << 20)) for fd in held]
        """,
    "shared memory": """
        import ctypes
        libc = ctypes.CDLL(None, use_errno=True)
        def f(x):
            if libc.shmget(0, 1 << 20, 0o1600) < 0: raise PermissionError(1, "shmget")
            return 4
        """,
    "a huge int": "def f(x): return 1 << (1 << 33)",
    "a huge text": "def f(x): return 'a' * (40 << 20)",
    "a huge int as text": "import sys\nsys.set_int_max_str_digits(0)\ndef f(x): return str(1 << 30_000_000)",
    "endless output": "import sys\ndef f(x):\n    while True: sys.stdout.write('x' * 65536)",
    "endless output on every descriptor": """
        import os
        while True:
            for fd in range(3, 20):
                try: os.write(fd, b"x" * 65536)
                except OSError: pass
        """,
    "a deep answer": "def f(x):\n    a = []\n    for _ in range(100_000): a = [a]\n    return a",
    "an endless answer": "import itertools\ndef f(x): return itertools.count()",
    "an answer within itself": "def f(x):\n    a = []\n    a.append(a)\n    return a",
    "a busy loop": "def f(x):\n    while True: pass",
    "sleeping past the limit": "import time\ndef f(x): time.sleep(600)",
    "sleeping past the limit while importing": "import time\ntime.sleep(600)",
    "waiting for input": "import os\ndef f(x): return os.read(os.pipe()[0], 1)",
    "a regular expression without end": "import re\ndef f(x): return re.match('(a+)+b', 'a' * 60)",
    "a thread bomb": """
        import threading, time
        def f(x):
            for _ in range(200): threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
            return 4
        """,
    "files without end": """
        def f(x):
            for n in range(10_000): open(f"file{n}", "wb").write(bytes(1 << 16))
            return 4
        """,
    "a file without end": """
        def f(x):
            with open("file", "wb") as file:
                for _ in range(200): file.write(bytes(1 << 20))
            return 4
        """,
    "descriptors without end": "import os\ndef f(x): return [os.pipe() for _ in range(500)]",
}
REACHING_OUT = {
    **{
        f"a socket of the family {family}": f"""
        import socket
        def f(x): return socket.socket({number}, {kind}).fileno()
        """
        for family, number, kind in (
            ("unix", 1, 1),
            ("internet", 2, 1),
            ("internet, datagrams", 2, 2),
            ("internet 6", 10, 1),
            ("netlink", 16, 3),
            ("packet", 17, 3),
            ("crypto", 38, 5),
            ("virtual machines", 40, 1),
        )
    },
    "a server": "import socket\ndef f(x): return socket.create_server(('127.0.0.1', 0)).fileno()",
    "a datagram through a pair of sockets": """
        import socket
        def f(x):
            one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
            return one.sendto(b"x", "/dev/log")
        """,
    "a web page": "import urllib.request\ndef f(x): return urllib.request.urlopen('http://127.0.0.1:9/', timeout=1)",
    "another program": "import os\ndef f(x): os.execv('/bin/echo', ['echo'])",
    "a shell": "import os\ndef f(x): return os.system('echo')",
    "a program by the loader": """
        import glob, os
        def f(x): os.execv(glob.glob("/lib*/ld-linux*")[0], ["ld", "/bin/echo"])
        """,
    "a password file": "def f(x): return open('/etc/passwd').read()",
    "a file outside": f"def f(x): return open('/etc/{MARK}', 'w')",
    "a file in the shared folder": f"def f(x): return open('/var/tmp/{MARK}', 'w').write('x') and 4",
    "a file of the library": f"import os\ndef f(x): return open(os.path.dirname(os.__file__) + '/{MARK}', 'w')",
    "a symlink to the outside": f"""
        import os
        def f(x):
            os.symlink("/etc", "way")
            return open("way/{MARK}", "w")
        """,
    "a hard link to the outside": """
        import os
        def f(x):
            os.link(os.__file__, "mine.py")
            return open("mine.py", "a")
        """,
    "a device": "import os, stat\ndef f(x): return os.mknod('disk', stat.S_IFBLK | 0o600, os.makedev(254, 0))",
    "root again": "import os\ndef f(x): return os.setuid(0)",
    "a mount": """
        import ctypes
        libc = ctypes.CDLL(None, use_errno=True)
        def f(x):
            if libc.mount(b"proc", b"/tmp", b"proc", 0, None) != 0: raise PermissionError(1, "mount")
            return 4
        """,
    "a new namespace": """
        import ctypes
        libc = ctypes.CDLL(None, use_errno=True)
        def f(x):
            if libc.unshare(0x10000000) != 0: raise PermissionError(1, "unshare")
            return 4
        """,
    "a way around the filter": """
        import ctypes
        libc = ctypes.CDLL(None, use_errno=True)
        def f(x):
            results = [libc.syscall(number, 0, 0, 0, 0, 0, 0) for number in (425, 435, 500, 0x40000000 + 41)]
            if max(results) < 0: raise PermissionError(1, "refused")
            return 4
        """,
    "the keyring": """
        import ctypes
        libc = ctypes.CDLL(None, use_errno=True)
        def f(x):
            if libc.syscall({"x86_64": 250, "aarch64": 219}[__import__("os").uname().machine], 0, -3, 0, 0, 0) < 0:
                raise PermissionError(1, "keyctl")
            return 4
        """,
    "SIGKILL for the parent": "import os\ndef f(x): return os.kill(os.getppid(), 9)",
    "SIGSTOP for the parent": "import os\ndef f(x): return os.kill(os.getppid(), 19)",
    "SIGSTOP for itself": "import os\ndef f(x): return os.kill(os.getpid(), 19)",
    "SIGSTOP for its group": "import os\ndef f(x): return os.killpg(0, 19)",
    "signals that nobody handles": """
        import signal
        for number in range(1, 32):
            try: signal.signal(number, signal.SIG_IGN)
            except (OSError, ValueError): pass
        def f(x):
            while True: pass
        """,
    "an alarm": "import signal\nsignal.alarm(1)\ndef f(x):\n    while True: pass",
    "signals by ownership of a descriptor": """
        import fcntl, os
        def f(x):
            fcntl.fcntl(0, fcntl.F_SETOWN, os.getppid())
            return 4
        """,
    "another's priority": "import os\ndef f(x): return os.setpriority(os.PRIO_PROCESS, os.getppid(), 19)",
    "higher limits": """
        import resource
        def f(x): return resource.setrlimit(resource.RLIMIT_NPROC, (4096, 4096))
        """,
}
# Each starts at most 200 processes, and each of these ends by itself within seconds.
SURVIVING = {
    "a fork bomb": """
        import os, time
        def f(x):
            for _ in range(200):
                if os.fork() == 0:
                    time.sleep(8)
                    os._exit(0)
            return 4
        """,
    "a fork bomb that forks in turn": """
        import os, time
        def f(x):
            end = time.monotonic() + 4
            for _ in range(7):
                try: os.fork()
                except OSError: pass
            while time.monotonic() < end: time.sleep(0.1)
            return 4
        """,
    "a child that stays": """
        import os, time
        def f(x):
            if os.fork() == 0:
                time.sleep(8)
                os._exit(0)
            return 0
        """,
    "a daemon": """
        import os, signal, time
        def f(x):
            if os.fork() == 0:
                os.setsid()
                signal.signal(signal.SIGHUP, signal.SIG_IGN)
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                if os.fork() == 0:
                    os.closerange(0, 64)
                    time.sleep(8)
                os._exit(0)
            return 0
        """,
    "a relay of processes": """
        import os, time
        def f(x):
            if os.fork() == 0:
                for _ in range(150):
                    if os.fork(): os._exit(0)
                    time.sleep(0.01)
                os._exit(0)
            return 0
        """,
    "a subprocess": "import subprocess\ndef f(x): return subprocess.Popen(['sleep', '8']).pid",
    "a child that answers in its parent's place": """
        import os
        def f(x):
            os.fork()
            return 0
        """,
    "a pool of processes": """
        import multiprocessing
        def f(x):
            with multiprocessing.get_context("fork").Pool(2) as pool: return pool.map(len, [[1], [2]])
        """,
}
PROGRAMS = FORGED | EXHAUSTING | REACHING_OUT | SURVIVING


ELSEWHERE = [
    *REACHING_OUT,
    *SURVIVING,
    "a memory bomb",
    "memory that no limit counts",
    "shared memory",
    "a thread bomb",
]
ELSEWHERE += ["reads the memory of every process", "traces its parent", "writes into another process's memory"]
ELSEWHERE += ["os._exit(0) in a call", "an object equal to everything", "well-formed verdicts on every descriptor"]
MODES = {  # user, tier
    "ordinary user": (False, "namespaces"),
    "ordinary user without namespaces": (False, "filters"),
    "root without namespaces": (True, "filters"),
}
ALL_OF_A_MODE = """
from tests import test_hostile_programs as here
here.all_of_a_mode({tier!r}, {mark!r})
"""
COUNTED = """
    import os, time
    def f(x):
        made = 0
        for _ in range(200):
            try:
                if os.fork() == 0:
                    time.sleep(8)
                    os._exit(0)
                made += 1
            except OSError: break
        raise RuntimeError(made)
    """


def attempt(name: str, tier: str = "") -> Verdict:
    return judge(Trial(textwrap.dedent(PROGRAMS[name]), ("f",), "", TEST), QUICK, tier=tier)


def all_of_a_mode(tier: str, mark: str) -> None:
    """Runs in a process of its own: prints the verdicts, or why the tier does not work here."""
    sandbox._START += f"  # {mark}"
    square = judge(Trial("def f(x): return x * x", ("f",), "", TEST), QUICK, tier=tier)
    if not square.passed:
        print(json.dumps({"": [square.outcome, square.detail]}))
        return
    with ThreadPoolExecutor(2) as pool:
        verdicts = dict(zip(ELSEWHERE, pool.map(lambda name: attempt(name, tier), ELSEWHERE), strict=True))
    verdicts["counted"] = judge(Trial(textwrap.dedent(COUNTED), ("f",), "", TEST), QUICK, tier=tier)
    print(json.dumps({name: [verdict.outcome, verdict.detail] for name, verdict in verdicts.items()}))


def running(mark: str) -> list[int]:
    """Processes with the mark in their command line, which children that only fork keep; zombies have none."""
    found = []
    for line in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found += [int(line.parent.name)] if mark.encode() in line.read_bytes() else []
        except OSError:
            continue
    return found


def outside() -> list[Path]:
    """Where programs try to leave files."""
    folders = ("/etc", "/var/tmp", str(Path(os.__file__).parent))
    return [Path(folder) / MARK for folder in folders if (Path(folder) / MARK).exists()]


def nothing_is_left(mark: str, folder: Path) -> None:
    end = time.monotonic() + 1
    while running(mark) and time.monotonic() < end:
        time.sleep(0.02)
    assert running(mark) == []
    assert outside() == []
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("name", PROGRAMS)
def test_it_fails_and_leaves_nothing(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mark = f"{MARK}-{uuid.uuid4().hex}"
    folder = tmp_path / "private"
    folder.mkdir()
    tmp_path.chmod(0o755)
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    monkeypatch.setattr(sandbox, "_START", f"{sandbox._START}  # {mark}")
    started = time.monotonic()
    verdict = attempt(name)
    assert verdict.outcome in FAILURES, verdict
    assert time.monotonic() - started < 40
    nothing_is_left(mark, folder)


@pytest.fixture(scope="module")
def verdicts_of() -> Callable[[str], dict[str, list[str]]]:
    """The verdicts of a mode, each mode run once."""

    @functools.cache
    def run(mode: str) -> dict[str, list[str]]:
        root, tier = MODES[mode]
        if root and os.geteuid():
            return {"": ["sandbox-error", "the tests do not run as root"]}
        mark = f"{MARK}-{uuid.uuid4().hex}"
        code = ALL_OF_A_MODE.format(tier=tier, mark=mark)
        with tempfile.TemporaryDirectory() as name:
            Path(name).chmod(0o777)
            done = run_as(f"import tempfile; tempfile.tempdir = {name!r}\n{code}", root=root)
            assert done.returncode == 0, done.stderr
            nothing_is_left(mark, Path(name))
        found: dict[str, list[str]] = json.loads(done.stdout)
        return found

    return run


@pytest.mark.parametrize("name", ELSEWHERE)
@pytest.mark.parametrize("mode", MODES)
def test_it_fails_elsewhere_too(mode: str, name: str, verdicts_of: Callable[[str], dict[str, list[str]]]) -> None:
    verdicts = verdicts_of(mode)
    if "" in verdicts:
        pytest.skip(verdicts[""][1])
    assert verdicts[name][0] in FAILURES, verdicts[name]


@pytest.mark.parametrize("mode", MODES)
def test_forks_are_counted(mode: str, verdicts_of: Callable[[str], dict[str, list[str]]]) -> None:
    verdicts = verdicts_of(mode)
    if "" in verdicts:
        pytest.skip(verdicts[""][1])
    outcome, detail = verdicts["counted"]
    assert outcome == "exception" and int(detail.split(": ")[1]) < QUICK.processes, detail


def test_forks_are_counted_here() -> None:
    verdict = judge(Trial(textwrap.dedent(COUNTED), ("f",), "", TEST), QUICK)
    assert verdict.outcome == "exception" and int(verdict.detail.split(": ")[1]) < QUICK.processes, verdict


def test_no_connection_arrives() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        program = f"import socket\ndef f(x): return socket.create_connection(('127.0.0.1', {port}), 1) and 4"
        verdict = judge(Trial(program, ("f",), "", TEST), QUICK)
        server.settimeout(0.1)
        with pytest.raises(TimeoutError):
            server.accept()
    assert verdict.outcome == "forbidden"


def test_there_are_enough_of_them() -> None:
    assert len(PROGRAMS) >= 40
