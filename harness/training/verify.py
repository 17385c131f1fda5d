"""Verifiable rewards: what an answer to a training row scores, by the scorers of the suites themselves.

How a row is checked stands in its column `checker`, or follows from what it has. Loads nothing heavy, so that planning
can ask whether rows can be checked at all.

    math    the answer after the last `####` of the row's solution, else in its last box; equal as text or in meaning
    code    `test_list` and `code`, as MBPP's rows: a program that passes the assertions, in the sandbox
    program `prompt`, `test`, `entry_point` and `canonical_solution`, as HumanEval's rows, in the sandbox
    call    `function` and `ground_truth`, as BFCL's rows: calls written as Python, by BFCL's rules
    follow  `instruction_id_list` and `kwargs`, as IFEval's rows: every instruction followed, strictly
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from harness.errors import HarnessError, nearest
from harness.evaluation.instructions import process_results
from harness.evaluation.math_answers import boxed, plain, stated
from harness.evaluation.scorers import code, math, tool_use
from harness.machine import cores
from harness.methods.base import Row

NEEDS: Mapping[str, tuple[str, ...]] = {
    "code": ("test_list", "code"),
    "program": ("prompt", "test", "entry_point", "canonical_solution"),
    "call": ("function", "ground_truth"),
    "follow": ("instruction_id_list", "kwargs"),
}
PROGRAMS = ("code", "program")  # checked by running what was said


def checker(row: Row) -> str:
    """The name of what checks answers to a row. HarnessError if nothing does."""
    named = row.get("checker")
    if named is not None:
        if named not in (*NEEDS, "math"):
            raise HarnessError(f"no checker is called `{named}`", todo=nearest(str(named), [*NEEDS, "math"]))
        missing = [name for name in NEEDS.get(named, ()) if name not in row]
        if missing or (named == "math" and not gold(row)):
            what = ", ".join(f"`{name}`" for name in missing) or "an answer after `####` or in a box"
            raise HarnessError(f"the checker `{named}` needs {what}, which the row {row.get('id', '?')} does not have")
        return str(named)
    found = next((name for name, needs in NEEDS.items() if all(n in row for n in needs)), "math" if gold(row) else "")
    if not found:
        raise HarnessError(
            f"nothing tells whether an answer to the row {row.get('id', '?')} is right",
            why="its solution has no `####` and no box, and it has no tests, no expected calls and no instructions",
            todo="take data with verifiable answers, or a method that brings its own `reward`",
        )
    return found


def gold(row: Row) -> str:
    """The answer that a row's own solution ends with; "" where it names none."""
    messages = row.get("messages", row.get("chosen")) or ()
    for solution in (str(messages[-1]["content"]) if messages else "", str(row.get("answer", ""))):
        if "####" in solution:
            return solution.rpartition("####")[2].strip()
        if found := boxed(solution):
            return found
    return ""


def score(row: Row, text: str) -> float:
    """1.0 for a right answer, 0.0 for any other. StepFailed if the sandbox does not work here."""
    return _CHECKS[checker(row)](row, text)


def scores(rows: Sequence[Row], texts: Sequence[str]) -> list[float]:
    """`score` of each. Programs run side by side, and what was said twice about a row is checked once."""
    asked = {(row["id"], text): row for row, text in zip(rows, texts, strict=True)}
    found = {key: score(row, key[1]) for key, row in asked.items() if checker(row) not in PROGRAMS}
    run = [(key, row) for key, row in asked.items() if key not in found]
    with ThreadPoolExecutor(max(1, int(cores()))) as pool:
        found |= zip([key for key, _ in run], pool.map(lambda one: score(one[1], one[0][1]), run), strict=True)
    return [found[row["id"], text] for row, text in zip(rows, texts, strict=True)]


def _math(row: Row, text: str) -> float:
    right, said = gold(row), stated(text)
    if said and plain(said) == plain(right):
        return 1.0
    return float(math.math500({"answer": right}, [said])["math_verify"])


def _follows(row: Row, text: str) -> float:
    asked = row.get("prompt") or next(m["content"] for m in row["messages"] if m["role"] == "user")
    checked = process_results({"key": row["id"], "prompt": asked, **row}, [text])
    return float(checked["prompt_level_strict_acc"])


_CHECKS: Mapping[str, Callable[[Row, str], float]] = {
    "math": _math,
    "code": lambda row, text: _passes(code.mbpp(row, [text])),
    "program": lambda row, text: _passes(code.humaneval(row, [text])),
    "call": lambda row, text: float(tool_use.simple_call(row, [text])["acc"]),
    "follow": _follows,
}


def _passes(said: Mapping[str, Any]) -> float:
    return float(said["pass@1"])
