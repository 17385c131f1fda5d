"""The place of every method in the headline columns of a table: its tier and the interval of its rank.

Methods are ranked among those of one model. One that has no value for every seed and task of a column has no place in
it, nor has one whose values have no known spread (a single item, a metric that is no mean of its items), and neither
have methods that cannot be compared with the best of the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness.results import stats
from harness.results.columns import Column
from harness.results.frame import CellResult, Result
from harness.results.tiers import Place, rank


def find_places(
    groups: Mapping[tuple[str, str], Sequence[CellResult]], columns: Sequence[Column]
) -> dict[tuple[str, str, str], Place]:
    """groups: cells by model and method.  By model, method and the label of a headline column."""
    by_label = {c.label: c for c in columns}
    models: dict[str, dict[str, Sequence[CellResult]]] = {}
    for (model, method), cells in groups.items():
        models.setdefault(model, {})[method] = cells
    found: dict[tuple[str, str, str], Place] = {}
    for column in (c for c in columns if c.headline):
        tasks = [by_label[label] for label in column.of_tasks] or [column]
        for model, rows in models.items():
            for method, place in places_over(rows, tasks).items():
                found[model, method, column.label] = place
    return found


def places_over(rows: Mapping[str, Sequence[CellResult]], tasks: Sequence[Column]) -> dict[str, Place]:
    """The places of rows, each given by its cells, by their mean over tasks; rows that have none are left out."""
    complete = {name: row for name, cells in rows.items() if (row := _row(cells, tasks)) is not None}
    return rank(_comparable(complete))


def _row(cells: Sequence[CellResult], tasks: Sequence[Column]) -> dict[str, list[Result]] | None:
    """Task -> one result a seed, or None where one is missing or the spread of their mean is not known."""
    if not cells:
        return None
    row = {}
    for task in tasks:
        results = [r for r in task.results_of(cells) if r is not None and r.state == "ok" and r.samples is not None]
        if not results or len(results) < len(task.results_of(cells)):
            return None
        row[task.label] = results
    whole = stats.suite_mean([stats.mean(results) for results in row.values()])
    return row if whole.spread is not None else None


def _comparable(rows: Mapping[str, dict[str, list[Result]]]) -> dict[str, dict[str, list[Result]]]:
    """Those that answered the same items as most of the others did."""
    sets = {name: {r.task.task: r.samples.items for r in _all(row) if r.samples} for name, row in rows.items()}
    usual = max(sets.values(), key=list(sets.values()).count, default={})
    return {name: row for name, row in rows.items() if sets[name] == usual}


def _all(row: Mapping[str, Sequence[Result]]) -> list[Result]:
    return [r for results in row.values() for r in results]
