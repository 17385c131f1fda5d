"""Scorers of the math suite: an answer is extracted by a filter, then compared with the gold answer.

Each task has two filters: `strict` takes only the form that was asked for, `flexible` what a reader would take for the
answer. Both give `exact_match` (equal as text, after removing what is only form) and most give `math_verify` (equal as
mathematics). A gap between the two filters is the format's part of a score.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from harness.evaluation.math_answers import (
    as_latex,
    boxed,
    letter,
    near,
    plain,
    stated,
    stated_letter,
)
from harness.evaluation.symbolic import compare
from harness.evaluation.verdict import Verdict

Doc = Mapping[str, Any]
PAL_TOLERANCE = 1e-3  # of GSM-Hard's own evaluation (Gao et al. 2023), absolute


def _each(extract: Callable[[str], str], answers: Sequence[Sequence[str]], docs: Any = None) -> list[list[str]]:
    return [[extract(answer) for answer in repeats] for repeats in answers]


in_box = functools.partial(_each, boxed)
as_stated = functools.partial(_each, stated)
letter_in_box = functools.partial(_each, lambda answer: letter(boxed(answer)))
letter_as_stated = functools.partial(_each, stated_letter)


def gsm8k(doc: Doc, results: Sequence[str]) -> dict[str, Any]:
    """The number after the gold solution's `####`."""
    return _symbolic(gold_gsm8k(doc), results[0])


def math500(doc: Doc, results: Sequence[str]) -> dict[str, Any]:
    """The row's `answer`."""
    return _symbolic(doc["answer"], results[0])


def ocw_stem(doc: Doc, results: Sequence[str]) -> dict[str, Any]:
    """What the gold solution's box holds. No tolerance: an answer rounded otherwise than the gold one is wrong."""
    return _symbolic(gold_ocw_stem(doc), results[0])


def olympiadbench(doc: Doc, results: Sequence[str]) -> dict[str, Any]:
    """All of `final_answer`, in any order; a number within the row's `error`, where it has one."""
    gold = gold_olympiadbench(doc)
    scores = _symbolic(gold, results[0])
    if doc["error"] and near(gold, results[0], float(doc["error"])):
        return {**scores, "math_verify": 1.0, "outcome": "right", "why": f"within {doc['error']}"}
    return scores


def asdiv(doc: Doc, results: Sequence[str]) -> dict[str, Any]:
    """The row's answer without the unit in parentheses: a number, a name, a time or a ratio."""
    return _exact(gold_asdiv(doc), results[0])


def gsm_hard(doc: Doc, results: Sequence[str]) -> dict[str, Any]:
    """The row's `target`, within the tolerance of the data set's own evaluation."""
    right = near(str(doc["target"]), results[0], PAL_TOLERANCE)
    return {"number_match": float(right), **_words(right, results[0], f"not {doc['target']}")}


def aqua(doc: Doc, results: Sequence[str]) -> dict[str, Any]:
    """The letter of the right option."""
    return _exact(doc["correct"], results[0])


def gold_gsm8k(doc: Doc) -> str:
    return str(doc["answer"].rpartition("####")[2].strip())


def gold_ocw_stem(doc: Doc) -> str:
    return boxed(doc["solution"])


def gold_olympiadbench(doc: Doc) -> str:
    return ", ".join(doc["final_answer"]).replace("$", "")


def gold_asdiv(doc: Doc) -> str:
    return str(doc["answer"].partition(" (")[0].strip())


def aqua_question(doc: Doc) -> str:
    """The question, its options, one a line, and what to answer with."""
    options = [f"({option[0]}) {option[2:].strip()}" for option in doc["options"]]
    ask = "Reason step by step, and put the letter of the right option within \\boxed{}."
    return "\n".join([doc["question"], *options, "", ask])


def aqua_correct(doc: Doc) -> int:
    """The number of the right option."""
    return "ABCDE".index(doc["correct"])


def _exact(gold: str, answer: str) -> dict[str, Any]:
    right = bool(answer) and plain(gold) == plain(answer)
    return {"exact_match": float(right), **_words(right, answer, f"not {gold}")}


def _symbolic(gold: str, answer: str) -> dict[str, Any]:
    exact = bool(answer) and plain(gold) == plain(answer)
    verdict = compare(as_latex(gold), as_latex(answer)) if answer else Verdict("wrong")
    why = verdict.detail if verdict.outcome != "wrong" else f"not equal to {gold}"
    return {
        "exact_match": float(exact),
        "math_verify": float(verdict.passed),
        **_words(verdict.passed, answer, why, verdict.outcome),
    }


def _words(right: bool, answer: str, why: str, outcome: str = "wrong") -> dict[str, str]:
    if right:
        return {"outcome": "right", "why": ""}
    if not answer:
        return {"outcome": "no-answer", "why": "no answer in the form that was asked for"}
    return {"outcome": outcome, "why": why}
