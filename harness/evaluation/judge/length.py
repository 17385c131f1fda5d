"""The length-controlled win rate: what a system would win if its answers were as long as the reference's.

The idea is AlpacaEval 2's (Dubois et al. 2024, arXiv 2404.04475): a logistic regression explains each comparison by how
good the system is and by how much longer its answer is, and is then asked for no difference in length. Theirs is fitted
over many systems at once and has a third term, the difficulty of each instruction; that cannot be told from one
system, so it is not here, and the two numbers are not the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import pstdev

PRIOR = 2.5  # standard deviation of a normal prior on the length coefficient; it keeps a fit to few items finite


def length_controlled(scores: Sequence[float], ours: Sequence[int], theirs: Sequence[int]) -> float:
    """The win rate at equal length, 0 to 1.

    scores: of each comparison, in [0, 1].  ours, theirs: lengths of the two answers, in characters.
    Scores that are all the same, and answers that all differ by the same length, leave nothing to correct.
    """
    differences = [a - b for a, b in zip(ours, theirs, strict=True)]
    spread = pstdev(differences)
    raw = sum(scores) / len(scores)
    if spread == 0 or min(scores) == max(scores):
        return raw
    quality, _ = fit(scores, [math.tanh(d / spread) for d in differences])
    return 1 / (1 + math.exp(-quality))


def fit(scores: Sequence[float], lengths: Sequence[float]) -> tuple[float, float]:
    """(quality, length coefficient) of the logistic regression of scores in [0, 1], not all equal, on lengths.

    The mode of its likelihood with the prior; the problem is convex, so there is one.
    """
    import numpy as np
    from scipy.optimize import minimize
    from scipy.special import expit

    y, x = np.asarray(scores, float), np.asarray(lengths, float)

    def loss(at: np.ndarray) -> tuple[float, np.ndarray]:
        logits = at[0] + at[1] * x
        error = expit(logits) - y
        value = np.logaddexp(0, logits).sum() - y @ logits + (at[1] / PRIOR) ** 2 / 2
        return float(value) / y.size, np.array([error.sum(), error @ x + at[1] / PRIOR**2]) / y.size

    quality, length = minimize(loss, np.zeros(2), jac=True, method="BFGS", options={"gtol": 1e-8}).x
    return float(quality), float(length)
