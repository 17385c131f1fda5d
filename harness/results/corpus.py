"""Metrics that are no mean over items (Matthews, F1, correlations), from (gold, predicted) pairs; a seeded bootstrap.

Resampling items with replacement is the same as drawing how often each pattern of answers occurs, so a draw costs as
much as there are different patterns, not as there are items. How correlations are worked out is in `correlations`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.results import correlations
from harness.results.crossed import Clusters

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Table = NDArray[Any]  # items x (gold, runs): codes of classes, or for correlations the values

Pairs = Sequence[tuple[Any, Any]]

DRAWS = 2000
SEED = 20


@dataclass(frozen=True)
class Draws:
    """scores: of each seed of each side, as measured.  items: draws of (first side - second), items resampled.

    One side: of its mean over seeds.
    """

    scores: tuple[tuple[float, ...], ...]
    items: Floats


def score(pairs: Pairs, metric: str) -> float | None:
    """The metric of one run; None where its labels do not suit the metric."""
    import numpy as np

    table = _table([pairs], metric)
    return None if table is None else float(_scores(table, np.ones((1, len(table))), metric)[0, 0])


def resample(sides: Sequence[Sequence[Pairs]], metric: str, clusters: Clusters | None = None) -> Draws:
    """sides: one or two; of each, one run a seed; all runs over the same items in the same order.

    clusters: of items, which are drawn whole.
    """
    import numpy as np

    rng = np.random.default_rng(SEED)
    measured, by_run = resampled_runs([run for side in sides for run in side], metric, rng, clusters)
    items, scores, first = np.zeros(DRAWS), [], 0
    for side, sign in zip(sides, (1.0, -1.0), strict=False):
        mine = slice(first, first + len(side))
        first += len(side)
        scores.append(tuple(map(float, measured[mine])))
        items += sign * by_run[:, mine].mean(axis=1)
    return Draws(tuple(scores), items)


def resampled_runs(
    runs: Sequence[Pairs], metric: str, rng: np.random.Generator, clusters: Clusters | None = None
) -> tuple[Floats, Floats]:
    """The metric of each run as measured, and draws x runs of it over the same resampled items (or clusters)."""
    import numpy as np

    table = _table(runs, metric)
    if table is None or any(g != h for run in runs[1:] for (g, _), (h, _) in zip(runs[0], run, strict=True)):
        raise ValueError(f"these runs cannot be compared by {metric}")
    patterns, which, counts = np.unique(table, axis=0, return_inverse=True, return_counts=True)
    if clusters is None:
        drawn = rng.multinomial(len(table), counts / len(table), size=DRAWS).astype(float)
    else:
        held = clusters.sums(np.eye(len(patterns))[:, which.ravel()]).T
        drawn = rng.multinomial(len(clusters), np.full(len(clusters), 1 / len(clusters)), size=DRAWS) @ held
    return _scores(patterns, counts[None, :].astype(float), metric)[0], _scores(patterns, drawn, metric)


def _table(runs: Sequence[Pairs], metric: str) -> Table | None:
    """Items x (gold, one prediction a run) as small integers; the classes 0 and 1 keep their numbers.

    For correlations the values as they are.
    """
    import numpy as np

    if metric in CORRELATIONS:
        return np.asarray([[runs[0][i][0], *(run[i][1] for run in runs)] for i in range(len(runs[0]))], dtype=float)
    labels = {label for run in runs for pair in run for label in pair}
    if labels <= {0, 1}:
        code = {0: 0, 1: 1}
    elif metric in BINARY:
        return None
    else:
        code = {label: number for number, label in enumerate(sorted(labels, key=str))}
    columns = [[code[gold] for gold, _ in runs[0]], *([code[predicted] for _, predicted in run] for run in runs)]
    return np.asarray(columns, dtype=np.int64).T


def _scores(table: Table, weights: Floats, metric: str) -> Floats:
    """table: patterns x (gold, runs); weights: draws x patterns -> draws x runs."""
    import numpy as np

    if metric in CORRELATIONS:
        return np.stack([CORRELATIONS[metric](table[:, 0], p, weights) for p in table.T[1:]], axis=1)
    classes = int(table.max()) + 1
    one_hot = np.eye(classes * classes)
    columns = []
    for predicted in table.T[1:]:
        confusion = weights @ one_hot[table[:, 0] * classes + predicted]
        columns.append(COUNTED[metric](confusion.reshape(-1, classes, classes)))
    return np.stack(columns, axis=1)


def _matthews(confusion: Floats) -> Floats:
    """[draws, gold, predicted] counts -> [draws]; 0 where it is undefined, as in scikit-learn."""
    import numpy as np

    total = confusion.sum(axis=(1, 2))
    gold, predicted = confusion.sum(axis=2), confusion.sum(axis=1)
    covered = np.trace(confusion, axis1=1, axis2=2) * total - (gold * predicted).sum(axis=1)
    scale = np.sqrt((total**2 - (gold**2).sum(axis=1)) * (total**2 - (predicted**2).sum(axis=1)))
    matthews: Floats = np.divide(covered, scale, out=np.zeros_like(covered), where=scale > 0)
    return matthews


def _f1(confusion: Floats) -> Floats:
    """[draws, gold, predicted] counts of the classes 0 and 1 -> F1 of class 1; 0 where it is undefined."""
    import numpy as np

    if confusion.shape[1] < 2:
        return np.zeros(len(confusion))
    twice = 2 * confusion[:, 1, 1]
    total = confusion[:, 1, :].sum(axis=1) + confusion[:, :, 1].sum(axis=1)
    f1: Floats = np.divide(twice, total, out=np.zeros_like(twice), where=total > 0)
    return f1


def _accuracy_and_f1(confusion: Floats) -> Floats:
    """[draws, gold, predicted] counts of the classes 0 and 1 -> the mean of the two, as GLUE averages MRPC."""
    import numpy as np

    right: Floats = np.trace(confusion, axis1=1, axis2=2) / confusion.sum(axis=(1, 2))
    return (right + _f1(confusion)) / 2


COUNTED: dict[str, Callable[[Floats], Floats]] = {"mcc": _matthews, "f1": _f1, "acc_and_f1": _accuracy_and_f1}
CORRELATIONS: dict[str, Callable[[Floats, Floats, Floats], Floats]] = {
    "pearson": correlations.pearson,
    "spearman": correlations.spearman,
    "pearson_and_spearman": correlations.both,
}
CORPUS = (*COUNTED, *CORRELATIONS)
BINARY = ("f1", "acc_and_f1")
LOWEST = {name: -1.0 if name == "mcc" or name in CORRELATIONS else 0.0 for name in CORPUS}
