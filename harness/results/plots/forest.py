"""Forest plots: every difference to the baseline with its 95 % interval, by task.

A panel holds one task with a line a method, or one method with a line a task where there are more tasks than methods.
Findings after correction are filled; undecided ones are grey, those of one seed hollow; what is missing says why.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.errors import HarnessError
from harness.results.plots import style
from harness.results.table import Entry, Row, Table

ACROSS, PER_PAGE = 3, 6
CAPTION = (
    "Bars: 95 % intervals, not corrected. Filled blue: better; filled orange: worse; after correction within the model "
    "(headlines: Holm, 5 %; other tasks: Benjamini-Hochberg, 10 %). Grey, filled: undecided. Hollow: one seed, so the "
    "interval covers items only and no finding is possible.",
)


@dataclass(frozen=True)
class _Panel:
    title: str
    unit: str
    lines: tuple[tuple[str, Entry, float], ...]


def draw(table: Table) -> list[style.Plot]:
    """For each model one figure for every six panels. HarnessError where there is no difference to show."""
    models = {
        model: others
        for model, rows in style.by_model(table).items()
        if any(e.difference for r in rows for e in r.entries)
        and (others := [r for r in rows if r.method != table.baseline])
    }
    if not models:
        why = "no baseline in the table" if table.baseline is None else "no method was measured beside the baseline"
        raise HarnessError("no forest plot: there are no differences", why=why, todo="name a method with --baseline")
    plots = []
    for model, name in style.file_names("forest", list(models)).items():
        panels = _panels(table, models[model])
        pages = [panels[at : at + PER_PAGE] for at in range(0, len(panels), PER_PAGE)]
        for number, page in enumerate(pages, 1):
            title = f"Difference to {style.clean(table.baseline or '')} on {style.clean(model, 40)}, "
            with style.style():
                figure = _figure(page, title + style.seeds_of(models[model]))
            plots.append(style.Plot(name if len(pages) == 1 else f"{name}-{number}", figure))
    return plots


def _panels(table: Table, rows: Sequence[Row]) -> list[_Panel]:
    places = [i for i in range(len(table.columns)) if any(r.entries[i].difference for r in rows)]
    units = {i: "points" if table.columns[i].percent else style.clean(table.columns[i].metric) for i in places}
    if len(rows) >= len(places):
        return [
            _Panel(
                style.heading(table.columns[i], (r.entries[i] for r in rows)),
                units[i],
                tuple((style.clean(r.method), r.entries[i], style.scale(table.columns[i])) for r in rows),
            )
            for i in places
        ]
    panels = []
    for row in rows:
        for unit in dict.fromkeys(units.values()):
            lines = tuple(
                (style.heading(table.columns[i], [row.entries[i]]), row.entries[i], style.scale(table.columns[i]))
                for i in places
                if units[i] == unit
            )
            panels.append(_Panel(style.clean(row.method), unit, lines))
    return panels


def _figure(panels: Sequence[_Panel], title: str) -> Any:
    across = min(ACROSS, len(panels))
    down = -(-len(panels) // across)
    tallest = max(len(p.lines) for p in panels)
    figure = style.canvas(style.WIDTH if across > 1 else 6.5, 1.2 + down * (0.8 + 0.19 * tallest))
    same = len({tuple(label for label, *_ in p.lines) for p in panels}) == 1
    axes = figure.subplots(down, across, squeeze=False, sharey=same)
    for number, axis in enumerate(axes.flat):
        if number >= len(panels):
            axis.set_visible(False)
            continue
        _panel(axis, panels[number])
        axis.tick_params(labelleft=not same or number % across == 0)
    style.entitle(figure, title, CAPTION)
    return figure


def _panel(axis: Any, panel: _Panel) -> None:
    axis.axvline(0, color="#555555", linewidth=0.8, zorder=0)
    for y, (_, entry, unit) in enumerate(panel.lines):
        if entry.difference is None or entry.difference.value is None:
            axis.annotate(
                style.absent(entry),
                (0.02, y),
                xycoords=("axes fraction", "data"),
                va="center",
                fontsize=7,
                style="italic",
                color=style.GREY,
            )
        else:
            _line(axis, y, entry, unit)
    axis.set_yticks(range(len(panel.lines)), [label for label, *_ in panel.lines])
    axis.set_ylim(len(panel.lines) - 0.4, -0.6)
    axis.grid(axis="y", color="#f0f0f0", linewidth=0.6)
    axis.set_axisbelow(True)
    axis.tick_params(axis="y", length=0)
    axis.set_title(panel.title)
    axis.set_xlabel(panel.unit)


def _line(axis: Any, y: int, entry: Entry, unit: float) -> None:
    found, verdict = entry.difference, style.verdict_of(entry)
    if found is None or found.value is None:
        return
    colour = {"better": style.BETTER, "worse": style.WORSE}.get(verdict, style.GREY)
    if found.low is not None and found.high is not None:
        axis.plot([unit * found.low, unit * found.high], [y, y], color=colour, linewidth=1.4, solid_capstyle="butt")
    face = "white" if verdict == "items only" else colour
    axis.plot([unit * found.value], [y], "o", color=colour, markerfacecolor=face, markersize=4.5, gid=verdict)
