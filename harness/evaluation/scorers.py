"""What the task files under suites/tasks/ call: lm-eval's `process_docs` and `process_results`, on top of our scorers.

`process_results(doc, [answer])` returns a value for each metric of the file. A metric called `outcome` is the scorer's
word for what happened; it is shown with the sample and never aggregated into a number.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from harness.errors import StepFailed
from harness.evaluation.code import score_humaneval
from harness.evaluation.tool_calls import check_simple, prompt_messages
from harness.evaluation.verdict import Verdict

Doc = Mapping[str, Any]


def no_number(outcomes: Sequence[str]) -> float:
    """The aggregation of `outcome`: none."""
    return float("nan")


def humaneval(doc: Doc, results: Sequence[str]) -> dict[str, Any]:
    """Runs the prompt with one completion and the problem's tests in the sandbox: `pass@1`."""
    return _scores("pass@1", score_humaneval(doc["prompt"], results[0], doc["test"], doc["entry_point"]))


def show_functions(docs: Any) -> Any:
    """Adds the columns `system` (with the function documents) and `request` (the user's words) to BFCL rows."""
    shown = []
    for doc in docs:
        system, user = prompt_messages(doc["question"], doc["function"])
        shown.append({**doc, "system": system["content"], "request": user["content"]})
    return type(docs)(shown)


def simple_call(doc: Doc, results: Sequence[str]) -> dict[str, Any]:
    """BFCL's rules for a single call of a single function: `acc`."""
    return _scores("acc", check_simple(doc["function"], doc["ground_truth"], results[0]))


def simple_call_target(doc: Doc) -> str:
    """The accepted values of each parameter, as JSON."""
    return json.dumps(doc["ground_truth"][0], ensure_ascii=False)


def _scores(metric: str, verdict: Verdict) -> dict[str, Any]:
    """StepFailed where the sandbox itself failed: that says nothing about the answer, so it must not count as wrong."""
    if verdict.outcome == "sandbox-error":
        raise StepFailed(
            "the code sandbox does not work here", kind="user", why=verdict.detail, todo="see `harness doctor`"
        )
    return {metric: float(verdict.passed), "outcome": verdict.outcome}
