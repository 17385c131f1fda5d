"""What a page may say of a board's differences and ranks: the statistics decide, here, before anything is drawn.

A difference is `better` or `worse` only where its p, corrected for all differences of its kind on the board
(Benjamini-Hochberg; tasks and means are two kinds), is below 5 %. `one seed` never is a finding: another training seed
could undo it. Rows of a single seed beside their method's mean are not judged a second time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.boards.site.samples import is_of
from harness.results.columns import Column
from harness.results.corrections import benjamini_hochberg
from harness.results.frame import CellResult, Frame, Result
from harness.results.stats import Estimate
from harness.results.table import Row, Table
from harness.results.tiers import rank

LEVEL = 0.05
OVERALL = ""


def verdicts(table: Table) -> dict[tuple[int, int], str]:
    """(row, column) -> `better`, `worse`, `undecided`, `one seed`, or `refused` where there is no difference."""
    found: dict[tuple[int, int], str] = {}
    for means in (False, True):
        places = [at for at, column in enumerate(table.columns) if bool(column.of_tasks) is means]
        known = {
            (place, at): difference
            for place, row in enumerate(table.rows)
            for at in places
            if (difference := row.entries[at].difference) is not None
        }
        judged = {key: d.claim for key, d in known.items() if table.rows[key[0]].level == "method"}
        corrected = dict(zip(judged, benjamini_hochberg(list(judged.values())), strict=True))
        found |= {key: _verdict(difference, corrected.get(key)) for key, difference in known.items()}
    return found


def _verdict(difference: Estimate, p: float | None) -> str:
    if difference.value is None:
        return "refused"
    if difference.items_only:
        return "one seed"
    if p is None or p >= LEVEL:
        return "undecided"
    return "better" if difference.value > 0 else "worse"


def places(frame: Frame, table: Table) -> dict[str, dict[str, Any]]:
    """By suite, and over all suites under "": {places: [tier, low, high] or null a row} or {reason: why not}.

    Only finished rows take part: a place among rows with other tasks would mean something else.
    """
    cells = {cell.view.name: cell for cell in frame.cells}
    scopes = {suite: _headline(table, suite) for suite in dict.fromkeys(c.suite for c in table.columns)}
    if len(scopes) > 1:
        scopes = {OVERALL: [c for columns in scopes.values() for c in columns], **scopes}
    return {scope: _places(table.rows, cells, columns) for scope, columns in scopes.items()}


def _headline(table: Table, suite: str) -> list[Column]:
    """The tasks behind the first headline of a suite; there are several where tasks had several protocols."""
    first = next((c for c in table.columns if c.suite == suite and c.headline), None)
    if first is None:
        return []
    return [c for c in table.columns if c.label in (first.of_tasks or (first.label,))]


def _places(rows: Sequence[Row], cells: Mapping[str, CellResult], columns: Sequence[Column]) -> dict[str, Any]:
    complete = {}
    for place, row in enumerate(rows):
        finished = [found for name in row.cells if (found := _results(cells[name], columns))]
        if row.level == "method" and finished and columns:
            complete[str(place)] = {c.label: [found[c.label] for found in finished] for c in columns}
    if len(complete) < 2:
        return {"reason": "fewer than two rows have all tasks"}
    try:
        ranked = rank(complete)
    except ValueError as error:
        return {"reason": str(error)}
    listed = [ranked.get(str(place)) for place in range(len(rows))]
    return {"places": [[p.tier, p.low, p.high] if p else None for p in listed], "of": len(complete)}


def _results(cell: CellResult, columns: Sequence[Column]) -> dict[str, Result]:
    """A result for every column, or none at all: a seed that lacks a task would move the others' mean."""
    found = {}
    for column in columns:
        for result in cell.results:
            if is_of(result.task, column) and result.state == "ok" and result.value is not None:
                found[column.label] = result
    return found if len(found) == len(columns) else {}
