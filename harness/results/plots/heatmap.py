"""Heat map of the differences to the baseline: methods down, models across, a panel for each suite's headline.

A cell is coloured only where the difference is a finding after correction; undecided ones are grey and those of one
seed hollow. Every cell holds its number, or the word for why it has none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.errors import HarnessError
from harness.results.plots import style
from harness.results.table import Row, Table

PER_ROW = 12  # cells across a figure
DARK = 0.5  # brightness below which a number is white


def draw(table: Table) -> list[style.Plot]:
    """One figure for every dozen cells across. HarnessError where there is no difference to show."""
    models = style.by_model(table)
    methods = list(dict.fromkeys(r.method for rows in models.values() for r in rows if r.method != table.baseline))
    heads = style.headlines(table)
    rows = [row for found in models.values() for row in found]
    if table.baseline is None or not any(row.entries[i].difference for row in rows for i in heads):
        why = "no baseline in the table" if table.baseline is None else "no method was measured beside the baseline"
        raise HarnessError("no heat map: there are no differences", why=why, todo="name a method with --baseline")
    pages = [(i, list(models)[at : at + PER_ROW]) for i in heads for at in range(0, len(models), PER_ROW)]
    per_page = max(1, PER_ROW // min(PER_ROW, len(models)))
    plots = []
    for number, at in enumerate(range(0, len(pages), per_page), 1):
        name = "heatmap" if len(pages) <= per_page else f"heatmap-{number}"
        with style.style():
            plots.append(style.Plot(name, _figure(table, models, methods, pages[at : at + per_page])))
    return plots


def _figure(
    table: Table, models: dict[str, list[Row]], methods: Sequence[str], panels: Sequence[tuple[int, Sequence[str]]]
) -> Any:
    cells = sum(len(names) for _, names in panels)
    turned = any(len(names) > 1 for _, names in panels)
    width = max(5.0, min(style.WIDTH, 2.2 + 1.3 * cells))
    figure = style.canvas(width, 1.9 + 0.23 * len(methods) + (0.9 if turned else 0.0))
    ratios = [len(names) for _, names in panels]
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False, width_ratios=ratios)[0]
    for axis, (place, names) in zip(axes, panels, strict=True):
        _panel(axis, table, [(name, models[name]) for name in names], methods, place, turned)
    axes[0].set_yticks(range(len(methods)), [style.clean(m) for m in methods])
    axes[0].set_ylim(len(methods) - 0.5, -0.5)
    rows = [row for found in models.values() for row in found]
    one = f" on {style.clean(next(iter(models)), 40)}" if len(models) == 1 else ""
    title = f"Difference to {style.clean(table.baseline or '')}{one}"
    style.entitle(figure, f"{title}, {style.seeds_of(rows)}", CAPTION)
    return figure


CAPTION = (
    "Points (hundredths of a share) unless the panel names a unit. Blue: better; orange: worse; after Holm's "
    "correction over the model's headlines, 5 %.",
    "Grey: undecided. White, number in brackets: one seed a method, so no finding is possible.",
)


def _panel(
    axis: Any, table: Table, models: Sequence[tuple[str, list[Row]]], methods: Sequence[str], place: int, turned: bool
) -> None:
    column = table.columns[place]
    entries = [
        (x, methods.index(r.method), r.entries[place])
        for x, (_, rows) in enumerate(models)
        for r in rows
        if r.method != table.baseline
    ]
    size = max((abs(e.difference.value) for *_, e in entries if e.difference and e.difference.value), default=1.0)
    for x, y, entry in entries:
        _cell(axis, x, y, entry, size, style.scale(column))
    known = {(x, y) for x, y, _ in entries}
    for x in range(len(models)):
        for y in range(len(methods)):
            if (x, y) not in known:
                _word(axis, x, y, "not asked")
    axis.set_xlim(-0.5, len(models) - 0.5)
    names = [style.clean(name) for name, _ in models] if turned else [""] * len(models)
    axis.set_xticks(range(len(models)), names, rotation=35, ha="right", rotation_mode="anchor")
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    head = style.heading(column, (r.entries[place] for _, rows in models for r in rows))
    axis.set_title(head.replace(" (n", "\n(n") + ("" if column.percent else f"\n{style.clean(column.metric, 18)}"))


def _cell(axis: Any, x: int, y: int, entry: Any, size: float, unit: float) -> None:
    from matplotlib.patches import Rectangle

    if entry.difference is None or entry.difference.value is None:
        _word(axis, x, y, style.absent(entry))
        return
    value, verdict = entry.difference.value, style.verdict_of(entry)
    face, ink = _colours(verdict, abs(value) / size if size else 0.0)
    edge = "#bbbbbb" if verdict == "items only" else "white"
    axis.add_patch(Rectangle((x - 0.48, y - 0.46), 0.96, 0.92, facecolor=face, edgecolor=edge, gid=verdict))
    number = style.signed(value, unit)
    text = f"({number})" if verdict == "items only" else number
    axis.text(x, y, text, ha="center", va="center", color=ink, fontsize=8)


def _colours(verdict: str, share: float) -> tuple[Any, str]:
    """Of a cell and of its number. share: how large the difference is beside the panel's largest."""
    from matplotlib.colors import to_rgb

    if verdict not in ("better", "worse"):
        return (style.FAINT if verdict == "undecided" else "white"), "#555555"
    full = to_rgb(style.BETTER if verdict == "better" else style.WORSE)
    mixed = tuple(1 - (0.35 + 0.65 * share) * (1 - c) for c in full)
    light = sum(weight * c for weight, c in zip((0.3, 0.59, 0.11), mixed, strict=True))
    return mixed, "white" if light < DARK else "black"


def _word(axis: Any, x: int, y: int, word: str) -> None:
    axis.text(x, y, word, ha="center", va="center", color=style.GREY, fontsize=7, style="italic")
