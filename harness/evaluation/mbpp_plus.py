"""MBPP+: a program compared with the reference over many more inputs, in the sandbox.

The edition of 399 tasks (EvalPlus, November 2023), whose rows hold inputs and a reference instead of assertions. The
reference runs in the checker's process, so no expected value is ever where the program could see it.

The rules are EvalPlus's (Liu et al. 2023, arXiv 2305.01210; evalplus/eval): tuples, sets and complex numbers, which
JSON lacks, are put back by task; eight tasks compare as sets; three compare only whether there is a result (their
references return match objects); numbers are compared within the row's tolerance, or 1e-6 where the reference returns
floats.
Differs from it in that tasks 164, 558 and 581 have one right answer, the reference's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from harness.evaluation.code import find_program
from harness.evaluation.sandbox import Limits, Trial, judge
from harness.evaluation.verdict import Verdict

AS_SETS = (2, 7, 111, 140, 232, 249, 579, 769)
ANY_RESULT = (737, 787, 794)
OR_ZERO = (295,)

_COMPARE = """
import copy
from math import inf, isclose, nan

def all_close(expected, got, tolerance):
    if isinstance(expected, (list, tuple)):
        return len(got) == len(expected) and all(all_close(e, g, tolerance) for e, g in zip(expected, got))
    return isclose(got, expected, rel_tol=1e-7, abs_tol=tolerance) or (expected != expected and got != got)

def floats(value):
    return isinstance(value, float) or (
        isinstance(value, (list, tuple)) and len(value) > 0 and all(isinstance(item, float) for item in value))

def same(expected, got, how, tolerance):
    if how == "as sets":
        return set(expected) == set(got)
    if how == "any result":
        return (expected is not None) == (got if isinstance(got, bool) else got is not None)
    if got == expected or (how == "or zero" and got == 0):
        return True
    tolerance = tolerance or (1e-6 if floats(expected) else 0)
    return bool(tolerance) and type(got) is type(expected) and all_close(expected, got, tolerance)

for number, given in enumerate(inputs):
    expected = expect(*copy.deepcopy(given))
    got = tested(*copy.deepcopy(given))
    assert same(expected, got, how, tolerance), f"input {number}"
"""


def score_mbpp_plus(doc: Mapping[str, Any], answer: str, *, limits: Limits | None = None) -> tuple[Verdict, Verdict]:
    """(verdict on MBPP's own inputs, verdict on these and the added ones). Outcomes as `code.score_humaneval`."""
    name = doc["entry_point"]
    program = find_program(answer, (name,))
    if program is None:
        nothing = Verdict("no-code", "the answer holds no code")
        return nothing, nothing

    def run(inputs: list[Any]) -> Verdict:
        reference = doc["canonical_solution"]
        return judge(Trial(program, (name,), _preamble(doc, inputs), f"tested = {name}\n{_COMPARE}", reference), limits)

    base = run(restore(_number(doc), doc["base_input"]))
    more = restore(_number(doc), doc["plus_input"] or [])  # one row has an empty mapping here
    return base, run(more) if base.passed and more else base


def _preamble(doc: Mapping[str, Any], inputs: list[Any]) -> str:
    number = _number(doc)
    rules = {"as sets": AS_SETS, "any result": ANY_RESULT, "or zero": OR_ZERO}
    how = next((rule for rule, numbers in rules.items() if number in numbers), "")
    return (
        f"from math import inf, nan\n{doc['canonical_solution']}\nexpect = {doc['entry_point']}\n"
        f"inputs = {inputs!r}\nhow = {how!r}\ntolerance = {float(doc['atol'])!r}\n"
    )


def _number(doc: Mapping[str, Any]) -> int:
    return int(doc["task_id"].rpartition("/")[2])


def restore(number: int, inputs: list[Any]) -> list[Any]:
    """The inputs of a task as they were before JSON; each is the list of one call's arguments."""
    change = _CHANGES.get(number)
    return [change(given) for given in inputs] if change else inputs


def _tuples(depth: int) -> Callable[[Any], Any]:
    """Lists at this depth, and no others, become tuples; at depth 0 the value itself."""

    def change(value: Any) -> Any:
        if depth == 0:
            return tuple(value) if isinstance(value, list) else value
        return [_tuples(depth - 1)(item) for item in value] if isinstance(value, list) else value

    return change


def _all_tuples(value: Any) -> Any:
    return tuple(_all_tuples(item) for item in value) if isinstance(value, list) else value


def _first(change: Callable[[Any], Any]) -> Callable[[list[Any]], list[Any]]:
    """Changes the first argument only."""
    return lambda given: [change(given[0]), *given[1:]]


def _two_levels(given: list[Any]) -> list[Any]:
    return [tuple(_tuples(1)(argument)) if isinstance(argument, list) else argument for argument in given]


_CHANGES: dict[int, Callable[[list[Any]], list[Any]]] = {
    106: lambda given: [given[0], tuple(given[1])],
    115: _first(lambda items: [set(x) if isinstance(x, list) and x else {} for x in items]),
    124: lambda given: [float(given[0]), complex(given[1])],
    252: _first(complex),
    722: _first(lambda rows: {key: tuple(value) for key, value in rows.items()}),
    750: lambda given: [given[0], tuple(given[1])],
}
for _change, _numbers in (
    (_tuples(1), "2 116 132 143 222 261 273 394 399 421 424 429 470 560 579 596 616 630 726 740 744 809"),
    (_tuples(2), "63 64 70 94 120 237 272 299 400 409 417 438 473 614 780"),
    (_first(_tuples(1)), "75 413 444 753"),
    (_first(_tuples(0)), "250 307 405 446 617 720 763 808"),
    (_two_levels, "259 278 401 445"),
    (lambda given: [_all_tuples(argument) for argument in given], "580 615 791"),
):
    _CHANGES |= dict.fromkeys(map(int, _numbers.split()), _change)
