"""Means, differences and suite means with 95 % intervals, for one run or several seeds of it.

The unit is one item under one training seed. Items are the same for every seed, so the layout is crossed: an interval
adds the variance of the item means and, where there are several seeds, the variance between seeds beyond what the items
explain, with Satterthwaite's degrees of freedom. With one seed an interval covers items only; the caller says so.
Metrics that are no means (Matthews, F1) are resampled: items once for all runs, seeds for each side. Everything random
has a fixed generator. Corrections for many comparisons, tiers and tests are not here.
"""

from __future__ import annotations

from array import array
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from harness.results import corpus
from harness.results.frame import Result

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

Z = 1.959963984540054  # normal quantile at 0.975
TOLERANCE = 1e-6  # how far the samples may be from the metric they are said to make up


@dataclass(frozen=True)
class Side:
    """The seeds of one method on one task or suite. noise: the part of a seed's variance that its items explain."""

    scores: tuple[float, ...]
    noise: float

    @property
    def variance(self) -> float:
        """Of the mean over seeds, beyond the items; 0 with one seed, because one seed cannot tell."""
        seeds = len(self.scores)
        if seeds < 2:
            return 0.0
        mean = sum(self.scores) / seeds
        between = sum((s - mean) ** 2 for s in self.scores) / (seeds - 1)
        return max(0.0, between - self.noise) / seeds


@dataclass(frozen=True)
class Spread:
    """Where the uncertainty of an estimate comes from, kept so that suites can add theirs up."""

    items: float  # variance
    df: float
    sides: tuple[Side, ...]


@dataclass(frozen=True)
class Estimate:
    """A number in the metric's own unit with its 95 % interval.

    value None: refused or not known, and reason says why. low, high None: no interval, and reason says why.
    n: items; seeds: the smallest number of seeds on a side; how: the kind of interval.
    bounds: what the metric cannot leave; None if it has no bounds (perplexity), and then it is no percentage.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    n: int = 0
    seeds: int = 1
    how: str = ""
    bounds: tuple[float, float] | None = None
    reason: str = ""
    spread: Spread | None = None


def mean(results: Sequence[Result]) -> Estimate:
    """The score of one method on one task, from one result a seed (all of them with a value).

    One seed: Wilson's interval for 0/1 scores, Student's t otherwise. Several: items and seeds crossed. A corpus
    metric: bootstrap percentiles.
    """
    if refusal := _not_one_set(results):
        return Estimate(None, reason=refusal)
    value = _average([r.value for r in results])
    plain = Estimate(value, n=results[0].n or 0, seeds=len(results), bounds=_share([r.value for r in results]))
    if problem := _unusable(results):
        return replace(plain, reason=problem)
    if results[0].samples is not None and results[0].samples.pairs is not None:
        return _resampled(plain, [results])
    scores = _scores(results)
    side = _side(scores)
    if len(results) == 1 and _binary(scores):
        low, high = wilson(float(scores.sum()), scores.size)
        spread = Spread(((high - low) / 2 / Z) ** 2, scores.size - 1, (side,))
        return replace(plain, low=low, high=high, how="wilson", spread=spread)
    return _student(plain, scores.mean(axis=0), (side,), _binary(scores))


def without(results: Sequence[Result], items: Collection[str]) -> list[Result]:
    """The same results over the other items alone; for metrics that are means over items."""
    kept = []
    for r in results:
        if r.samples is None or r.samples.values is None:
            return []
        pairs = zip(r.samples.items, r.samples.values, strict=True)
        rest = {item: value for item, value in pairs if item not in items}
        if not rest:
            return []
        samples = replace(r.samples, items=tuple(rest), values=array("d", rest.values()))
        kept.append(replace(r, value=sum(rest.values()) / len(rest), n=len(rest), samples=samples))
    return kept


def difference(ours: Sequence[Result], baseline: Sequence[Result]) -> Estimate:
    """Ours minus the baseline on one task, paired by item, from one result a seed on each side.

    Refused (value None, with the reason) where the protocols or the items of the two are not the same.
    """
    if refusal := _not_one_set([*ours, *baseline]):
        return Estimate(None, reason=refusal)
    value = _average([r.value for r in ours]) - _average([r.value for r in baseline])
    plain = Estimate(value, n=ours[0].n or 0, seeds=min(len(ours), len(baseline)))
    if _share([r.value for r in [*ours, *baseline]]):
        plain = replace(plain, bounds=(-1.0, 1.0))
    if problem := _unusable([*ours, *baseline]):
        return replace(plain, reason=problem)
    if ours[0].samples is not None and ours[0].samples.pairs is not None:
        return _resampled(plain, [ours, baseline])
    a, b = _scores(ours), _scores(baseline)
    sides = (_side(a), _side(b))
    return _student(plain, a.mean(axis=0) - b.mean(axis=0), sides, _binary(a) and _binary(b))


def suite_mean(parts: Sequence[Estimate]) -> Estimate:
    """The plain mean of a suite's tasks. Items of different tasks are independent; a seed moves all tasks together."""
    missing = next((p for p in parts if p.value is None), None)
    if missing is not None or not parts:
        return Estimate(None, reason=missing.reason if missing else "no tasks")
    k = len(parts)
    value = _average([p.value for p in parts])
    plain = Estimate(value, n=sum(p.n for p in parts), seeds=min(p.seeds for p in parts))
    bounds = [p.bounds for p in parts if p.bounds is not None]
    if len(bounds) == k:
        plain = replace(plain, bounds=(sum(b[0] for b in bounds) / k, sum(b[1] for b in bounds) / k))
    spreads = [p.spread for p in parts if p.spread is not None]
    if len(spreads) < k:
        return replace(plain, reason=next(p.reason for p in parts if p.spread is None))
    shapes = {tuple(len(side.scores) for side in s.sides) for s in spreads}
    if len(shapes) > 1:
        return replace(plain, reason="the tasks do not have the same seeds")
    sides = tuple(
        Side(
            tuple(sum(scores) / k for scores in zip(*(side.scores for side in same), strict=True)),
            sum(side.noise for side in same) / k**2,
        )
        for same in zip(*(s.sides for s in spreads), strict=True)
    )
    items = sum(s.items for s in spreads) / k**2
    df = items**2 / sum((s.items / k**2) ** 2 / s.df for s in spreads) if items else float(plain.n - k)
    if any(p.low is None for p in parts):
        plain = replace(plain, reason="a task without spread counts as exact in this interval")
    return _interval(plain, Spread(items, df, sides), "tasks")


def wilson(successes: float, n: int) -> tuple[float, float]:
    """Wilson's score interval (1927), 95 %, of a share."""
    share, z2 = successes / n, Z * Z
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z / (1 + z2 / n) * (share * (1 - share) / n + z2 / (4 * n * n)) ** 0.5
    return max(0.0, centre - half), min(1.0, centre + half)


def _not_one_set(results: Sequence[Result]) -> str:
    """Why these results cannot stand in one number, or ""."""
    if any(r.value is None for r in results):
        return next(r.reason for r in results if r.value is None)
    if len({(r.task.task, r.task.primary, r.task.protocol) for r in results}) > 1:
        return "measured under different protocols"
    named = [r.samples.items for r in results if r.samples is not None]
    for items in named[1:]:
        if items is not named[0] and items != named[0]:
            ours, theirs = len(set(named[0]) - set(items)), len(set(items) - set(named[0]))
            return f"different items ({ours} only on one side, {theirs} only on the other)"
    return ""


def _unusable(results: Sequence[Result]) -> str:
    """Why the scores by item cannot give an interval, or ""."""
    metric = results[0].task.primary
    for r in results:
        if r.samples is None:
            return f"no interval: {metric} has no score by item"
        if r.samples.pairs is not None:
            made = corpus.score(r.samples.pairs, metric) if metric in corpus.CORPUS else None
        else:
            made = float(_scores([r]).mean())
        if len(r.samples.items) < 2:
            return "no interval: fewer than two items"
        if made is None or r.value is None or abs(made - r.value) > TOLERANCE * max(1.0, abs(r.value)):
            return f"no interval: {metric} is no mean over items"
    return ""


def _scores(results: Sequence[Result]) -> Floats:
    """Seeds x items."""
    import numpy as np

    return np.stack([np.asarray(r.samples.values) for r in results if r.samples is not None])


def _average(values: Sequence[float | None]) -> float:
    return sum(v for v in values if v is not None) / len(values)


def _binary(scores: Floats) -> bool:
    return bool(((scores == 0) | (scores == 1)).all())


def _share(values: Sequence[float | None]) -> tuple[float, float] | None:
    """The bounds 0 and 1 where all values keep them."""
    return (0.0, 1.0) if all(v is not None and 0 <= v <= 1 for v in values) else None


def _side(scores: Floats) -> Side:
    """Seeds x items -> what is needed to tell the seeds' variance from the items' (two-way layout, no repeats)."""
    seeds, n = scores.shape
    by_seed = scores.mean(axis=1)
    if seeds < 2:
        return Side(tuple(map(float, by_seed)), 0.0)
    rest = scores - by_seed[:, None] - scores.mean(axis=0) + scores.mean()
    return Side(tuple(map(float, by_seed)), float((rest**2).sum()) / ((seeds - 1) * (n - 1)) / n)


def _student(plain: Estimate, by_item: Floats, sides: tuple[Side, ...], binary: bool) -> Estimate:
    """by_item: one value an item, averaged over seeds (and subtracted, if there are two sides)."""
    n = len(by_item)
    items = float(by_item.var(ddof=1)) / n
    if items == 0 and all(side.variance == 0 for side in sides):
        return _no_item_stands_out(plain, float(by_item[0]), n, sides, binary)
    how = "t" if all(len(side.scores) == 1 for side in sides) else "items x seeds"
    return _interval(plain, Spread(items, n - 1, sides), f"paired {how}" if len(sides) > 1 else how)


def _no_item_stands_out(plain: Estimate, same: float, n: int, sides: tuple[Side, ...], binary: bool) -> Estimate:
    """All items agree, which is no proof of certainty: of 0/1 scores, Wilson bounds the share that may be otherwise."""
    if not binary or same not in (-1.0, 0.0, 1.0) or plain.bounds is None:
        return replace(plain, reason="no interval: all items have the same score")
    other = wilson(0, n)[1]
    low, high = max(same - other, plain.bounds[0]), min(same + other, plain.bounds[1])
    return replace(plain, low=low, high=high, how="wilson", spread=Spread(((high - low) / 2 / Z) ** 2, n - 1, sides))


def _interval(plain: Estimate, spread: Spread, how: str) -> Estimate:
    from scipy.special import stdtrit

    terms = [(spread.items, spread.df), *((side.variance, len(side.scores) - 1) for side in spread.sides)]
    variance = sum(v for v, _ in terms)
    value = plain.value
    if variance == 0 or value is None:
        return replace(plain, reason="no interval: no spread")
    df = variance**2 / sum(v**2 / d for v, d in terms if v > 0)
    half = float(stdtrit(df, 0.975)) * variance**0.5
    low, high = plain.bounds or (-float("inf"), float("inf"))
    return replace(plain, low=max(low, value - half), high=min(high, value + half), how=how, spread=spread)


def _resampled(plain: Estimate, sides: Sequence[Sequence[Result]]) -> Estimate:
    """A corpus metric, or the difference of two sides: bootstrap percentiles."""
    import numpy as np

    metric = sides[0][0].task.primary
    runs = [[r.samples.pairs for r in side if r.samples and r.samples.pairs is not None] for side in sides]
    draws = corpus.resample(runs, metric)
    lowest, span = corpus.LOWEST[metric], 1.0 - corpus.LOWEST[metric]
    plain = replace(plain, bounds=(lowest, 1.0) if len(sides) == 1 else (-span, span))
    spread = Spread(float(draws.items.var()), plain.n - 1, tuple(Side(scores, 0.0) for scores in draws.scores))
    if float(np.ptp(draws.both)) == 0:
        return replace(plain, reason="no interval: the same in every resampled set", spread=spread)
    found = np.percentile(draws.both, [2.5, 97.5])
    how = "paired bootstrap" if len(sides) > 1 else "bootstrap"
    return replace(plain, low=float(found[0]), high=float(found[1]), how=how, spread=spread)
