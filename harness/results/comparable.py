"""What results may stand in one number: the same protocol, the same items, seeds that are told apart.

Every function gives the reason why not, or "" where all is well. Nothing is worked out here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from harness.results import corpus
from harness.results.frame import Result

TOLERANCE = 1e-6  # how far the samples may be from the metric they are said to make up


def not_one_set(results: Sequence[Result]) -> str:
    """Of runs without a value, other protocols and other items."""
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


def unusable(results: Sequence[Result]) -> str:
    """Why the scores by item cannot give an interval."""
    metric = results[0].task.primary
    for r in results:
        if r.samples is None:
            return f"no interval: {metric} has no score by item"
        if len(r.samples.items) < 2:
            return "no interval: fewer than two items"
        named = r.samples.clusters
        if named is not None and named[0] and len(set(named)) < 2:
            return "no interval: all items are in one cluster"
        if r.samples.pairs is not None:
            made = corpus.score(r.samples.pairs, metric) if metric in corpus.CORPUS else None
        else:
            made = sum(r.samples.values or ()) / len(r.samples.items)
        if made is not None and not math.isfinite(made):
            return f"no interval: {metric} is not a number for some items"
        if made is None or r.value is None or abs(made - r.value) > TOLERANCE * max(1.0, abs(r.value)):
            return f"no interval: {metric} is no mean over items"
    return ""


def repeated(results: Sequence[Result]) -> str:
    """Of one side: which seed stands in it twice."""
    seeds = [r.seed for r in results if r.seed is not None]
    twice = sorted({seed for seed in seeds if seeds.count(seed) > 1})
    return f"seed {twice[0]} twice on one side" if twice else ""


def unlike_seeds(ours: Sequence[Result], baseline: Sequence[Result]) -> str:
    """Why seed cannot be paired with seed."""
    a, b = {r.seed for r in ours}, {r.seed for r in baseline}
    if None in a | b:
        return "matched seeds, and a side does not say which seeds it has"
    if alone := sorted(seed for seed in a ^ b if seed is not None):
        return f"matched seeds, and seed {alone[0]} is only on one side"
    return ""
