"""The sandbox: hostile programs never pass, never hurt the machine and never leave a process behind."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.evaluation.jail import wire
from harness.evaluation.sandbox import Limits, Trial, isolation, judge
from harness.evaluation.verdict import Verdict

QUICK = Limits(cpu_seconds=1, wall_seconds=4.0, memory_bytes=300 << 20)
TEST = "assert f(2) == 4\nassert f(3) == 9\n"
SQUARE = "def f(x): return x * x"
TIERS = [t for t in ("namespaces", "limits") if judge(Trial(SQUARE, ("f",), "", TEST), tier=t).passed]


def run(program: str, test: str = TEST, *, tier: str = "", limits: Limits = QUICK) -> Verdict:
    return judge(Trial(textwrap.dedent(program), ("f",), "", test), limits, tier=tier)


def descendants(pid: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_bytes().rpartition(b")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            child = int(stat.parent.name)
            found += [child, *descendants(child)]
    return found


def marked(text: str) -> list[int]:
    """Processes, zombies excepted, that run with the sandbox's start command."""
    found = []
    for line in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if text.encode() in line.read_bytes():
                found.append(int(line.parent.name))
        except OSError:
            continue
    return found


@pytest.fixture(autouse=True)
def nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    folder = tmp_path / "private"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    tmp_path.chmod(0o755)
    before = set(descendants(os.getpid()))
    yield
    assert set(descendants(os.getpid())) <= before
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("tier", TIERS)
def test_a_right_program_passes(tier: str) -> None:
    assert run(SQUARE, tier=tier).passed


def test_the_probe_names_a_tier_or_a_reason() -> None:
    found = isolation()
    assert found.tier == (TIERS[0] if TIERS else "none")
    assert bool(found.why) == (found.tier != "namespaces")


def test_a_sandbox_that_cannot_start_is_not_a_wrong_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert run(SQUARE).outcome == "sandbox-error"
    assert run(SQUARE, tier="no such tier", limits=Limits(memory_bytes=1 << 10)).outcome == "sandbox-error"


@pytest.mark.parametrize(
    ("program", "outcome"),
    [
        ("def f(x): return x", "wrong"),
        ("def f(x): return None", "wrong"),
        ("def f(x): raise ValueError('no')", "exception"),
        ("raise KeyError('at import')", "exception"),
        ("def g(x): return x", "exception"),
        ("def f(x) return x", "syntax"),
        ("x = '\\x00" + "(" * 5000, "syntax"),
        ("def f(x):\n    while True: pass", "timeout"),
        ("while True: pass", "timeout"),
        ("import time\ndef f(x): time.sleep(60)", "timeout"),
        ("def f(x): return len('a' * (1 << 40))", "memory"),
        ("a = []\nwhile True: a.append(bytearray(1 << 20))", "memory"),
        ("def f(x): return open('/etc/harness-was-here', 'w')", "forbidden"),
        ("def f(x): return f(x)", "exception"),
    ],
)
def test_each_failure_has_its_name(program: str, outcome: str) -> None:
    assert run(program).outcome == outcome


FORGERIES = {
    "exit with status 0": "import sys\ndef f(x): sys.exit(0)",
    "exit at once": "import os\nos._exit(0)",
    "exit in a call": "import os\ndef f(x): os._exit(0)",
    "always equal": """
        class Same:
            def __eq__(self, other): return True
            def __ne__(self, other): return False
            def __hash__(self): return 0
        def f(x): return Same()
        """,
    "an int with its own equality": """
        class Same(int):
            def __eq__(self, other): return True
        def f(x): return Same(0)
        """,
    "success on every descriptor": """
        import os
        from struct import pack
        body = b"t" + pack(">I", 2) + b"s" + pack(">I", 4) + b"pass" + b"s" + pack(">I", 0)
        for fd in range(64):
            try: os.write(fd, pack(">I", len(body)) + body)
            except OSError: pass
        """,
    "success printed": """
        import sys
        print("pass"); sys.stderr.write("isolated\\npass"); sys.stdout.flush()
        def f(x): return 0
        """,
    "a patched built-in": """
        import builtins
        builtins.AssertionError = type("AssertionError", (SystemExit,), {})
        builtins.len = lambda x: 4
        def f(x): return 0
        """,
    "the stack walked": """
        import sys
        def f(x):
            frame = sys._getframe()
            while frame:
                for value in list(frame.f_locals.values()) + list(frame.f_globals.values()):
                    if isinstance(value, list): value.append("pass")
                frame = frame.f_back
            return 0
        """,
    "the test read from memory": """
        import gc
        texts = [v for d in gc.get_objects() if isinstance(d, dict) for v in d.values() if isinstance(v, str)]
        if any("assert f(" + "2) == 4" in text for text in texts):
            def f(x): return x * x
        """,
    "an exception of the test": "def f(x): raise AssertionError",
    "descriptors closed": "import os\nos.closerange(0, 64)\ndef f(x): return 4",
    "a flood": "import os\nwhile True:\n    for fd in range(3, 20):\n        try: os.write(fd, b'x' * 65536)\n"
    "        except OSError: pass",
    "a huge announced message": "import os\nfor fd in range(3, 9):\n    try: os.write(fd, b'\\xff' * 4)\n"
    "    except OSError: pass",
    "a nested answer": "def f(x):\n    a = []\n    for _ in range(100000): a = [a]\n    return a",
    "an endless answer": "import itertools\ndef f(x): return itertools.count()",
    "a huge answer": "def f(x): return 'a' * (40 << 20)",
    "signals to everybody": """
        import os, signal
        def f(x):
            os.kill(-1, signal.SIGKILL)
            return 0
        """,
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forged_success_is_not_a_pass(name: str) -> None:
    if name == "signals to everybody" and isolation().tier != "namespaces":
        pytest.skip("would reach the machine's other processes")
    verdict = run(FORGERIES[name])
    assert verdict.outcome in ("wrong", "exception", "timeout", "memory"), verdict


@pytest.mark.parametrize("name", ["always equal", "exit in a call", "the stack walked", "success on every descriptor"])
def test_forgeries_fail_without_namespaces_too(name: str) -> None:
    if "limits" not in TIERS:
        pytest.skip("root cannot hand Python's library to an ordinary user here")
    assert run(FORGERIES[name], tier="limits").outcome in ("wrong", "exception")


def test_an_object_is_unequal_to_everything() -> None:
    assert run("def f(x): return object()", "assert f(1) != f(2)").outcome == "wrong"


def test_a_test_that_swallows_exceptions_does_not_pass_a_dead_program() -> None:
    test = "for _ in range(3):\n    try: f(1)\n    except BaseException: pass\n"
    assert run("import os\ndef f(x): os._exit(0)", test).outcome == "exception"


def test_an_expected_exception_can_pass() -> None:
    test = "try:\n    f(1)\nexcept ValueError:\n    pass\nelse:\n    assert False\n"
    assert run("def f(x): raise ValueError", test).passed


def test_values_cross_with_their_types_and_arguments_change_in_place() -> None:
    program = """
        from collections import Counter
        def f(kind, box=None):
            if kind == "sort": return box.sort()
            return {"t": (1, [2.5, None]), "s": {1, 2}, "d": {(1, 2): b"x"}, "c": Counter("aab"), "big": 1 << 200,
                    "it": map(str, [1, 2]), "text": "\\ud800"}[kind]
        """
    test = """
box = [3, 1, 2]
assert f("sort", box) is None and box == [1, 2, 3]
assert f("t") == (1, [2.5, None]) and type(f("t")) is tuple
assert f("s") == {2, 1} and f("d") == {(1, 2): b"x"} and f("c") == {"a": 2, "b": 1}
assert f("big") == 1 << 200 and list(f("it")) == ["1", "2"] and f("it") != ["1", "2"] and f("text") == "\\ud800"
"""
    verdict = run(program, test)
    assert verdict.passed, verdict


@pytest.mark.parametrize(
    "data", [b"", b"l", b"l\xff\xff\xff\xff", b"D\0\0\0\1N", b"x\0\0\0\0", b"NN", b"l\0\0\0\1" * 9999]
)
def test_bytes_that_are_no_message_are_refused(data: bytes) -> None:
    with pytest.raises(wire.Malformed):
        wire.decode(data)


@pytest.mark.parametrize("tier", TIERS)
def test_a_fork_bomb_is_contained(tier: str) -> None:
    program = """
        import os
        def f(x):
            made = 0
            while True:
                try:
                    if os.fork() == 0:
                        while True: pass
                    made += 1
                except OSError:
                    raise RuntimeError(made)
        """
    began = time.monotonic()
    verdict = run(program, tier=tier)
    assert verdict.outcome == "exception" and int(verdict.detail.split(": ")[1]) <= QUICK.processes, verdict
    assert time.monotonic() - began < 8


@pytest.mark.parametrize("tier", TIERS)
def test_no_process_survives(tier: str) -> None:
    program = """
        import os, time
        def f(x):
            if os.fork() == 0:
                os.setsid()
                if os.fork() == 0: time.sleep(777)
                os._exit(0)
            return x * x
        """
    before = marked("jail.start")
    assert run(program, tier=tier).passed
    assert marked("jail.start") == before


@pytest.mark.skipif("namespaces" not in TIERS, reason="needs namespaces")
class TestNamespaces:
    def test_the_network_is_refused(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            program = f"import socket\ndef f(x): return socket.create_connection(('127.0.0.1', {port}), 2)"
            verdict = run(program)
            server.settimeout(0.2)
            with pytest.raises(TimeoutError):
                server.accept()
        assert verdict.outcome == "forbidden"

    def test_nothing_outside_can_be_read_or_written(self, tmp_path: Path) -> None:
        open_to_all = tmp_path / "open"
        open_to_all.mkdir()
        open_to_all.chmod(0o777)
        program = f"""
            import os
            def f(x):
                seen = [p for p in ({str(open_to_all)!r}, {str(Path(__file__))!r}, "/proc/1", "/bin/sh", "/home")
                        if os.path.exists(p)]
                open("mine", "w").write("private")
                for top in ("/", "/usr/lib", os.path.dirname(os.__file__)):
                    try: open(top + "/mine", "w")
                    except OSError: continue
                    seen.append(top)
                return seen
            """
        verdict = run(program, "assert f(1) == [], f(1)")
        assert verdict.passed, verdict
        assert list(open_to_all.iterdir()) == []

    def test_installed_packages_are_out_of_reach(self, monkeypatch: pytest.MonkeyPatch) -> None:
        library = Path(os.__file__).parent
        found = [*library.glob("*-packages"), *(library.parent / "python3").glob("*-packages")]
        if not found:
            pytest.skip("this Python has no packages beside its standard library")
        beside = found[0]  # would be readable with the library
        monkeypatch.setattr(sys, "path", [*sys.path, str(beside)])
        folders = [p for p in sys.path if p.endswith("-packages")]
        program = f"""
            import os
            def f(x): return [p for top in {folders!r} if os.path.exists(top) for p in os.listdir(top)]
            """
        verdict = run(program, "assert f(1) == [], f(1)")
        assert list(beside.iterdir()) and verdict.passed, verdict

    def test_it_runs_without_rights(self) -> None:
        program = """
            import os
            def f(x):
                try: os.setuid(0)
                except OSError: pass
                return os.getuid() != 0 and os.getpid() == 1 and sorted(os.environ) == ["HOME", "TMPDIR"]
            """
        verdict = run(program, "assert f(1) is True")
        assert verdict.passed, verdict


def test_nothing_outlives_a_scorer_that_is_killed(tmp_path: Path) -> None:
    code = (
        "from harness.evaluation.sandbox import *\n"
        "judge(Trial('import time\\ntime.sleep(99)', ('f',), '', 'f(1)'), Limits(wall_seconds=99))\n"
    )
    before = set(marked("jail.start"))
    scorer = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "TMPDIR": str(tmp_path)})
    deadline = time.monotonic() + 10
    while len(set(marked("jail.start")) - before) < 4 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(set(marked("jail.start")) - before) == 4  # two supervisors, candidate and checker
    scorer.kill()
    scorer.wait()
    deadline = time.monotonic() + 5
    while set(marked("jail.start")) - before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert set(marked("jail.start")) <= before
