"""What the task files under suites/tasks/ call: lm-eval's `process_docs` and `process_results`, one module a suite.

`process_results(doc, results)` returns a value for each metric of the file. `results` holds one answer, or, in a task
with repeats, one list of answers. A metric called `outcome` is the scorer's word for what happened and `why` its
sentence; both are shown with the sample and never aggregated into a number.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.errors import StepFailed
from harness.evaluation.verdict import Verdict


def no_number(outcomes: Sequence[str]) -> float:
    """The aggregation of `outcome` and `why`: none."""
    return float("nan")


def scores(metric: str, verdict: Verdict) -> dict[str, Any]:
    """One verdict as a metric of 0 or 1, with its outcome and reason.

    StepFailed where the sandbox itself failed: that says nothing about the answer, so it must not count as wrong.
    """
    if verdict.outcome == "sandbox-error":
        raise StepFailed(
            "the code sandbox does not work here", kind="user", why=verdict.detail, todo="see `harness doctor`"
        )
    return {metric: float(verdict.passed), "outcome": verdict.outcome, "why": verdict.detail}
