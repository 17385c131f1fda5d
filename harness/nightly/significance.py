"""The tests that the gates decide by: one-sided crossed test, exact McNemar, bounds on flips, Student on past nights.

Each takes plain numbers and returns a p-value or a bound. What they are applied to is the gates' business.
"""

from __future__ import annotations

from collections.abc import Sequence

from harness.results.stats import Estimate


def below(estimate: Estimate) -> float | None:
    """One-sided p of a difference: small where it is surely below zero. None where nothing may rest on it."""
    if estimate.value is None or estimate.claim is None:
        return None
    return estimate.claim / 2 if estimate.value < 0 else 1 - estimate.claim / 2


def mcnemar_down(down: int, up: int) -> float:
    """One-sided exact p of so many items worse, of those that changed."""
    from scipy.stats import binom

    return float(binom.sf(down - 1, down + up, 0.5)) if down + up else 1.0


def too_many_flips(flips: int, n: int, seen: int, compared: int) -> float:
    """p of at least so many flips among n, where repeated runs saw `seen` among `compared`.

    Beta-binomial with Jeffreys' prior: the rate is itself only known from the repeated runs, and a plain binomial at
    their rate would call one flip after none a finding. What they showed counts half, since a run that differs from
    the one before it mostly differs from the one after it as well.
    """
    from scipy.stats import betabinom

    return float(betabinom.sf(flips - 1, n, seen / 2 + 0.5, (compared - seen) / 2 + 0.5)) if n else 1.0


def flip_bound(n: int, seen: int, compared: int, level: float = 0.99) -> int:
    """The number of flips among n that a healthy night does not exceed at this level."""
    from scipy.stats import betabinom

    return int(betabinom.ppf(level, n, seen / 2 + 0.5, (compared - seen) / 2 + 0.5))


def student_below(value: float, history: Sequence[float], floor: float) -> tuple[float, float, float]:
    """(p, mean, spread) of a value as low as this after so many before it. floor: the least spread."""
    import numpy as np
    from scipy.special import stdtr

    k, mean = len(history), float(np.mean(history))
    spread = max(float(np.std(history, ddof=1)), floor)
    return float(stdtr(k - 1, (value - mean) / (spread * (1 + 1 / k) ** 0.5))), mean, spread


def seeds_below(values: Sequence[float], level: Sequence[Sequence[float]], floor: float) -> float:
    """One-sided p of the mean of some seeds against all seeds of several nights: small where it is lower.

    Student's t; the spread between seeds is pooled within nights. floor: the least spread of one run.
    """
    import numpy as np
    from scipy.special import stdtr

    groups = [np.asarray(g) for g in (values, *level)]
    df = sum(len(g) - 1 for g in groups)
    if df < 1:
        return 1.0
    pooled = sum(float(((g - g.mean()) ** 2).sum()) for g in groups) / df
    past = np.concatenate(groups[1:])
    error = max(pooled**0.5, floor) * (1 / len(values) + 1 / len(past)) ** 0.5
    return float(stdtr(df, (float(np.mean(values)) - float(past.mean())) / error))
