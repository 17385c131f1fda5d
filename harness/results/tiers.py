"""Tiers in place of places: which rows cannot be told from the best, and how far each row's rank is known.

A row's score is the mean over its tasks. The best of what is left leads a tier, which holds every row that Holm's test
cannot tell from that leader; what one seed shows tells nothing apart. The rank interval is a bootstrap: the same
resampled items (or clusters) for all rows, and a draw of its seeds for each. Rows that cannot be compared are an error:
whoever calls leaves out what is not finished.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.results import corpus, stats
from harness.results.corrections import holm
from harness.results.crossed import LEVEL, Clusters, Side, pooled
from harness.results.frame import Result

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

SEED = 20
Row = Mapping[str, Sequence[Result]]  # task -> one result a seed


@dataclass(frozen=True)
class Place:
    """tier: 1 holds the leader and all that cannot be told from it.  low, high: 95 % interval of the rank."""

    tier: int
    low: int
    high: int


def rank(rows: Mapping[str, Row]) -> dict[str, Place]:
    """The place of each row, in the order given; higher scores are better.

    ValueError where a row lacks a task, a result, a score by item or a spread (`stats.suite_mean` says why), or was
    measured otherwise than the first row.
    """
    if not rows:
        return {}
    _check(rows)
    tiers, drawn = _tiers(rows), _draws(rows)
    low, high = _rank_intervals(drawn)
    return {name: Place(tiers[name], low[i], high[i]) for i, name in enumerate(rows)}


def _check(rows: Mapping[str, Row]) -> None:
    first = next(iter(rows.values()))
    for name, row in rows.items():
        if row.keys() != first.keys() or not row:
            raise ValueError(f"{name}: not the tasks of the first row")
        for task, results in row.items():
            if not results or any(r.value is None for r in results):
                raise ValueError(f"{name}: no result for {task}")
            refusal = stats.difference(results, first[task]).reason if row is not first else ""
            if refusal and not refusal.startswith("no interval"):
                raise ValueError(f"{name}: {task}: {refusal}")
            if any(r.samples is None for r in results):
                raise ValueError(f"{name}: {task} has no score by item")


def _score(row: Row) -> float:
    return sum(sum(r.value for r in each if r.value is not None) / len(each) for each in row.values()) / len(row)


def _tiers(rows: Mapping[str, Row]) -> dict[str, int]:
    left = sorted(rows, key=lambda name: -_score(rows[name]))
    found: dict[str, int] = {}
    tier = 0
    while left:
        tier += 1
        leader, *others = left
        apart = holm([_claim(rows[leader], rows[other]) for other in others])
        left = [other for other, p in zip(others, apart, strict=True) if p is not None and p < LEVEL]
        found |= {name: tier for name in (leader, *others) if name not in left}
    return found


def _claim(leader: Row, other: Row) -> float | None:
    return stats.suite_mean([stats.difference(leader[task], other[task]) for task in leader]).claim


def _draws(rows: Mapping[str, Row]) -> Floats:
    """Draws x rows: the mean over tasks of each row in each resampled set, moved as its training seeds might move it.

    One training seed moves all tasks together, and how much is pooled over the rows: few have many seeds.
    """
    import numpy as np

    rng = np.random.default_rng(SEED)
    sides = {name: _side(name, row) for name, row in rows.items()}
    of_one, df = pooled([side for side in sides.values() if not side.settled])
    moved = rng.standard_t(max(1, df), (corpus.DRAWS, len(rows))) * float(of_one) ** 0.5
    total: Floats = moved * np.array([0.0 if side.settled else side.seeds**-0.5 for side in sides.values()])
    tasks = next(iter(rows.values()))
    for task in tasks:
        by_run, first = _resampled([r for row in rows.values() for r in row[task]], rng), 0
        for i, row in enumerate(rows.values()):
            seeds = len(row[task])
            total[:, i] += by_run[:, first : first + seeds].mean(axis=1) / len(tasks)
            first += seeds
    return total


def _side(name: str, row: Row) -> Side:
    whole = stats.suite_mean([stats.mean(results) for results in row.values()])
    if whole.spread is None:
        raise ValueError(f"{name}: {whole.reason}")
    return whole.spread.sides[0]


def _resampled(runs: Sequence[Result], rng: np.random.Generator) -> Floats:
    """Draws x runs of one task, over the same resampled items."""
    import numpy as np

    samples = [r.samples for r in runs if r.samples is not None]
    named = samples[0].clusters
    if samples[0].pairs is not None:
        clusters = Clusters.of(named) if named is not None else None
        return corpus.resampled_runs([s.pairs for s in samples if s.pairs], runs[0].task.primary, rng, clusters)[1]
    scores = np.stack([np.asarray(s.values) for s in samples])
    clusters = Clusters.of(named if named is not None else [""] * scores.shape[1])
    sums, sizes = clusters.sums(scores), clusters.sums(np.ones(scores.shape[1]))
    drawn = rng.multinomial(len(clusters), np.full(len(clusters), 1 / len(clusters)), size=corpus.DRAWS)
    shares: Floats = (drawn @ sums.T) / (drawn @ sizes)[:, None]
    return shares


def _rank_intervals(drawn: Floats) -> tuple[list[int], list[int]]:
    """Ties count for the row in its low rank and against it in its high rank."""
    import numpy as np
    from scipy.stats import rankdata

    best, worst = rankdata(-drawn, method="min", axis=1), rankdata(-drawn, method="max", axis=1)
    low = np.percentile(best, 2.5, axis=0, method="lower").astype(int)
    high = np.percentile(worst, 97.5, axis=0, method="higher").astype(int)
    return low.tolist(), high.tolist()
