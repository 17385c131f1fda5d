"""The arithmetic of confidence-based curation: how sure a model is of an answer, and what follows for its row.

Plain numbers and texts only; nothing here asks a model. All confidences lie in 0 to 1.
"""

from __future__ import annotations

import math
import re
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

from harness.errors import HarnessError

Action = Literal["keep", "replace", "drop"]


def agreement(forth: float, back: float) -> float:
    """s of two texts, from the probability that they contradict each other, in either order."""
    return 1 - 0.5 * (forth + back)


def observed(similar: Sequence[float], equal: Sequence[bool], alpha: float) -> float | None:
    """O: mean over samples of alpha s + (1 - alpha) r. None where there is no sample."""
    each = [alpha * s + (1 - alpha) * r for s, r in zip(similar, equal, strict=True)]
    return sum(each) / len(each) if each else None


def confidence(seen: float, said: float, beta: float) -> float:
    """C = beta O + (1 - beta) S."""
    return beta * seen + (1 - beta) * said


def expected(logprobs: Sequence[float], values: Sequence[float]) -> float:
    """Mean of the values under the probabilities of some choices, which are made to sum to one."""
    top = max(logprobs)
    weights = [math.exp(p - top) for p in logprobs]
    return sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)


def token_f1(one: str, other: str) -> float:
    """Harmonic mean of precision and recall of words and marks, letter case aside. Two empty texts agree."""
    a, b = (Counter(re.findall(r"\w+|[^\w\s]", text.casefold())) for text in (one, other))
    if not a and not b:
        return 1.0
    return 2 * (a & b).total() / (a.total() + b.total())


def with_median(confidences: Mapping[str, float | None]) -> dict[str, float]:
    """A confidence for every row: the median of all where a row has none. HarnessError if no row has one."""
    known = [c for c in confidences.values() if c is not None]
    if not known:
        raise HarnessError(
            "not one sampled answer could be read, so no row has a confidence",
            todo="set `reason: false` if the model does not write `Answer:`, or raise `new_tokens`",
        )
    middle = statistics.median(known)
    return {row: middle if c is None else c for row, c in confidences.items()}


def kept(confidences: Mapping[str, float], gamma: float | str, tie_rule: str) -> set[str]:
    """The ids that stay: those above gamma, a number or "median".

    tie_rule, for the median: "strict" keeps what is above it; "half" the ceil(n / 2) highest, of equal ones the
    smaller id, since scores are coarse and a strict test may leave next to nothing.
    """
    if gamma == "median" and tie_rule == "half":
        order = sorted(confidences, key=lambda row: (-confidences[row], row))
        return set(order[: math.ceil(len(order) / 2)])
    least = statistics.median(confidences.values()) if gamma == "median" else float(gamma)
    return {row for row, c in confidences.items() if c > least}


def action(stays: bool, better: float | None, eta: float) -> Action:
    """What becomes of a row. better: confidence that its new answer is the better one, None where there is none.

    Replaced above eta, never at it: a mean of grades hits 0.8 exactly, and may miss it by an error of arithmetic.
    """
    if better is not None and round(better, 9) > eta:
        return "replace"
    return "keep" if stays else "drop"
