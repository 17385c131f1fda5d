"""The tests that the gates decide by: one-sided crossed test, corrections, exact McNemar, bounds on flips.

Each takes plain numbers and returns a p-value or a bound. What they are applied to is the gates' business.
"""

from __future__ import annotations

from collections.abc import Sequence

from harness.results.stats import Estimate


def standard_error(estimate: Estimate) -> tuple[float, float] | None:
    """(standard error, degrees of freedom) of a difference; None where it has no spread or one seed cannot tell."""
    spread = estimate.spread
    if spread is None or estimate.seeds < 2:
        return None
    terms = [(spread.items, spread.df), *((side.variance, len(side.scores) - 1) for side in spread.sides)]
    variance = sum(v for v, _ in terms)
    if variance == 0:
        return None
    return variance**0.5, variance**2 / sum(v**2 / d for v, d in terms if v > 0)


def below(estimate: Estimate, bound: float = 0.0) -> float | None:
    """One-sided p of a difference at or above `bound`: small where it is surely below."""
    from scipy.special import stdtr

    found = standard_error(estimate)
    if found is None or estimate.value is None:
        return None
    return float(stdtr(found[1], (estimate.value - bound) / found[0]))


def lower_bound(estimate: Estimate, level: float = 0.95) -> float | None:
    """The one-sided lower bound of a difference."""
    from scipy.special import stdtrit

    found = standard_error(estimate)
    if found is None or estimate.value is None:
        return None
    return estimate.value - float(stdtrit(found[1], level)) * found[0]


def detectable(estimate: Estimate) -> float | None:
    """The smallest true difference that a two-sided test at 5 % sees four times in five."""
    from scipy.special import stdtrit

    found = standard_error(estimate)
    return None if found is None else float(stdtrit(found[1], 0.975) + stdtrit(found[1], 0.8)) * found[0]


def q_values(ps: Sequence[float | None]) -> list[float | None]:
    """Benjamini-Hochberg over those that are no None."""
    from scipy.stats import false_discovery_control

    known = [p for p in ps if p is not None]
    adjusted = iter(false_discovery_control(known)) if known else iter(())
    return [None if p is None else float(next(adjusted)) for p in ps]


def mcnemar_down(down: int, up: int) -> float:
    """One-sided exact p of so many items worse, of those that changed."""
    from scipy.stats import binom

    return float(binom.sf(down - 1, down + up, 0.5)) if down + up else 1.0


def too_many_flips(flips: int, n: int, seen: int, compared: int) -> float:
    """p of at least so many flips among n, where repeated runs saw `seen` among `compared`.

    Beta-binomial with Jeffreys' prior: the rate is itself only known from the repeated runs, and a plain binomial at
    their rate would call one flip after none a finding.
    """
    from scipy.stats import betabinom

    return float(betabinom.sf(flips - 1, n, seen + 0.5, compared - seen + 0.5)) if n else 1.0


def flip_bound(n: int, seen: int, compared: int, level: float = 0.99) -> int:
    """The number of flips among n that a healthy night does not exceed at this level."""
    from scipy.stats import betabinom

    return int(betabinom.ppf(level, n, seen + 0.5, compared - seen + 0.5))


def student_below(value: float, history: Sequence[float], floor: float) -> tuple[float, float, float]:
    """(p, mean, spread) of a value as low as this after so many before it. floor: the least spread."""
    import numpy as np
    from scipy.special import stdtr

    k, mean = len(history), float(np.mean(history))
    spread = max(float(np.std(history, ddof=1)), floor)
    return float(stdtr(k - 1, (value - mean) / (spread * (1 + 1 / k) ** 0.5))), mean, spread
