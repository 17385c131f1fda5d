"""A table for programs: JSON with a versioned schema, and CSV, long (a line a number) and wide (a line a row).

Numbers are in the metric's own unit (0.31, not 31 %), rounded to nine decimals so that the same store gives the same
bytes on any machine. What is not known is null, or an empty field.
"""

from __future__ import annotations

import csv
import io
import json
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields
from typing import Any

from harness.results.columns import Column
from harness.results.compare import Line
from harness.results.frame import Cost
from harness.results.stats import Estimate
from harness.results.table import Entry, Row, Table

SCHEMA, VERSION = "harness-table", 1
COSTS = tuple(f.name for f in fields(Cost) if f.name != "train_phases")
COLUMN = tuple(f.name for f in fields(Column) if f.name != "regime")  # version 1 of the schema does not have it


def to_json(table: Table) -> str:
    """{schema, version, baseline, columns, rows, notes}; entries of a row are keyed by the label of their column."""
    body = {
        "schema": SCHEMA,
        "version": VERSION,
        "baseline": table.baseline,
        "columns": [{name: getattr(column, name) for name in COLUMN} for column in table.columns],
        "rows": [_row(row, table.columns) for row in table.rows],
        "notes": list(table.notes),
    }
    return json.dumps(_rounded(body), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def to_long_csv(table: Table) -> str:
    """Long: one line for every row, column and metric. A task's other metrics have no interval and no difference."""
    header = [*ROW, "suite", "task", "column", "metric", "primary", "headline", "protocol", "state", "reason"]
    header += [*ESTIMATE, *(f"difference_{name}" for name in ESTIMATE), *TESTED, *FOUND, *PLACED]
    header += ["truncated", "items", "whole", "chance"]
    return _csv(header, _long(table))


def to_wide_csv(table: Table) -> str:
    """Wide: one line for every row; of each column its state, value, interval, n and difference; then the costs."""
    header = [*ROW]
    for column in table.columns:
        header += [column.label, *(f"{column.label} {name}" for name in ("state", "low", "high", "n"))]
        header += [f"{column.label} {name}" for name in ("difference", "difference low", "difference high")]
    return _csv([*header, *COSTS], _wide(table))


ROW = ("level", "model", "method", "cells", "seeds", "flags")
ESTIMATE = ("value", "low", "high", "n", "seeds", "how")
TESTED = ("p", "mde", "items_better", "items_worse")
FOUND = ("verdict", "adjusted", "primary_family")
PLACED = ("tier", "rank_low", "rank_high")


def _row(row: Row, columns: Sequence[Column]) -> dict[str, Any]:
    entries = {c.label: _entry(e) for c, e in zip(columns, row.entries, strict=True)}
    return {
        **{name: getattr(row, name) for name in ("level", "model", "method", "cells", "seeds", "flags")},
        **{name: getattr(row, name) for name in ("trained", "state", "reason", "notes")},
        "entries": entries,
        "cost": asdict(row.cost),
        "tuning": asdict(row.tuning) if row.tuning else None,
    }


def _entry(entry: Entry) -> dict[str, Any]:
    return {
        "state": entry.state,
        "reason": entry.reason,
        "estimate": _estimate(entry.estimate),
        "difference": _difference(entry),
        "place": asdict(entry.place) if entry.place else None,
        "truncated": entry.truncated,
        "others": dict(entry.others),
        "notes": entry.notes,
    }


def _estimate(estimate: Estimate | None) -> dict[str, Any] | None:
    if estimate is None:
        return None
    return {name: getattr(estimate, name) for name in (*ESTIMATE, "reason")}


def _difference(entry: Entry) -> dict[str, Any] | None:
    found, shown = entry.difference, _estimate(entry.difference)
    if found is None or shown is None:
        return None
    more = {name: getattr(found, name) for name in ("p", "df", "mde", "flips", "seed_sd")}
    return {**shown, **more, "finding": asdict(entry.finding) if entry.finding else None}


def line_as_dict(line: Line) -> dict[str, Any]:
    """A line of a comparison, with its difference as a table has it."""
    plain = {name: getattr(line, name) for name in ("suite", "label", "metric", "headline", "refused")}
    both = Entry("ok", difference=line.difference, finding=line.finding)
    body = {**plain, "a": _estimate(line.a), "b": _estimate(line.b), "difference": _difference(both)}
    return {name: _rounded(value) for name, value in body.items()}


def _long(table: Table) -> Iterator[list[Any]]:
    for row in table.rows:
        for column, entry in zip(table.columns, row.entries, strict=True):
            place = [column.suite, column.task, column.label]
            kind = [column.headline, column.protocol, entry.state, entry.reason]
            tail = [entry.truncated, column.items, column.whole, column.chance]
            numbers = [*_numbers(entry.estimate), *_numbers(entry.difference), *_tested(entry)]
            yield [*_named(row), *place, column.metric, True, *kind, *numbers, *tail]
            for metric, value in entry.others:
                numbers = [value, *[None] * (len(numbers) - 1)]
                yield [*_named(row), *place, metric, False, *kind, *numbers, *tail[:3], None]


def _wide(table: Table) -> Iterator[list[Any]]:
    for row in table.rows:
        line = _named(row)
        for entry in row.entries:
            value, low, high, n, _, _ = _numbers(entry.estimate)
            line += [value, entry.state, low, high, n, *_numbers(entry.difference)[:3]]
        yield [*line, *(getattr(row.cost, name) for name in COSTS)]


def _named(row: Row) -> list[Any]:
    lists = (row.cells, row.seeds, row.flags)
    return [row.level, row.model, row.method, *(" ".join(map(str, several)) for several in lists)]


def _numbers(estimate: Estimate | None) -> list[Any]:
    return [None if estimate is None else getattr(estimate, name) for name in ESTIMATE]


def _tested(entry: Entry) -> list[Any]:
    found, finding, place = entry.difference, entry.finding, entry.place
    return [
        *((found.p, found.mde, *(found.flips or (None, None))) if found else [None] * len(TESTED)),
        *((finding.verdict, finding.adjusted, finding.primary) if finding else [None] * len(FOUND)),
        *((place.tier, place.low, place.high) if place else [None] * len(PLACED)),
    ]


def _csv(header: Sequence[str], lines: Iterator[list[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([_field(name) for name in header])
    writer.writerows([_field(_rounded(value)) for value in line] for line in lines)
    return text.getvalue()


def _field(value: Any) -> Any:
    """Text that a spreadsheet would run as a formula is made plain text; numbers stay numbers."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        lines = value.replace("\r\n", "\n").replace("\r", "\n")  # the writer quotes `\n` alone
        return f"'{lines}" if _may_run(lines) else lines
    return value


def _may_run(text: str) -> bool:
    """Whether a spreadsheet may read a formula: some drop what cannot be seen before it, and fold full-width signs."""
    first = next((c for c in text if not c.isspace() and not unicodedata.category(c).startswith("C")), "")
    return text[:1] in ("\t", "\n") or unicodedata.normalize("NFKC", first)[:1] in ("=", "+", "-", "@")


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 9) + 0.0  # adding 0.0 turns -0.0 into 0.0
    if isinstance(value, dict):
        return {name: _rounded(v) for name, v in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(v) for v in value]
    return value
