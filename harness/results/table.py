"""A frame becomes a table: columns of one protocol each, rows of methods and cells, differences to a baseline.

A pure function of its frame: no clock, no randomness, no files. Every footnote is a plain sentence on what it marks;
equal sentences share a number when rendered. Rendering is in `render` (Markdown, terminal) and `export` (CSV, JSON).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal

from harness.results import stats
from harness.results.columns import Column, make_columns
from harness.results.findings import Finding, find
from harness.results.frame import CellResult, Cost, Frame, Result, State
from harness.results.notes import overlap_notes, table_notes, unplaced
from harness.results.places import find_places
from harness.results.searched import Tuning
from harness.results.stats import Estimate
from harness.results.tiers import Place

if TYPE_CHECKING:
    from rich.console import RenderableType

Level = Literal["method", "cell"]
Rows = Literal["methods", "cells", "all"]
CUT = "answers cut by the token limit in "
TRUNCATED = 0.02  # share of cut answers above which a number is marked


@dataclass(frozen=True)
class Entry:
    """Where a row and a column meet. difference: to the baseline of the same model, None on the baseline's own row.

    finding: what the difference shows, corrected over all methods of the model; None on the rows of single seeds.
    place: tier and rank among the methods of the model, in headline columns where they were asked for.
    """

    state: State
    reason: str = ""
    estimate: Estimate | None = None
    difference: Estimate | None = None
    finding: Finding | None = None
    place: Place | None = None
    truncated: float | None = None
    seconds: float | None = None
    others: tuple[tuple[str, float], ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Row:
    """level "method": the mean over the seeds of one method on one model; "cell": one of several seeds.

    A method with one cell is one row, of level "method", which names that cell. entries follow the table's columns.
    groups: how many groups of the training data a row is the mean over; 0 where there are none.
    """

    level: Level
    model: str
    method: str
    cells: tuple[str, ...]
    seeds: tuple[int, ...]
    state: State
    reason: str
    flags: tuple[str, ...]
    entries: tuple[Entry, ...]
    cost: Cost
    notes: tuple[str, ...] = ()
    trained: bool = False
    tuning: Tuning | None = None
    groups: int = 0


@dataclass(frozen=True)
class Table:
    """baseline: the method the differences refer to, None if there is none. notes: what holds for the whole table.

    phases: whether training times are shown by phase.  pareto: the cost that scores are shown against, "" for none.
    """

    baseline: str | None
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    phases: bool = False
    pareto: str = ""

    def markdown(self, *, width: int = 120) -> str:
        """For people; blocks of at most `width` characters."""
        from harness.results import render

        return render.markdown(self, width=width)

    def markdown_by_task(self) -> str:
        """For people, where there are more columns than rows: one line a column, one value a row."""
        from harness.results import render

        return render.by_task(self)

    def terminal(self, *, width: int = 120) -> RenderableType:
        """For a rich console that is `width` columns wide."""
        from harness.results import render

        return render.terminal(self, width=width)

    def html(self, *, title: str = "Results") -> str:
        """A page for a browser."""
        from harness.results import html

        return html.html(self, title=title)

    def latex(self, *, columns: Sequence[str] = ()) -> str:
        """For a paper: the headlines, or the columns named."""
        from harness.results import latex

        return latex.latex(self, columns=columns)

    def csv(self) -> str:
        """Wide: one line a row."""
        from harness.results import export

        return export.to_wide_csv(self)

    def csv_long(self) -> str:
        """Long: one line for every row, column and metric."""
        from harness.results import export

        return export.to_long_csv(self)

    def json(self) -> str:
        """Everything, under a versioned schema."""
        from harness.results import export

        return export.to_json(self)


def make_table(
    frame: Frame,
    *,
    baseline: str | None = "base",
    notes: Sequence[str] = (),
    strict: bool = False,
    rows: Rows = "all",
    ranked: bool = False,
) -> Table:
    """Make the table. notes: further sentences under it.  rows: methods (means over seeds), cells, or both.

    ranked: give every method its tier and rank interval in each headline column.
    HarnessError if strict and some task was measured under more than one protocol.
    """
    columns = make_columns([r.task for c in frame.cells for r in c.results], strict)
    groups: dict[tuple[str, str], list[CellResult]] = {}
    for cell in frame.cells:
        groups.setdefault((cell.view.model, cell.view.row), []).append(cell)
    present = baseline if any(method == baseline for _, method in groups) else None
    made: list[Row] = []
    for (model, method), cells in groups.items():
        against = groups.get((model, baseline or ""), []) if method != baseline else []
        if rows != "cells" or len(cells) == 1:
            made.append(_row("method", cells, against, columns))
        if rows != "methods" and len(cells) > 1:
            made += [_row("cell", [cell], against, columns) for cell in cells]
    made = _with_findings(made, columns)
    if ranked:
        made = _with_places(made, columns, find_places(groups, columns))
    columns = _with_units(columns, made)
    made = _mark_truncated(made, columns)
    said = [*table_notes(made, present, baseline), *(unplaced(made, columns) if ranked else [])]
    return Table(present, tuple(columns), tuple(made), (*said, *notes))


def _row(level: Level, cells: Sequence[CellResult], against: Sequence[CellResult], columns: Sequence[Column]) -> Row:
    first = cells[0].view
    by_label: dict[str, Entry] = {}
    for column in columns:
        if not column.of_tasks:
            by_label[column.label] = _entry(column.results_of(cells), column.results_of(against))
    for column in columns:
        if column.of_tasks:
            by_label[column.label] = _mean_entry([by_label[label] for label in column.of_tasks])
    state, reason = _worst([(c.state, c.reason) for c in cells])
    notes = [note for c in cells for note in c.view.notes]
    if first.flags:
        notes.append("; ".join(first.flags))
    return Row(
        level,
        first.model,
        first.row if level == "method" else first.method,
        tuple(c.view.name for c in cells),
        tuple(dict.fromkeys(c.view.seed for c in cells if c.view.seed is not None)),
        state,
        reason,
        first.flags,
        tuple(by_label[c.label] for c in columns),
        _mean_cost([c.cost for c in cells if c.state in ("ok", "diverged")] or [c.cost for c in cells]),
        tuple(dict.fromkeys(notes)),
        trained=any(c.view.train for c in cells),
        tuning=cells[0].tuning,
        groups=len({c.view.method for c in cells}) if first.group_of else 0,
    )


def _entry(results: Sequence[Result | None], against: Sequence[Result | None]) -> Entry:
    found = [r for r in results if r is not None and r.state == "ok"]
    state, reason = _worst([(r.state, r.reason) if r else ("missing", "not in this protocol") for r in results])
    answered = [r for r in results if r is not None and r.state in ("ok", "withheld")]
    shares = [r.truncated for r in answered if r.truncated is not None]
    cut = sum(shares) / len(shares) if shares else None
    seconds = _mean_or_none([r.seconds for r in answered])
    if not found:
        return Entry(state, reason, truncated=cut, seconds=seconds, notes=(reason,))
    estimate = stats.mean(found)
    base = [r for r in against if r is not None and r.state == "ok"]
    notes = [estimate.reason] if estimate.reason else []
    if len(found) < len(results):
        notes.append(f"mean of {len(found)} of {len(results)} seeds; the others: {reason}")
    expected = found[0].task.items
    if expected is not None and estimate.n != expected:
        notes.append(f"{estimate.n} of {expected} items scored")
    notes += overlap_notes(found, estimate)
    if unasked := sum(r.too_long for r in found):
        notes.append(f"{unasked} prompts did not fit the context and count as wrong")
    return Entry(
        "ok" if estimate.value is not None else "failed",
        reason if len(found) < len(results) else estimate.reason if estimate.value is None else "",
        estimate if estimate.value is not None else None,
        stats.difference(found, base) if base else None,
        truncated=cut,
        seconds=seconds,
        others=tuple(sorted(found[0].others.items())) if len(results) == 1 else (),
        notes=tuple(notes),
    )


def _mean_or_none(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if values and len(known) == len(values) else None


def _mean_entry(members: Sequence[Entry]) -> Entry:
    if any(m.estimate is None for m in members):
        state, reason = _worst([(m.state, m.reason) for m in members])
        return Entry(state, reason, notes=(reason,))
    estimate = stats.suite_mean([m.estimate for m in members if m.estimate])
    paired = [m.difference for m in members if m.difference]
    difference = stats.suite_mean(paired) if len(paired) == len(members) else None
    return Entry("ok", "", estimate, difference, notes=(estimate.reason,) if estimate.reason else ())


def _worst(states: Sequence[tuple[State, str]]) -> tuple[State, str]:
    """The state that a reader must know of; "partial" where some are merely not done."""
    order = ("diverged", "failed", "partial", "missing", "withheld", "ok")
    return min(states, key=lambda s: order.index(s[0]), default=("missing", "no tasks"))


def _mean_cost(costs: Sequence[Cost]) -> Cost:
    """The mean of each cost over cells, which are those that are finished; None where any of them does not know it."""
    if len(costs) == 1:
        return costs[0]
    merged: dict[str, Any] = {}
    for field in fields(Cost):
        values = [getattr(cost, field.name) for cost in costs]
        if field.name == "train_phases":
            names = [name for name in values[0] if all(name in v for v in values)]
            merged[field.name] = {name: sum(v[name] for v in values) / len(values) for name in names}
        else:
            merged[field.name] = None if None in values else sum(values) / len(values)
    return Cost(**merged)


def _with_findings(rows: Sequence[Row], columns: Sequence[Column]) -> list[Row]:
    """The methods of one model are corrected together; single seeds of a method are parts of it and no comparisons."""
    found = list(rows)
    for model in dict.fromkeys(row.model for row in rows):
        mine = [i for i, row in enumerate(rows) if row.model == model and row.level == "method"]
        shown = find([[e.difference for e in rows[i].entries] for i in mine], [c.headline for c in columns])
        for i, findings in zip(mine, shown, strict=True):
            entries = (replace(e, finding=f) for e, f in zip(rows[i].entries, findings, strict=True))
            found[i] = replace(rows[i], entries=tuple(entries))
    return found


def _with_places(
    rows: Sequence[Row], columns: Sequence[Column], places: Mapping[tuple[str, str, str], Place]
) -> list[Row]:
    return [
        replace(
            row,
            entries=tuple(
                replace(e, place=places.get((row.model, row.method, c.label)) if row.level == "method" else None)
                for e, c in zip(row.entries, columns, strict=True)
            ),
        )
        for row in rows
    ]


def _with_units(columns: Sequence[Column], rows: Sequence[Row]) -> list[Column]:
    """Percent only where every value of a column is a share (or lies in -1..1), so that a column has one unit."""
    found = []
    for place, column in enumerate(columns):
        estimates = [e for row in rows if (e := row.entries[place].estimate) is not None]
        share = all(e.bounds is not None for e in estimates) if estimates else (column.chance or 0) < 1
        found.append(replace(column, percent=share))
    return found


def _mark_truncated(rows: Sequence[Row], columns: Sequence[Column]) -> list[Row]:
    """One footnote a task, on every number with many cut answers, that lists the rows and their shares."""
    first: dict[tuple[str, str, str], str] = {}  # metrics of one task share its answers, which are listed once
    for c in columns:
        first.setdefault((c.suite, c.task, c.protocol), c.label)
    labels = [first[c.suite, c.task, c.protocol] for c in columns]
    cut = {
        (i, place): f"{row_label(row)} {100 * entry.truncated:.0f} %"
        for i, row in enumerate(rows)
        for place, entry in enumerate(row.entries)
        if entry.truncated is not None and entry.truncated > TRUNCATED
    }
    listed: dict[str, dict[str, None]] = {}
    for (_, place), share in cut.items():
        listed.setdefault(labels[place], {})[share] = None
    notes = {label: f"{CUT}{label}: {', '.join(shares)}" for label, shares in listed.items()}
    return [
        replace(
            row,
            entries=tuple(
                replace(e, notes=(*e.notes, notes[labels[place]])) if (i, place) in cut else e
                for place, e in enumerate(row.entries)
            ),
        )
        for i, row in enumerate(rows)
    ]


def row_label(row: Row) -> str:
    """`sft`, `sft (3 seeds)` for a mean, `sft s0` for one seed of several."""
    if row.level == "cell":
        return f"{row.method} s{row.seeds[0]}" if row.seeds else row.cells[0]
    if row.groups:
        return f"{row.method} ({row.groups} groups" + (
            f", {len(row.cells)} cells)" if len(row.cells) > row.groups else ")"
        )
    return row.method if len(row.cells) == 1 else f"{row.method} ({len(row.cells)} seeds)"
