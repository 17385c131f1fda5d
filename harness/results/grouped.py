"""One result from those of several models that were trained on one group of the rows each, under one training seed.

An item's score is its mean over the models, so that items and seeds stay what every other row has. A metric that is no
mean over items keeps its value and loses its interval.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import replace

from harness.results.frame import CellResult, Result
from harness.results.items import Samples


def by_seed(cells: Sequence[CellResult], results: Sequence[Result | None]) -> list[Result | None]:
    """results: one a cell.  One for every training seed of the groups, in the order of the cells."""
    seeds: dict[int | None, list[Result | None]] = {}
    for cell, result in zip(cells, results, strict=True):
        seeds.setdefault(cell.view.seed, []).append(result)
    return [_one(models) for models in seeds.values()]


def _one(results: Sequence[Result | None]) -> Result | None:
    """What a seed lacks in one group it lacks."""
    found = [r for r in results if r is not None]
    if len(found) < len(results):
        return None
    lacking = next((r for r in found if r.state != "ok"), None)
    if lacking is not None or len(found) == 1:
        return lacking or found[0]
    values = [r.value for r in found if r.value is not None]
    cut = [r.truncated for r in found if r.truncated is not None]
    return replace(
        found[0],
        value=sum(values) / len(values),
        samples=_mean_samples([r.samples for r in found]),
        truncated=sum(cut) / len(cut) if cut else None,
        too_long=sum(r.too_long for r in found),
        others={name: sum(r.others[name] for r in found) / len(found) for name in found[0].others},
    )


def _mean_samples(samples: Sequence[Samples | None]) -> Samples | None:
    """None where the metric is no mean, or the models were not asked the same items."""
    scored = [s for s in samples if s is not None and s.values is not None]
    if len(scored) < len(samples) or any(s.items != scored[0].items for s in scored):
        return None
    columns = zip(*(s.values for s in scored if s.values is not None), strict=True)
    return replace(scored[0], values=array("d", (sum(column) / len(scored) for column in columns)))
