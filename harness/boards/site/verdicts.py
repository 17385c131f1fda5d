"""What a page may say of a board's differences and ranks: the statistics decide before anything is drawn.

A difference is `better` or `worse` only where the table calls it a finding, which is after its correction. `one seed`
never is one: another training seed could undo it. Places are among the methods of one model, as in the table; beside
those in each suite there are places over the headline tasks of all suites.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.results.columns import Column
from harness.results.findings import Finding
from harness.results.frame import CellResult, Frame
from harness.results.places import places_over
from harness.results.stats import Estimate
from harness.results.table import Row, Table

OVERALL = ""


def verdicts(table: Table) -> dict[tuple[int, int], str]:
    """(row, column) -> `better`, `worse`, `undecided`, `one seed`, or `refused` where there is no difference."""
    return {
        (place, at): _verdict(entry.finding, entry.difference)
        for place, row in enumerate(table.rows)
        for at, entry in enumerate(row.entries)
        if entry.difference is not None
    }


def _verdict(finding: Finding | None, difference: Estimate) -> str:
    if difference.value is None:
        return "refused"
    if difference.items_only:
        return "one seed"
    return finding.verdict if finding is not None else "undecided"


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
    models: dict[str, dict[str, Sequence[CellResult]]] = {}
    for place, row in enumerate(rows):
        if row.level == "method" and columns:
            finished = _finished([cells[name] for name in row.cells], columns)
            models.setdefault(row.model, {})[str(place)] = finished
    found = [of_model for rows_of in models.values() if len(of_model := places_over(rows_of, columns)) > 1]
    if not found:
        return {"reason": "no model has two rows with all tasks and their spread"}
    ranked = {name: place for of_model in found for name, place in of_model.items()}
    listed = [ranked.get(str(place)) for place in range(len(rows))]
    return {"places": [[p.tier, p.low, p.high] if p else None for p in listed]}


def _finished(cells: Sequence[CellResult], columns: Sequence[Column]) -> Sequence[CellResult]:
    """Without seeds that lack a task, which would move the others' mean. Groups of one seed stay or go together."""
    if any(cell.view.group_of for cell in cells):
        return cells
    return [c for c in cells if all((r := column.results_of([c])[0]) and r.state == "ok" for column in columns)]
