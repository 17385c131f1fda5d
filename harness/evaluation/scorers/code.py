"""Scorers of the code suite: answers are run in the sandbox.

`results[0]` is one answer, or the list of answers in a task with repeats. `pass@1` is the mean over the answers, and
`pass@10` the unbiased estimate from them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from harness.evaluation.code import score_humaneval
from harness.evaluation.cruxeval import score_input, score_output
from harness.evaluation.humaneval_plus import score_humaneval_plus
from harness.evaluation.mbpp import score_mbpp
from harness.evaluation.mbpp_plus import score_mbpp_plus
from harness.evaluation.pass_at_k import pass_at_k, summary
from harness.evaluation.scorers import scores
from harness.evaluation.verdict import Verdict

Doc = Mapping[str, Any]
SHOTS = (2, 3, 4)  # task ids of MBPP's three worked examples (Austin et al. 2021)


def humaneval(doc: Doc, results: Sequence[Any]) -> dict[str, Any]:
    """Runs the prompt with a completion and the problem's tests in the sandbox: `pass@1`."""
    return _pass_at(results, (1,), lambda answer: _humaneval(doc, answer))


def humaneval_many(doc: Doc, results: Sequence[Any]) -> dict[str, Any]:
    """`humaneval` over at least ten answers to each problem: `pass@1`, `pass@10`."""
    return _pass_at(results, (1, 10), lambda answer: _humaneval(doc, answer))


def humaneval_plus(doc: Doc, results: Sequence[Any]) -> dict[str, Any]:
    """`humaneval` with EvalPlus's inputs: `pass@1`."""
    return _pass_at(results, (1,), lambda answer: score_humaneval_plus(doc, answer))


def mbpp(doc: Doc, results: Sequence[Any]) -> dict[str, Any]:
    """Runs a program and the row's assertions in the sandbox: `pass@1`."""
    return _pass_at(results, (1,), lambda answer: score_mbpp(doc, answer))


def mbpp_plus(doc: Doc, results: Sequence[Any]) -> dict[str, Any]:
    """`pass@1` over all inputs, `base` over MBPP's own."""
    base, plus = score_mbpp_plus(doc, results[0])
    return {**scores("pass@1", plus), "base": float(base.passed)}


def cruxeval_output(doc: Doc, results: Sequence[Any]) -> dict[str, Any]:
    """Compares literals, runs nothing: `pass@1`."""
    return _pass_at(results, (1,), lambda answer: score_output(doc["output"], answer))


def cruxeval_input(doc: Doc, results: Sequence[Any]) -> dict[str, Any]:
    """Runs the row's function on the answer's arguments in the sandbox: `pass@1`."""
    return _pass_at(results, (1,), lambda answer: score_input(doc["code"], doc["output"], answer))


def mbpp_shots(docs: Any) -> Any:
    """Of the prompt split, the three rows that the published prompt shows."""
    return type(docs)([doc for doc in docs if doc["task_id"] in SHOTS])


def mbpp_plus_question(docs: Any) -> Any:
    """Adds the columns `text`, the task in words, and `first_test`, the first assertion."""
    told = []
    for doc in docs:
        first = doc["assertion"].strip().partition("\nassert ")[0]
        told.append({**doc, "text": doc["prompt"].strip().strip("'\"").strip(), "first_test": first})
    return type(docs)(told)


def _humaneval(doc: Doc, answer: str) -> Verdict:
    reference = doc["canonical_solution"]
    return score_humaneval(doc["prompt"], answer, doc["test"], doc["entry_point"], reference=reference)


def _pass_at(results: Sequence[Any], ks: Sequence[int], judged: Callable[[str], Verdict]) -> dict[str, Any]:
    """The estimate for each k over the answers to one question; equal answers are judged once."""
    answers = results[0] if isinstance(results[0], list) else [results[0]]
    known = {answer: judged(answer) for answer in dict.fromkeys(answers)}
    verdicts = [known[answer] for answer in answers]
    broken = next((verdict for verdict in verdicts if verdict.outcome == "sandbox-error"), None)
    said = scores("pass@1", broken or summary(verdicts))
    right = sum(verdict.passed for verdict in verdicts)
    return {**said, **{f"pass@{k}": pass_at_k(len(answers), right, k) for k in ks}}
