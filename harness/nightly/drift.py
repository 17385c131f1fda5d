"""Slow drift: a result that sinks by too little a night for any one night to show it.

A one-sided CUSUM of standardised residuals (allowance 0.5, threshold 5), each night standardised by the nights before
it alone; and a piecewise-constant fit that says where a level ended. Both must see it. Nights that were missed are
simply not there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

ALLOWANCE, THRESHOLD = 0.5, 5.0
NIGHTS = 8  # at least, for a fit
HEAD = 3  # nights before the first residual


@dataclass(frozen=True)
class Drift:
    """start: the index of the first night of the lower level.  level: the mean before it, over `before` nights."""

    cusum: float
    start: int
    level: float
    before: int
    now: float


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


def step(values: Sequence[float], floor: float) -> tuple[int, float, float] | None:
    """(first index after it, mean before, mean after) of the best single step, where a step fits clearly better.

    Clearly: by more than a step and its place are worth (BIC); None otherwise, and below `NIGHTS` values.
    """
    import numpy as np

    n, y = len(values), np.asarray(values, dtype=float)
    if n < NIGHTS:
        return None

    def misfit(part: np.ndarray) -> float:
        return float(((part - part.mean()) ** 2).sum())

    least = n * floor**2 + 1e-12
    places = range(2, n - 1)
    at = min(places, key=lambda i: misfit(y[:i]) + misfit(y[i:]))
    gain = n * np.log(max(misfit(y), least) / max(misfit(y[:at]) + misfit(y[at:]), least))
    if gain <= 2 * np.log(n):
        return None
    return at, float(y[:at].mean()), float(y[at:].mean())


def drift(values: Sequence[float], floor: float) -> Drift | None:
    """Whether a series, the oldest night first, has drifted down by its last night."""
    if len(values) < NIGHTS:
        return None
    total = cusum(residuals(values, floor))
    if total <= THRESHOLD:
        return None
    found = step(values, floor)
    if found is None or found[2] >= found[1]:
        return None
    return Drift(total, found[0], found[1], found[0], found[2])
