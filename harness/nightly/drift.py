"""Slow drift: a result that sinks by too little a night for any one night to show it.

A one-sided CUSUM of standardised residuals (allowance 0.5, threshold 5), each night standardised by the nights before
it alone; and a piecewise-constant fit over eight nights at least that says where a level ended. Both must see it.
Nights that were missed are simply not there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

ALLOWANCE, THRESHOLD = 0.5, 5.0
NIGHTS = 8  # at least, for a fit
HEAD = 3  # nights before the first residual


@dataclass(frozen=True)
class Drift:
    """start: the index of the first night of the lower level.  level, now: the means before it and since.

    p: one-sided, of such a step at the best of all places.
    """

    cusum: float
    start: int
    level: float
    now: float
    p: float


def residuals(values: Sequence[float], floor: float) -> list[float]:
    """Each value as a normal deviate from those before it; the first `HEAD` have none."""
    import numpy as np
    from scipy.special import ndtri, stdtr

    found = []
    for number in range(HEAD, len(values)):
        past = np.asarray(values[:number])
        spread = max(float(past.std(ddof=1)), floor)
        t = (values[number] - float(past.mean())) / (spread * (1 + 1 / number) ** 0.5)
        found.append(float(np.clip(ndtri(stdtr(number - 1, t)), -6, 6)))
    return found


def cusum(deviates: Sequence[float]) -> float:
    """The one-sided sum at the last night: how far the series has sunk beyond the allowance."""
    total = 0.0
    for z in deviates:
        total = max(0.0, total - z - ALLOWANCE)
    return total


def step(values: Sequence[float], floor: float) -> tuple[int, float, float, float]:
    """(first index after it, mean before, mean after, one-sided p) of the best fit of two levels.

    The p is that of a t-test at this place times the number of places that were tried.
    """
    import numpy as np
    from scipy.special import stdtr

    n, y = len(values), np.asarray(values, dtype=float)

    def misfit(part: np.ndarray) -> float:
        return float(((part - part.mean()) ** 2).sum())

    places = range(2, n - 1)
    at = min(places, key=lambda i: misfit(y[:i]) + misfit(y[i:]))
    before, after = float(y[:at].mean()), float(y[at:].mean())
    spread = max(((misfit(y[:at]) + misfit(y[at:])) / (n - 2)) ** 0.5, floor)
    t = (after - before) / (spread * (1 / at + 1 / (n - at)) ** 0.5)
    return at, before, after, min(1.0, float(stdtr(n - 2, t)) * len(places))


def drift(values: Sequence[float], floor: float) -> Drift | None:
    """Whether a series, the oldest night first, has sunk by its last night; how sure that is, is in its p."""
    if len(values) < NIGHTS:
        return None
    total = cusum(residuals(values, floor))
    if total <= THRESHOLD:
        return None
    at, before, after, p = step(values, floor)
    return Drift(total, at, before, after, p) if after < before else None
