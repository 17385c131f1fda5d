"""Pearson's and Spearman's correlation of (gold, predicted) numbers, with a weight an item and many draws at once.

A weight says how often an item was drawn, so that a bootstrap needs no copies of the items. 0 where a correlation is
undefined, because one of the two does not vary. The resampling itself is in `corpus`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

CHUNK = 100  # draws at once, which bounds the memory


def pearson(gold: Floats, predicted: Floats, weights: Floats) -> Floats:
    """gold, predicted: [items]; weights: [draws, items] -> [draws]."""
    return _in_chunks(weights, lambda w: _weighted(gold - gold.mean(), predicted - predicted.mean(), w))


def spearman(gold: Floats, predicted: Floats, weights: Floats) -> Floats:
    """As `pearson`, of the ranks within each draw; equal values share the mean of their ranks."""
    return _in_chunks(weights, lambda w: _weighted(_ranks(gold, w), _ranks(predicted, w), w))


def both(gold: Floats, predicted: Floats, weights: Floats) -> Floats:
    """The mean of the two, by which GLUE averages STS-B."""
    return (pearson(gold, predicted, weights) + spearman(gold, predicted, weights)) / 2


def _in_chunks(weights: Floats, correlate: Callable[[Floats], Floats]) -> Floats:
    import numpy as np

    return np.concatenate([correlate(weights[i : i + CHUNK]) for i in range(0, len(weights), CHUNK)])


def _weighted(x: Floats, y: Floats, weights: Floats) -> Floats:
    """x, y: [items] or [draws, items]. Values that differ by less than rounding count as constant."""
    import numpy as np

    total = weights.sum(axis=1, keepdims=True)
    dx = x - (weights * x).sum(axis=1, keepdims=True) / total
    dy = y - (weights * y).sum(axis=1, keepdims=True) / total
    vx, vy = (weights * dx * dx).sum(axis=1), (weights * dy * dy).sum(axis=1)
    least = total[:, 0] * np.finfo(float).eps ** 2
    varies = (vx > least * np.square(x).max()) & (vy > least * np.square(y).max())
    found = np.zeros(len(weights))
    np.divide((weights * dx * dy).sum(axis=1), np.sqrt(vx * vy), out=found, where=varies)
    return found


def _ranks(values: Floats, weights: Floats) -> Floats:
    """[draws, items]: the middle of the places that an item and its equals take in each draw, less a constant."""
    import numpy as np

    kinds, kind_of = np.unique(values, return_inverse=True)
    order = np.argsort(kind_of, kind="stable")
    starts = np.searchsorted(kind_of[order], np.arange(len(kinds)))
    each = np.add.reduceat(weights[:, order], starts, axis=1)
    middle = np.cumsum(each, axis=1) - each / 2
    ranks: Floats = middle[:, kind_of]
    return ranks
