"""The variance of a score or of a difference from the layout of training seeds by items, and the test on it.

Two parts: that of the items (or of clusters of them), and that of the training seeds beyond what the items explain,
pooled over the sides. Each part has its own degrees of freedom and its own quantile of Student's t; their squares add
up. Satterthwaite's single number of degrees of freedom is given beside it, but taken as the only one it finds too many
false differences with three seeds (`docs/calibration.md`). All of it works on one estimate or on a batch of them: the
last axis is items, the one before it seeds. What the numbers are called and when there are none is said in `stats`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

LEVEL, POWER = 0.05, 0.8
SMALLEST = 1e-300  # p below it is given as it
SLACK = 1e-6  # so that a p at the end of its range lies in it


@dataclass(frozen=True)
class Clusters:
    """Which items belong together. order: items sorted by cluster.  starts: where in it each cluster begins."""

    order: NDArray[np.int64]
    starts: NDArray[np.int64]

    @classmethod
    def of(cls, names: Sequence[str]) -> Clusters:
        """names: one an item; an item without a name is a cluster of its own."""
        import numpy as np

        named = [name or f"\0{number}" for number, name in enumerate(names)]
        _, codes = np.unique(named, return_inverse=True)
        order = np.argsort(codes, kind="stable")
        return cls(order, np.flatnonzero(np.diff(codes[order], prepend=-1)))

    def __len__(self) -> int:
        return len(self.starts)

    def sums(self, by_item: Floats) -> Floats:
        """Over the items of each cluster."""
        import numpy as np

        summed: Floats = np.add.reduceat(by_item[..., self.order], self.starts, axis=-1)
        return summed


@dataclass(frozen=True)
class Side:
    """The seeds of one method on one task or suite: a number of each, or a batch with the seeds on the last axis.

    noise: the part of the variance between seeds that their items explain.
    settled: nothing in it is random, so that there is no other seed to fear.
    """

    scores: Any
    noise: Any
    settled: bool = False

    @property
    def seeds(self) -> int:
        """How many."""
        import numpy as np

        return int(np.shape(self.scores)[-1])


@dataclass(frozen=True)
class Variance:
    """Of an estimate. seeds: 0 where it cannot be told, and seeds_df is 0 then.  df: Satterthwaite's, of the sum."""

    items: Any
    items_df: Any
    seeds: Any
    seeds_df: int

    @property
    def total(self) -> Any:
        """Both parts."""
        return self.items + self.seeds

    @property
    def df(self) -> Any:
        """Satterthwaite's approximation."""
        seeds = self.seeds**2 / self.seeds_df if self.seeds_df else 0.0
        return self.total**2 / (self.items**2 / self.items_df + seeds)

    def reach(self, quantile: Any) -> Any:
        """How far from the estimate Student's quantile lies."""
        from scipy.special import stdtrit

        seeds = stdtrit(self.seeds_df, quantile) ** 2 * self.seeds if self.seeds_df else 0.0
        return (stdtrit(self.items_df, quantile) ** 2 * self.items + seeds) ** 0.5

    def p(self, value: float) -> float:
        """Two-sided, of one estimate: the level at which the interval just reaches zero."""
        from scipy.optimize import brentq
        from scipy.special import stdtr

        statistic = -abs(value) / float(self.total) ** 0.5
        least = max(SMALLEST, 2 * float(stdtr(self.items_df, statistic)))
        most = 2 * float(stdtr(self.seeds_df, statistic)) if self.seeds_df and self.seeds else least
        if most <= least:  # as many degrees of freedom in both, or no seeds
            return least
        between = math.log(least) - SLACK, min(0.0, math.log(most) + SLACK)
        return math.exp(brentq(lambda p: float(self.reach(math.exp(p) / 2)) - abs(value), *between, xtol=1e-10))

    @property
    def detectable(self) -> Any:
        """The smallest true difference that such a test finds in 80 of 100 repetitions."""
        return self.reach(1 - LEVEL / 2) + self.reach(POWER)


def side_of(scores: Floats, clusters: Clusters | None = None, settled: bool = False) -> Side:
    """Seeds x items -> what tells the seeds' variance from the items' (two-way layout without repeats)."""
    seeds = scores.shape[-2]
    by_seed = scores.mean(axis=-1)
    if seeds < 2:
        return Side(by_seed, 0.0 * by_seed[..., 0], settled)
    rest = scores - by_seed[..., None] - scores.mean(axis=-2, keepdims=True) + by_seed.mean(axis=-1)[..., None, None]
    return Side(by_seed, _of_mean(rest, clusters).sum(axis=-1) / (seeds - 1), settled)


def variance(by_item: Floats, sides: Sequence[Side], clusters: Clusters | None = None) -> Variance:
    """by_item: one value an item, averaged over seeds (and subtracted, if there are two sides)."""
    items = _of_mean(by_item - by_item.mean(axis=-1, keepdims=True), clusters)
    return combined(items, (len(clusters) if clusters else by_item.shape[-1]) - 1, sides)


def combined(items: Any, items_df: Any, sides: Sequence[Side]) -> Variance:
    """items: the variance that items cause.

    That of seeds is pooled over the sides; a settled side has none. Where a side has one seed it is left out: the
    others' seeds do not tell how this side's would vary.
    """
    moving = [side for side in sides if not side.settled]
    if any(side.seeds < 2 for side in moving) or not moving:
        return Variance(items, items_df, 0.0 * items, 0)
    of_one, df = pooled(moving)
    return Variance(items, items_df, of_one * sum(1 / side.seeds for side in moving), df)


def pooled(sides: Sequence[Side]) -> tuple[Any, int]:
    """The variance between the seeds of a side beyond what its items explain, and its degrees of freedom.

    From the sides with several seeds; 0 and 0 where there are none.
    """
    import numpy as np

    several = [side for side in sides if side.seeds > 1]
    df = sum(side.seeds - 1 for side in several)
    if not df:
        return 0.0, 0
    beyond = sum((np.var(side.scores, axis=-1, ddof=1) - side.noise) * (side.seeds - 1) for side in several)
    return np.maximum(0.0, beyond) / df, df


def seed_sd(side: Side) -> float | None:
    """Between the seeds of a side, beyond what its items explain; None where one seed cannot tell."""
    import numpy as np

    if side.settled or side.seeds < 2:
        return 0.0 if side.settled else None
    beyond = float(np.var(side.scores, ddof=1)) - float(side.noise)
    return math.sqrt(max(0.0, beyond))


def _of_mean(centred: Floats, clusters: Clusters | None) -> Floats:
    """The variance of the mean of items whose mean is zero, as items or as clusters of them."""
    sums = clusters.sums(centred) if clusters else centred
    groups = sums.shape[-1]
    found: Floats = (sums**2).sum(axis=-1) * groups / (groups - 1) / centred.shape[-1] ** 2
    return found
