"""Flips: items that a cell scores otherwise than on another night, in both directions, and how often they do so anyway.

Paired by item and seed. It counts; `gate_a.py` judges.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from harness.nightly.findings import Example
from harness.nightly.nights import Measured
from harness.results.items import Samples


@dataclass(frozen=True)
class Flips:
    """down, up: items with a lower and a higher score.  other: items of corpus metrics whose wrong answer is another.

    n: items compared, over all seeds.  items: those that changed, down first, with their seed and both scores.
    """

    down: int
    up: int
    other: int
    n: int
    items: tuple[Example, ...]

    @property
    def total(self) -> int:
        return self.down + self.up + self.other


@dataclass(frozen=True)
class Noise:
    """What repeated runs of one software showed on a task: flips among so many compared items."""

    flips: int = 0
    compared: int = 0

    @property
    def rate(self) -> float:
        """Never 0: that nothing flipped among a hundred items does not mean that nothing ever will."""
        return (self.flips + 0.5) / (self.compared + 1)

    def spread(self, n: int, seeds: int) -> float:
        """Of a mean over n items and so many seeds, from flips alone: one run differs from another by `rate`."""
        return float((self.rate / 2 / n / seeds) ** 0.5)

    def __add__(self, other: Noise) -> Noise:
        return Noise(self.flips + other.flips, self.compared + other.compared)


def flips(then: Measured, now: Measured) -> Flips | None:
    """Paired by item and seed; None where the items or seeds are not the same, or there are no scores by item."""
    if then.line.seeds != now.line.seeds or not then.results or len(then.results) != len(now.results):
        return None
    found: list[tuple[int, Example]] = []
    n = 0
    for seed, was, is_now in zip(then.line.seeds, then.results, now.results, strict=True):
        if was.samples is None or is_now.samples is None or was.samples.items != is_now.samples.items:
            return None
        n += len(was.samples.items)
        found += [(way, Example(item, seed, *words)) for item, way, *words in _changed(was.samples, is_now.samples)]
    ways = [way for way, _ in found]
    ordered = tuple(example for _, example in sorted(found, key=lambda pair: pair[0]))
    return Flips(ways.count(-1), ways.count(1), ways.count(0), n, ordered)


def _changed(was: Samples, now: Samples) -> Iterator[tuple[str, int, str, str]]:
    """(item, -1 or 1 or 0, its score then, its score now) of every item that differs."""
    if was.values is not None and now.values is not None:
        for item, a, b in zip(was.items, was.values, now.values, strict=True):
            if a != b:
                yield item, 1 if b > a else -1, f"{a:g}", f"{b:g}"
    elif was.pairs is not None and now.pairs is not None:
        for item, old, new in zip(was.items, was.pairs, now.pairs, strict=True):
            if old != new:
                right = (old[0] == old[1], new[0] == new[1])
                yield item, int(right[1]) - int(right[0]), f"{old[1]}", f"{new[1]}"


def noise_of(runs: Sequence[Iterable[Measured]]) -> dict[str, Noise]:
    """By task, from runs of the same artifacts under the same software, each compared with the one before it."""
    found: dict[str, Noise] = {}
    tables = [{m.line.what: m for m in run} for run in runs]
    for before, after in pairwise(tables):
        for what in before.keys() & after.keys():
            if counted := flips(before[what], after[what]):
                task = what[1]
                found[task] = found.get(task, Noise()) + Noise(counted.total, counted.n)
    return found
