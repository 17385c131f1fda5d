"""Score against cost: a panel for each suite's headline, a numbered point a method, the Pareto front marked.

The cost is the wall-clock time of training; untrained methods cost nothing. The key gives each number its name, so that
forty points stay legible. Methods without a score or a cost are listed with the reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.errors import HarnessError
from harness.results.pareto import front
from harness.results.plots import style
from harness.results.table import Row, Table

ACROSS, IN_KEY = 2, 26
CAPTION = (
    "Bars: 95 % intervals of the score, of the items alone where a method has one seed. Blue, joined: the "
    "Pareto front, which no other method beats in score at the same cost or less; it compares values alone, and near "
    "ones may not differ. Untrained methods cost 0 s. Where other work shared the machine, seconds are upper bounds.",
)


def draw(table: Table) -> list[style.Plot]:
    """One figure a model. HarnessError where no method has both a score and a cost."""
    heads = style.headlines(table)
    models = {
        model: rows
        for model, rows in style.by_model(table).items()
        if any(r.trained and _point(r, i) is not None for r in rows for i in heads)
    }
    if not models:
        why = "no trained method has both a score and the time of its training"
        raise HarnessError("no plot of score against cost", why=why, todo="run a method that trains")
    plots = []
    for model, name in style.file_names("pareto", list(models)).items():
        with style.style():
            plots.append(style.Plot(name, _figure(table, model, models[model], heads)))
    return plots


def cost_of(row: Row) -> float | None:
    """Seconds of training; None where they are not known."""
    return row.cost.train_seconds if row.trained else 0.0


def _point(row: Row, place: int) -> tuple[float, float] | None:
    estimate, cost = row.entries[place].estimate, cost_of(row)
    return None if cost is None or estimate is None or estimate.value is None else (cost, estimate.value)


def _figure(table: Table, model: str, rows: Sequence[Row], heads: Sequence[int]) -> Any:
    shown = [i for i in heads if any(_point(r, i) for r in rows)]
    across = min(ACROSS, len(shown))
    down = -(-len(shown) // across)
    columns = -(-len(rows) // IN_KEY)
    figure = style.canvas(style.WIDTH, max(1.5 + 2.9 * down, 1.6 + 0.16 * min(len(rows), IN_KEY)))
    grid = figure.add_gridspec(down, across + 1, width_ratios=[1.0] * across + [0.42 * columns])
    for number, place in enumerate(shown):
        axis = figure.add_subplot(grid[number // across, number % across])
        _panel(axis, table, rows, place)
    _key(figure.add_subplot(grid[:, across]), rows, shown)
    style.entitle(figure, f"Score against cost on {style.clean(model, 40)}, {style.seeds_of(rows)}", CAPTION)
    return figure


def _panel(axis: Any, table: Table, rows: Sequence[Row], place: int) -> None:
    column, unit = table.columns[place], style.scale(table.columns[place])
    points = [_point(r, place) or (None, None) for r in rows]
    best = front(points)
    joined = sorted(
        (c, s * unit) for (c, s), on in zip(points, best, strict=True) if on and c is not None and s is not None
    )
    if joined:
        axis.step(
            [c for c, _ in joined], [s for _, s in joined], where="post", color=style.BETTER, linewidth=1.2, gid="front"
        )
    for number, (row, (cost, score), on) in enumerate(zip(rows, points, best, strict=True), 1):
        if cost is not None and score is not None:
            _mark(axis, number, cost, row.entries[place].estimate, unit, on)
    axis.set_title(style.heading(column, (r.entries[place] for r in rows)))
    axis.set_ylabel("%" if column.percent else style.clean(column.metric))
    axis.set_xlabel("seconds of training, mean a seed")
    axis.margins(0.07)
    style.plain_ticks(axis.xaxis)


def _mark(axis: Any, number: int, cost: float, estimate: Any, unit: float, on: bool) -> None:
    colour = style.BETTER if on else style.GREY
    if estimate.low is not None and estimate.high is not None:
        axis.plot([cost, cost], [unit * estimate.low, unit * estimate.high], color=colour, linewidth=0.8, alpha=0.45)
    at, top = (cost, unit * estimate.value), 3 if on else 2
    axis.plot(*at, "o", markersize=10.5, markerfacecolor=colour if on else "white", markeredgecolor=colour, zorder=top)
    ink = "white" if on else "#444444"
    axis.annotate(str(number), at, ha="center", va="center_baseline", fontsize=6.5, color=ink, zorder=top)


def _key(axis: Any, rows: Sequence[Row], shown: Sequence[int]) -> None:
    axis.set_axis_off()
    columns = -(-len(rows) // IN_KEY)
    for n, row in enumerate(rows):
        why = "" if any(_point(row, i) for i in shown) else f": {_why_not(row, shown)}"
        text = f"{n + 1:>2}  {style.clean(row.method, 20)}{why}"
        x, y = n // IN_KEY / columns, 1 - (n % IN_KEY) / (IN_KEY + 1)
        colour = style.GREY if why else style.INK
        axis.text(x, y, text, transform=axis.transAxes, fontsize=7.5, va="top", color=colour)


def _why_not(row: Row, shown: Sequence[int]) -> str:
    return next((row.entries[i].state for i in shown if row.entries[i].state != "ok"), "cost not known")
