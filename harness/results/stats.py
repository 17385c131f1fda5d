"""Means, differences and suite means with 95 % intervals and p, for one run or several seeds of it.

The unit is one item under one training seed. Items are the same for every seed, so the layout is crossed: an interval
adds the variance of the item means (of clusters of items where the task declares them) and, where there are several
seeds, the variance between seeds beyond what the items explain, pooled over both sides (`crossed`). With one seed a
difference is `items only`: it has a p, and is never a finding. Metrics that are no means (Matthews, F1) are resampled
on two levels: items once for all runs, and seeds by Student's t, since resampling three seeds understates how they
vary. Everything random has a fixed generator. What is refused is in `comparable`, corrections for many comparisons in
`corrections`, tiers in `tiers`, claims of no loss and plans in `claims`.
"""

from __future__ import annotations

from array import array
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from harness.results import comparable, corpus, crossed, exact, shares
from harness.results.crossed import Clusters, Side
from harness.results.frame import Result
from harness.results.items import Samples

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

ITEMS_ONLY = "items only"


@dataclass(frozen=True)
class Spread:
    """Where the uncertainty of an estimate comes from, kept so that suites can add theirs up."""

    items: float  # variance
    df: float
    sides: tuple[Side, ...]
    seeds: tuple[tuple[int | None, ...], ...] = ()  # the numbers of each side's seeds


@dataclass(frozen=True)
class Estimate:
    """A number in the metric's own unit with its 95 % interval.

    value None: refused or not known, and reason says why. low, high None: no interval, and reason says why.
    n: items; clusters: of items, 0 where they are taken as independent; seeds: the smallest number of seeds on a side.
    how: the kind of interval and test; it begins with "items only" where a difference leaves the training seeds out.
    bounds: what the metric cannot leave; None if it has no bounds (perplexity), and then it is no percentage.
    Of differences alone: p, two-sided and not corrected.  df: Satterthwaite's.  mde: the smallest true difference that
    is found with 80 % power.  flips: items that are better and items that are worse, averaged over seeds.
    seed_sd: of each side the standard deviation between seeds beyond the items; None where one seed cannot tell.
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
    clusters: int = 0
    p: float | None = None
    df: float | None = None
    mde: float | None = None
    flips: tuple[int, int] | None = None
    seed_sd: tuple[float | None, ...] = ()

    @property
    def items_only(self) -> bool:
        """Whether another training seed could undo this difference, for all that is known."""
        return self.how.startswith(ITEMS_ONLY)

    @property
    def claim(self) -> float | None:
        """The p that a finding may rest on: None for `items only`, and where there is none."""
        return None if self.items_only else self.p


def mean(results: Sequence[Result]) -> Estimate:
    """The score of one method on one task, from one result a seed (all of them with a value).

    One seed: Student's t. Several: items and seeds crossed. Of 0/1 scores Wilson's interval, for the effective number
    of items where that is not their number. A corpus metric: bootstrap percentiles.
    """
    if refusal := comparable.not_one_set(results) or comparable.repeated(results):
        return Estimate(None, reason=refusal)
    value = _average([r.value for r in results])
    plain = Estimate(value, n=results[0].n or 0, seeds=len(results), bounds=_share([r.value for r in results]))
    if problem := comparable.unusable(results):
        return replace(plain, reason=problem)
    if results[0].samples is not None and results[0].samples.pairs is not None:
        return _resampled(plain, [results])
    scores, clusters = _scores(results), _clusters(results)
    side = crossed.side_of(scores, clusters, _settled(results))
    if len(results) == 1 and clusters is None and _binary(scores):
        low, high = _share_interval(shares.wilson(float(scores.sum()), scores.size))
        spread = Spread(((high - low) / 2 / shares.Z) ** 2, scores.size - 1, (side,), (_seeds(results),))
        return replace(plain, low=low, high=high, how="wilson", spread=spread)
    plain, spread = _grouped(plain, clusters), _spread(scores.mean(axis=0), [side], clusters, [results])
    if spread.items == 0 and crossed.combined(0.0, 1, [side]).seeds == 0:
        return _no_item_stands_out(plain, float(scores[0, 0]), spread, _binary(scores))
    found = _interval(plain, spread, "t" if len(results) == 1 else "items x seeds")
    if not _binary(scores):
        return found
    reach = float(crossed.combined(spread.items, spread.df, spread.sides).reach(1 - crossed.LEVEL / 2))
    items, seeds = scores.shape[1], scores.shape[0]
    low, high = _share_interval(shares.of_layout(value, reach, items, seeds, clusters is not None))
    return replace(found, low=low, high=high)


def without(results: Sequence[Result], items: Collection[str]) -> list[Result]:
    """The same results over the other items alone; for metrics that are means over items."""
    kept = []
    for r in results:
        if r.samples is None or r.samples.values is None:
            return []
        rest = [i for i, item in enumerate(r.samples.items) if item not in items]
        if not rest:
            return []
        named = r.samples.clusters
        clusters = None if named is None else tuple(named[i] for i in rest)
        values = array("d", (r.samples.values[i] for i in rest))
        samples = Samples(tuple(r.samples.items[i] for i in rest), values, clusters=clusters)
        kept.append(replace(r, value=sum(values) / len(rest), n=len(rest), samples=samples))
    return kept


def difference(ours: Sequence[Result], baseline: Sequence[Result], *, matched: bool = False) -> Estimate:
    """Ours minus the baseline on one task, paired by item, from one result a seed on each side.

    matched: the same seed gave both sides the same data order and initialisation, so seeds are paired too.
    Refused (value None, with the reason) where the protocols or the items of the two are not the same, where a side
    has a seed twice, and where matched seeds are not the same.
    """
    if not ours or not baseline:
        return Estimate(None, reason="no results on one side")
    refusal = comparable.not_one_set([*ours, *baseline]) or comparable.repeated(ours) or comparable.repeated(baseline)
    if refusal := refusal or (comparable.unlike_seeds(ours, baseline) if matched else ""):
        return Estimate(None, reason=refusal)
    value = _average([r.value for r in ours]) - _average([r.value for r in baseline])
    plain = Estimate(value, n=ours[0].n or 0, seeds=min(len(ours), len(baseline)))
    if _share([r.value for r in [*ours, *baseline]]):
        plain = replace(plain, bounds=(-1.0, 1.0))
    if problem := comparable.unusable([*ours, *baseline]):
        return replace(plain, reason=problem)
    if ours[0].samples is not None and ours[0].samples.pairs is not None:
        return _resampled(plain, [ours, baseline])
    return _tested(plain, ours, baseline, matched)


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
    if len({(s.seeds, tuple(side.seeds for side in s.sides)) for s in spreads}) > 1:
        return replace(plain, reason="the tasks do not have the same seeds")
    sides = tuple(
        Side(
            tuple(sum(scores) / k for scores in zip(*(side.scores for side in same), strict=True)),
            sum(side.noise for side in same) / k**2,
            all(side.settled for side in same),
        )
        for same in zip(*(s.sides for s in spreads), strict=True)
    )
    items = sum(s.items for s in spreads) / k**2
    df = items**2 / sum((s.items / k**2) ** 2 / s.df for s in spreads) if items else float(plain.n - k)
    if any(p.low is None for p in parts):
        plain = replace(plain, reason="a task without spread counts as exact in this interval")
    spread = Spread(items, df, sides, spreads[0].seeds)
    whole = _interval(plain, spread, f"{ITEMS_ONLY}: tasks" if any(p.items_only for p in parts) else "tasks")
    return whole if any(p.p is None for p in parts) else _judged(whole, spread)


def _scores(results: Sequence[Result]) -> Floats:
    """Seeds x items."""
    import numpy as np

    return np.stack([np.asarray(r.samples.values) for r in results if r.samples is not None])


def _share_interval(found: tuple[float, float]) -> tuple[float, float]:
    """Plain numbers; rounding may have left the bounds by a hair."""
    return max(0.0, float(found[0])), min(1.0, float(found[1]))


def _average(values: Sequence[float | None]) -> float:
    return sum(v for v in values if v is not None) / len(values)


def _binary(scores: Floats) -> bool:
    return bool(((scores == 0) | (scores == 1)).all())


def _share(values: Sequence[float | None]) -> tuple[float, float] | None:
    """The bounds 0 and 1 where all values keep them."""
    return (0.0, 1.0) if all(v is not None and 0 <= v <= 1 for v in values) else None


def _clusters(results: Sequence[Result]) -> Clusters | None:
    """None where the items are independent, as far as the task says, and where each is alone in its cluster."""
    samples = results[0].samples
    names = samples.clusters if samples is not None else None
    clusters = Clusters.of(names) if names is not None else None
    return None if clusters is None or len(clusters) == len(clusters.order) else clusters


def _grouped(plain: Estimate, clusters: Clusters | None) -> Estimate:
    return plain if clusters is None else replace(plain, clusters=len(clusters))


def _settled(results: Sequence[Result]) -> bool:
    return len(results) == 1 and results[0].settled


def _one_seed(sides: Sequence[Side]) -> bool:
    """Whether another training seed could change a side, and nothing tells how much."""
    return any(not side.settled and side.seeds < 2 for side in sides)


def _seeds(results: Sequence[Result]) -> tuple[int | None, ...]:
    return tuple(r.seed for r in results)


def _spread(
    by_item: Floats, sides: Sequence[Side], clusters: Clusters | None, results: Sequence[Sequence[Result]]
) -> Spread:
    found = crossed.variance(by_item, sides, clusters)
    kept = tuple(Side(tuple(map(float, s.scores)), float(s.noise), s.settled) for s in sides)
    return Spread(float(found.items), found.items_df, kept, tuple(_seeds(each) for each in results))


def _tested(plain: Estimate, ours: Sequence[Result], baseline: Sequence[Result], matched: bool) -> Estimate:
    """The difference of two sides in a metric that is a mean."""
    if matched:
        ours, baseline = (sorted(side, key=lambda r: r.seed or 0) for side in (ours, baseline))
    a, b, clusters = _scores(ours), _scores(baseline), _clusters(ours)
    by_item, binary = a.mean(axis=0) - b.mean(axis=0), _binary(a) and _binary(b)
    each = [crossed.side_of(a, clusters, _settled(ours)), crossed.side_of(b, clusters, _settled(baseline))]
    sides = [crossed.side_of(a - b, clusters)] if matched else each
    spread = _spread(by_item, sides, clusters, [ours] if matched else [ours, baseline])
    plain = replace(
        _grouped(plain, clusters),
        flips=(int((by_item > 0).sum()), int((by_item < 0).sum())),
        seed_sd=tuple(crossed.seed_sd(side) for side in each),
    )
    parts = crossed.combined(spread.items, spread.df, sides)
    if not parts.seeds_df:
        return _of_items(plain, by_item, spread, clusters, binary)
    if parts.total == 0:
        return _no_item_stands_out(plain, float(by_item[0]), spread, binary)
    return _judged(_interval(plain, spread, "matched items x seeds" if matched else "paired items x seeds"), spread)


def _of_items(plain: Estimate, by_item: Floats, spread: Spread, clusters: Clusters | None, binary: bool) -> Estimate:
    """One run a side: the interval and an exact p from the items, of which only untrained sides let one conclude."""
    prefix = f"{ITEMS_ONLY}: " if _one_seed(spread.sides) else ""
    if binary and clusters is None and plain.flips is not None and not (by_item % 1).any():  # no averages of seeds
        how, p = "McNemar", exact.mcnemar(*plain.flips)
    else:
        how, p = "sign flips", exact.sign_flips(by_item if clusters is None else clusters.sums(by_item))
    if spread.items == 0:
        found = _no_item_stands_out(plain, float(by_item[0]), spread, binary)
    else:
        found = _judged(_interval(plain, spread, how), spread)
    return replace(found, p=p, how=f"{prefix}{how}")


def _no_item_stands_out(plain: Estimate, same: float, spread: Spread, binary: bool) -> Estimate:
    """All items agree, which is no proof of certainty: of 0/1 scores, Wilson bounds the share that may be otherwise."""
    if not binary or same not in (-1.0, 0.0, 1.0) or plain.bounds is None:
        return replace(plain, reason="no interval: all items have the same score", spread=spread)
    other = shares.wilson(0, plain.clusters or plain.n)[1]
    low, high = max(same - other, plain.bounds[0]), min(same + other, plain.bounds[1])
    p = exact.mcnemar(*plain.flips) if plain.flips is not None else None
    return replace(
        plain, low=low, high=high, how="wilson", p=p, spread=replace(spread, items=((high - low) / 2 / shares.Z) ** 2)
    )


def _interval(plain: Estimate, spread: Spread, how: str) -> Estimate:
    parts = crossed.combined(spread.items, spread.df, spread.sides)
    value = plain.value
    if parts.total == 0 or value is None:
        return replace(plain, reason="no interval: no spread", spread=spread)
    half = float(parts.reach(1 - crossed.LEVEL / 2))
    low, high = plain.bounds or (-float("inf"), float("inf"))
    return replace(plain, low=max(low, value - half), high=min(high, value + half), how=how, spread=spread)


def _judged(plain: Estimate, spread: Spread) -> Estimate:
    """With p and what belongs to it, from the same variance as the interval."""
    parts = crossed.combined(spread.items, spread.df, spread.sides)
    if parts.total == 0 or plain.value is None:
        return plain
    sds = plain.seed_sd or tuple(crossed.seed_sd(side) for side in spread.sides)
    p, df, mde = float(parts.p(plain.value)), float(parts.df), float(parts.detectable)
    return replace(plain, p=p, df=df, mde=mde, seed_sd=sds)


def _resampled(plain: Estimate, sides: Sequence[Sequence[Result]]) -> Estimate:
    """A corpus metric, or the difference of two sides: bootstrap percentiles, and p by the plus-one rule."""
    import numpy as np

    metric, clusters = sides[0][0].task.primary, _clusters(sides[0])
    runs = [[r.samples.pairs for r in side if r.samples and r.samples.pairs is not None] for side in sides]
    draws = corpus.resample(runs, metric, clusters)
    lowest, span = corpus.LOWEST[metric], 1.0 - corpus.LOWEST[metric]
    plain = replace(_grouped(plain, clusters), bounds=(lowest, 1.0) if len(sides) == 1 else (-span, span))
    # what items explain of the seeds' variance is not taken off, and so counts twice: too many findings without that
    parts = tuple(Side(scores, 0.0, _settled(side)) for scores, side in zip(draws.scores, sides, strict=True))
    groups = (len(clusters) if clusters else plain.n) - 1
    spread = Spread(float(draws.items.var()), groups, parts, tuple(_seeds(side) for side in sides))
    seeds = crossed.combined(spread.items, spread.df, parts)
    moved = np.random.default_rng(corpus.SEED).standard_t(max(1, seeds.seeds_df), len(draws.items))
    both = draws.items + moved * float(seeds.seeds) ** 0.5
    if float(np.ptp(both)) == 0:
        return replace(plain, reason="no interval: the same in every resampled set", spread=spread)
    low, high = (float(x) for x in np.percentile(both, [2.5, 97.5]))
    if plain.bounds is not None:
        low, high = max(low, plain.bounds[0]), min(high, plain.bounds[1])
    if len(sides) == 1:
        return replace(plain, low=low, high=high, how="bootstrap", spread=spread)
    how = f"{ITEMS_ONLY}: paired bootstrap" if _one_seed(parts) else "paired bootstrap"
    tail = 1 + min(int((both <= 0).sum()), int((both >= 0).sum()))
    found = _judged(replace(plain, low=low, high=high, how=how, spread=spread), spread)
    return replace(found, p=min(1.0, 2 * tail / (1 + len(both))))
