"""MBPP, MBPP+, HumanEval+ and CRUXEval: gold solutions pass, others do not, and any text gets a verdict with a reason.

The whole sets are run by benchmarks/gold_solutions.py; here are a part of each and the rows that are special.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from math import comb
from pathlib import Path
from typing import Any

import pytest

from harness.errors import StepFailed
from harness.evaluation import mbpp
from harness.evaluation.cruxeval import score_input, score_output
from harness.evaluation.humaneval_plus import score_humaneval_plus
from harness.evaluation.mbpp_plus import restore, score_mbpp_plus
from harness.evaluation.pass_at_k import pass_at_k, summary
from harness.evaluation.sandbox import Limits, isolation
from harness.evaluation.scorers import code as scorers
from harness.evaluation.verdict import Verdict

needs_sandbox = pytest.mark.skipif(isolation().tier == "none", reason="no sandbox on this machine")

QUICK = Limits(cpu_seconds=1, wall_seconds=4.0, confirm=False)
Row = dict[str, Any]
ROW: Row = {
    "code": "class Pair:\n    def __init__(self, a): self.a = a\ndef total(x, extra=0):\n    return x.a + extra",
    "test_list": ["assert total(p) == 2", "assert total(Pair(3), extra=1) == 4"],
    "test_setup_code": "p = Pair(1)\np.a = 2",
}
BAD = {
    "empty": "",
    "a million characters": "x" * 1_000_000,
    "binary": "\x00\xff\x07" * 1000,
    "lone surrogates": "\ud800",
    "deep": "[" * 20_000 + "]" * 20_000,
    "deep attributes": "a" + ".a" * 20_000,
    "many signs": "-" * 30_000 + "1",
    "prose": "I am sorry.",
    "NaN": "nan",
    "a huge number": "0x" + "f" * 10_000,
    "stars": "dict(**{'a': 1}, **{})",
    "a fence without code": "```python\n```",
}


def rows(mirror: Path, name: str) -> list[Row]:
    texts = [path.read_text(encoding="utf-8") for path in sorted((mirror / "code" / name).glob("*.jsonl"))]
    return [json.loads(line) for text in texts for line in text.split("\n") if line]


def judged(score: Callable[[Row], Verdict], questions: list[Row]) -> list[Verdict]:
    """Two at a time, since each item mostly waits for its processes."""
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(score, questions))


def gold(row: Row) -> Verdict:
    return mbpp.score_mbpp(row, row["code"])


@needs_sandbox
class TestMbpp:
    def test_gold_solutions_pass(self, mirror: Path) -> None:
        every = rows(mirror, "mbpp")
        assert len(every) == 974
        special = {126, 367, 533, 596, 601, 927}  # own classes, set-up code, a type, the name of a built-in
        chosen = [row for number, row in enumerate(every) if number % 12 == 0 or row["task_id"] in special]
        verdicts = judged(gold, chosen)
        failed = {row["task_id"]: verdict for row, verdict in zip(chosen, verdicts, strict=True) if not verdict.passed}
        assert not failed

    def test_the_known_bad_rows_of_the_sanitised_edition_are_the_only_ones(self, mirror: Path) -> None:
        every = rows(mirror, "mbpp_sanitized")
        assert len(every) == 427
        chosen = [row for n, row in enumerate(every) if n % 12 == 0 or row["task_id"] in (117, 438, 746)]
        verdicts = judged(gold, chosen)
        failed = {row["task_id"] for row, verdict in zip(chosen, verdicts, strict=True) if not verdict.passed}
        assert failed == {117, 438, 746}
        assert {verdict.outcome for verdict in verdicts} == {"pass", "wrong"}

    def test_set_up_code_runs_after_the_solution_and_uses_its_classes(self) -> None:
        assert gold(ROW).passed
        assert mbpp.score_mbpp(ROW, "```python\n" + ROW["code"] + "\n```").passed

    @pytest.mark.parametrize(
        ("answer", "outcome"),
        [
            (ROW["code"].replace("+ extra", "- extra"), "wrong"),
            ("def total(x, extra=0): return x.a + extra", "exception"),  # no class
            ("def total(x): return 2", "exception"),
            (ROW["code"] + "\nwhile True: pass", "timeout"),
            (ROW["code"].replace("x.a + extra", "open('/etc/x', 'w')"), "forbidden"),
            ("def total(", "syntax"),
            ("", "no-code"),
            ("```python\n```", "no-code"),
        ],
    )
    def test_each_failure_has_its_name(self, answer: str, outcome: str) -> None:
        assert mbpp.score_mbpp(ROW, answer, limits=QUICK).outcome == outcome

    def test_a_builtin_of_the_answers_own_does_not_reach_the_test(self) -> None:
        row = {"code": "def f(x): return {x}", "test_list": ["assert set(f(1)) == set([1])"]}
        cheat = "class set:\n    def __init__(self, x): pass\n    def __eq__(self, other): return True\n"
        assert mbpp.score_mbpp(row, cheat + "def f(x): return [2]").outcome == "wrong"
        assert mbpp.score_mbpp(row, cheat + "def f(x): return [1]").passed

    def test_imports_of_the_test_reach_the_program(self) -> None:
        row = {
            "code": "def f(x): return x",
            "test_imports": ["import math"],
            "test_list": ["assert math.isclose(f(4), 2)"],
        }
        assert mbpp.score_mbpp(row, "def f(x): return math.sqrt(x)").passed

    def test_the_names_of_a_test_come_from_the_reference(self) -> None:
        reference = "import sys, re\ndef sum(a): pass\nclass Node: pass\ndef other(): pass"
        test = "n = Node(1)\nassert sum(sys.maxsize) == len([1]) and re"
        assert mbpp.tested_names(reference, test) == (("Node", "sum"), "import sys, re")


@needs_sandbox
class TestMbppPlus:
    def test_gold_solutions_pass(self, mirror: Path) -> None:
        every = rows(mirror, "mbpp_plus")
        assert len(every) == 399
        special = {"Mbpp/2", "Mbpp/115", "Mbpp/124", "Mbpp/252", "Mbpp/278", "Mbpp/737", "Mbpp/793"}
        chosen = [row for n, row in enumerate(every) if n % 40 == 0 or row["task_id"] in special]
        verdicts = judged(lambda row: score_mbpp_plus(row, row["canonical_solution"])[1], chosen)
        failed = {row["task_id"]: verdict for row, verdict in zip(chosen, verdicts, strict=True) if not verdict.passed}
        assert not failed

    def row(self, number: int = 1, **fields: Any) -> Row:
        row = {
            "task_id": f"Mbpp/{number}",
            "entry_point": "f",
            "canonical_solution": "def f(x):\n    return x / 3",
            "base_input": [[3], [6]],
            "plus_input": [[1], [0]],
            "atol": 0,
        }
        return row | fields

    def outcomes(self, row: Row, answer: str) -> tuple[str, str]:
        base, plus = score_mbpp_plus(row, answer, limits=QUICK)
        return base.outcome, plus.outcome

    @pytest.mark.parametrize(
        ("answer", "expected"),
        [
            ("def f(x): return x / 3", ("pass", "pass")),
            ("def f(x): return x * 0.3333333333", ("pass", "pass")),  # within 1e-6
            ("def f(x): return x // 3", ("pass", "wrong")),
            ("def f(x): return x", ("wrong", "wrong")),
            ("def g(x): return x", ("exception", "exception")),
            ("", ("no-code", "no-code")),
            ("def f(x) return", ("syntax", "syntax")),
            ("class A(float):\n    __eq__ = lambda a, b: True\ndef f(x): return A(0)", ("wrong", "wrong")),
            ("class A:\n    __eq__ = lambda a, b: True\ndef f(x): return A()", ("wrong", "wrong")),
        ],
    )
    def test_base_and_added_inputs_are_told_apart(self, answer: str, expected: tuple[str, str]) -> None:
        assert self.outcomes(self.row(), answer) == expected

    def test_some_tasks_compare_as_sets_or_by_having_a_result(self) -> None:
        sets = self.row(2, canonical_solution="def f(x):\n    return (1, 2)", base_input=[[[]]], plus_input=[])
        assert self.outcomes(sets, "def f(x): return (2, 1)") == ("pass", "pass")
        assert self.outcomes(self.row(3) | sets | {"task_id": "Mbpp/3"}, "def f(x): return (2, 1)")[0] == "wrong"
        match = "import re\ndef f(x):\n    return re.match('a', x)"
        found = self.row(737, canonical_solution=match, base_input=[["a"], ["b"]], plus_input={})
        assert self.outcomes(found, match) == ("pass", "pass")
        assert self.outcomes(found, "def f(x): return x == 'a'") == ("pass", "pass")
        assert self.outcomes(found, "def f(x): return 1") == ("wrong", "wrong")

    def test_arguments_changed_in_place_do_not_reach_the_reference(self) -> None:
        row = self.row(canonical_solution="def f(x):\n    return sorted(x)", base_input=[[[2, 1]]], plus_input=[[[3]]])
        assert self.outcomes(row, "def f(x):\n    x.clear()\n    return [1, 2]") == ("pass", "wrong")


def test_what_json_lacks_is_put_back() -> None:
    assert restore(2, [[[1], [2]]]) == [[(1,), (2,)]]
    assert restore(63, [[[[1, 2], [3]]]]) == [[[(1, 2), (3,)]]]
    assert restore(75, [[[[1], [2]], 3]]) == [[[(1,), (2,)], 3]]
    assert restore(115, [[[[1, 1], [], {}]]]) == [[[{1}, {}, {}]]]
    assert restore(124, [["1", "2j"]]) == [[1.0, 2j]]
    assert restore(259, [[[[1], [2]], [[3]]]]) == [[((1,), (2,)), ((3,),)]]
    assert restore(278, [[[1, [2, 3]]]]) == [[(1, (2, 3))]]
    assert restore(615, [[[[1, 2], [3]]]]) == [[((1, 2), (3,))]]
    assert restore(722, [[{"a": [1, 2]}, 3]]) == [[{"a": (1, 2)}, 3]]
    assert restore(9, [[[1]]]) == [[[1]]]


PLUS_TEST = """
import numpy as np

def is_floats(x):
    return isinstance(x, (float, np.float32)) or isinstance(x, np.ndarray)

def assertion(out, exp, atol):
    exact = out == exp
    if atol == 0 and is_floats(exp): atol = 1e-6
    if not exact and atol != 0:
        assert np.allclose(out, exp, rtol=1e-07, atol=atol)
    else:
        assert exact

def check(candidate):
    for inp, exp in zip([[4], [9]], [2.0, 3.0]):
        assertion(candidate(*inp), exp, 0)
"""


@needs_sandbox
@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        ("    return x ** 0.5\n", "pass"),
        ("    return x ** 0.5 + 1e-8\n", "pass"),
        ("    return x ** 0.5 + 1e-3\n", "wrong"),
        ("    import numpy\n    return 2.0\n", "exception"),
        ("", "no-code"),
    ],
)
def test_humaneval_plus_compares_floats_without_numpy(answer: str, outcome: str) -> None:
    prompt = 'def root(x):\n    """The square root."""\n'
    row = {"prompt": prompt, "entry_point": "root", "test": PLUS_TEST, "canonical_solution": "    return x ** 0.5\n"}
    assert score_humaneval_plus(row, answer, limits=QUICK).outcome == outcome


class TestCruxeval:
    def test_gold_outputs_pass(self, mirror: Path) -> None:
        every = rows(mirror, "cruxeval")
        verdicts = [score_output(row["output"], f"assert f({row['input']}) == {row['output']}\n") for row in every]
        assert sum(verdict.passed for verdict in verdicts) == 800

    @needs_sandbox
    def test_gold_inputs_pass_but_for_those_that_are_no_literals(self, mirror: Path) -> None:
        every = rows(mirror, "cruxeval")
        chosen = [
            r for n, r in enumerate(every) if n % 20 == 0 or r["id"] in ("sample_152", "sample_378", "sample_522")
        ]
        verdicts = judged(lambda r: score_input(r["code"], r["output"], f"assert f({r['input']}) == 0"), chosen)
        failed = {r["id"]: verdict for r, verdict in zip(chosen, verdicts, strict=True) if not verdict.passed}
        assert list(failed) == ["sample_152", "sample_720"]  # calls, which are not run
        assert {verdict.outcome for verdict in failed.values()} == {"syntax"}

    @pytest.mark.parametrize(
        ("answer", "outcome"),
        [
            ("assert f([1]) == [1, 'a']", "pass"),
            ("[1, 'a']", "pass"),
            (" [1, 'a']\n\nThis is since f appends.", "pass"),
            ("[ANSWER]\nassert f(0) == [1, 'a']\n[/ANSWER]", "pass"),
            ("assert f(0) == [1, 'b']", "wrong"),
            ("assert f(0) == list((1, 'a'))", "syntax"),
            ("assert f(0) == [1] + ['a']", "syntax"),
            ("assert f(0) == x", "syntax"),
            ("assert f(0) != [1, 'a']", "syntax"),
            ("assert f(0) == 1 == 1", "syntax"),
            ("__import__('os').system('true')", "syntax"),
            ("", "no-code"),
        ],
    )
    def test_outputs_are_read_and_never_run(self, answer: str, outcome: str) -> None:
        assert score_output("[1, 'a']", answer).outcome == outcome

    @needs_sandbox
    @pytest.mark.parametrize(
        ("answer", "outcome"),
        [
            ("assert f([1, 2], extra=3) == 6", "pass"),
            ("f([6])", "pass"),
            ("[6]", "pass"),
            ("[1, 2], 3", "pass"),
            ("[1, 2], extra=3", "pass"),
            ("assert f(range(4)) == 6", "pass"),
            ("assert f([1]) == 1", "wrong"),
            ("assert f(1) == 6", "exception"),
            ("assert f([10 ** 9]) == 6", "syntax"),
            ("assert f(**{'x': [6]}) == 6", "syntax"),
            ("assert f(print('x')) == 6", "syntax"),
            ("assert g([6]) == 6", "syntax"),
            ("", "no-code"),
        ],
    )
    def test_inputs_are_given_to_the_data_sets_own_function(self, answer: str, outcome: str) -> None:
        code = "def f(x, extra=0):\n    return sum(x) + extra"
        assert score_input(code, "6", answer, limits=QUICK).outcome == outcome


@needs_sandbox
@pytest.mark.parametrize("name", BAD)
def test_bad_answers_get_a_verdict_and_a_reason(name: str) -> None:
    plus = TestMbppPlus().row()
    verdicts = [
        mbpp.score_mbpp(ROW, BAD[name], limits=QUICK),
        *score_mbpp_plus(plus, BAD[name], limits=QUICK),
        score_output("[1]", BAD[name]),
        score_input("def f(x): return x", "[1]", BAD[name], limits=QUICK),
    ]
    assert all(verdict.outcome not in ("pass", "sandbox-error") and verdict.detail for verdict in verdicts), verdicts


def test_pass_at_k_is_the_mean_over_all_choices_of_k() -> None:
    assert [pass_at_k(5, c, 1) for c in range(6)] == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])
    assert pass_at_k(20, 1, 10) == pytest.approx(0.5)
    assert pass_at_k(10, 3, 4) == pytest.approx(1 - comb(7, 4) / comb(10, 4))
    assert pass_at_k(10, 7, 4) == 1.0
    with pytest.raises(ValueError, match="at least 10"):
        pass_at_k(9, 1, 10)


def test_several_verdicts_are_told_as_one() -> None:
    passed, wrong, slow = Verdict("pass"), Verdict("wrong", "no"), Verdict("timeout", "late")
    assert summary([passed, passed]).passed
    assert summary([passed, wrong, slow, wrong]) == Verdict("wrong", "1 of 4 pass; no")


@needs_sandbox
def test_many_answers_give_pass_at_1_and_pass_at_10() -> None:
    row = {
        "prompt": 'def f(x):\n    """Two."""\n',
        "entry_point": "f",
        "test": "def check(c): assert c(1) == 2\n",
        "canonical_solution": "    return 2\n",
    }
    scored = scorers.humaneval_many(row, [["    return 2\n"] * 2 + ["    return 3\n"] * 10])
    assert scored["pass@1"] == pytest.approx(2 / 12)
    assert scored["pass@10"] == pytest.approx(1 - comb(10, 10) / comb(12, 10))
    assert (scored["outcome"], scored["why"].split(";")[0]) == ("wrong", "2 of 12 pass")


@needs_sandbox
def test_a_data_set_that_cannot_run_is_never_a_wrong_answer() -> None:
    with pytest.raises(StepFailed):
        scorers.mbpp({"code": "def f(): pass", "test_list": ["assert f(object()) == 1"]}, ["def f(x): return 1"])
