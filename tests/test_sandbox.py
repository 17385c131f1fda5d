"""The sandbox: what passes, how each failure is called, what crosses, and what a program can see.

Programs that cheat or do harm are in test_hostile_programs.py.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import textwrap
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from harness.evaluation.jail import wire
from harness.evaluation.sandbox import Isolation, Limits, Trial, describe, isolation, judge
from harness.evaluation.verdict import Verdict

QUICK = Limits(cpu_seconds=1, wall_seconds=4.0, memory_bytes=300 << 20, confirm=False)
TEST = "assert f(2) == 4\nassert f(3) == 9\n"
SQUARE = "def f(x): return x * x"
TIERS = [t for t in ("namespaces", "filters") if judge(Trial(SQUARE, ("f",), "", TEST), tier=t).passed]


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


def test_an_object_is_unequal_to_everything() -> None:
    assert run("def f(x): return object()", "assert f(1) != f(2)").outcome == "wrong"


CLASSES = """
    class Node:
        def __init__(self, value): self.value, self.left = value, None
        def __eq__(self, other): return True
        def __str__(self): return "node"
        def double(self): return 2 * self.value
        def __bool__(self): return self.value != 0
    def depth(node): return 0 if node is None else 1 + depth(node.left)
    def f(value): return Node(value)
    """


@pytest.mark.parametrize(
    "test",
    [
        "a = Node(1); a.left = Node(2); a.left.left = f(3)\nassert depth(a) == 3 and a.left.left.value == 3",
        "assert f(4).double() == 8 and f(1).left is None",
        "a = f(1); a.value = 7\nassert a.value == 7",
        "assert f(1) and not f(0)",
        "assert [n.value for n in map(f, (1, 2))] == [1, 2]",
        "try: f(1).missing\nexcept AttributeError: pass\nelse: assert False",
    ],
)
def test_objects_of_its_own_classes_can_be_made_used_and_passed_back(test: str) -> None:
    verdict = judge(Trial(textwrap.dedent(CLASSES), ("Node", "depth", "f"), "", test), QUICK)
    assert verdict.passed, verdict


@pytest.mark.parametrize(
    "test",
    [
        "assert f(1) == f(1)",
        "assert not f(1) != f(2)",
        "a = f(1)\nassert a == 1",
        "assert [f(1)] == [f(1)]",
        "assert (f(1), 2) == (f(1), 2)",
        "assert str(f(1)) == str(f(1))",
        "assert repr(f(1)) == repr(f(2))",
        "assert f'{f(1)}' == f'{f(1)}'",
        "assert f(1) in [f(1)]",
        "assert len({f(1), f(1)}) == 1",
        "assert max(f(1), f(2))",
        "import copy\nassert copy.copy(f(1)) == f(1)",
        "import pickle\nassert pickle.dumps(f(1)) == pickle.dumps(f(1))",
        "try: assert f(1) == f(1)\nexcept BaseException: pass",
        "assert f(1) is f(1)",
        "assert Node == Node",
    ],
)
def test_two_of_its_objects_compared_are_never_a_pass(test: str) -> None:
    verdict = judge(Trial(textwrap.dedent(CLASSES), ("Node", "depth", "f"), "", test), QUICK)
    assert verdict.outcome == "wrong", verdict


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


def test_it_says_what_it_does_not_stop() -> None:
    for tier in ("namespaces", "filters", "none"):
        assert describe(Isolation(tier)).startswith(tier) and "not stopped: kernel exploits" in describe()


def wasteful(seconds: float) -> str:
    return f"""
import time
def f(x):
    end = time.process_time() + {seconds}
    while time.process_time() < end: pass
    return x * x
"""


@pytest.mark.parametrize(("reference", "outcome"), [(0.5, "pass"), (0.0, "timeout")])
def test_a_slow_reference_gives_a_slow_program_more_time(reference: float, outcome: str) -> None:
    limits = Limits(cpu_seconds=1, wall_seconds=20.0)
    trial = Trial(wasteful(1.2), ("f",), "", "assert f(2) == 4", wasteful(reference))
    assert judge(trial, limits).outcome == outcome


def test_a_timeout_counts_only_if_it_happens_again_alone() -> None:
    limits = Limits(wall_seconds=1.0)
    sleepy = Trial("import time\ndef f(x): time.sleep(9)", ("f",), "", "f(1)")
    beside = Trial("import time\ndef f(x): time.sleep(0.3)", ("f",), "", "f(1)")
    alone, done = threading.Event(), []

    def others() -> None:
        while not alone.is_set():
            done.append((judge(beside, limits), time.monotonic()))

    with ThreadPoolExecutor(3) as pool:
        pool.submit(others)
        pool.submit(others)
        verdict = judge(sleepy, limits)
        alone.set()
    ends = sorted(end for _, end in done)
    assert verdict.outcome == "timeout" and all(v.passed for v, _ in done)
    assert max(later - earlier for earlier, later in itertools.pairwise(ends)) > 1.0  # while it ran alone


@pytest.mark.skipif("namespaces" not in TIERS, reason="needs namespaces")
class TestNamespaces:
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
    mark = f"harness-sandbox-mark-{uuid.uuid4().hex}"
    code = f"""
import harness.evaluation.sandbox as s
s._START += "  # {mark}"
s.judge(s.Trial("import time\\ntime.sleep(99)", ("f",), "", "f(1)"), s.Limits(wall_seconds=99), tier={TIERS[0]!r})
"""
    path = tmp_path / "scorer.py"
    path.write_text(code)
    scorer = subprocess.Popen([sys.executable, str(path)], env={**os.environ, "TMPDIR": str(tmp_path)})
    deadline = time.monotonic() + 20
    while len(marked(mark)) < 4 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(marked(mark)) == 4  # two supervisors, candidate and checker
    scorer.kill()
    scorer.wait()
    deadline = time.monotonic() + 5
    while marked(mark) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert marked(mark) == []
