"""HumanEval+: HumanEval's prompts with EvalPlus's tests (Liu et al. 2023, arXiv 2305.01210), as published on the hub.

Each row's test is a `check` function that uses a little of numpy to compare floats. The sandbox holds the standard
library only, so the checker gets a module of that name with what such a test asks of it.

Does not hold the tests of other data sets; what they ask of numpy beyond this ends as `sandbox-error` or `wrong`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.evaluation.code import build_program
from harness.evaluation.sandbox import Limits, Trial, judge
from harness.evaluation.verdict import Verdict

_NUMPY = """
import math, sys, types

def allclose(got, expected, rtol=1e-05, atol=1e-08):
    if isinstance(expected, (list, tuple)):
        return isinstance(got, (list, tuple)) and len(got) == len(expected) and all(
            allclose(g, e, rtol, atol) for g, e in zip(got, expected))
    return got == expected or abs(got - expected) <= atol + rtol * abs(expected)

numpy = types.ModuleType("numpy")
numpy.allclose = allclose
numpy.ndarray = numpy.float64 = numpy.float32 = type("Absent", (), {})
sys.modules["numpy"] = numpy
"""


def score_humaneval_plus(doc: Mapping[str, Any], completion: str, *, limits: Limits | None = None) -> Verdict:
    """Outcomes as `code.score_humaneval`."""
    prompt, name = doc["prompt"], doc["entry_point"]
    program = build_program(prompt, completion, name)
    if program is None:
        return Verdict("no-code", "the answer holds no code")
    test = f"{doc['test']}\ncheck({name})\n"
    return judge(Trial(program, (name,), _NUMPY + prompt, test, prompt + doc["canonical_solution"]), limits)
