"""Loss curves: a figure a model, a small panel a method, a line a seed.

Methods minimise different losses (and may change scale between stages), so every panel has a scale of its own; only the
steps are shared. Values that are no numbers leave a gap, and a panel says where training diverged or is not done.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from harness.errors import HarnessError
from harness.results.curve_points import curve_points
from harness.results.frame import Frame, State
from harness.results.plots import style
from harness.store import Store

Dash = Literal["-", "--", ":", "-."]
ACROSS, PER_PAGE = 5, 50
SEEDS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")  # Okabe and Ito's
DASHES: tuple[Dash, ...] = ("-", "--", ":", "-.")
MARKED = 12  # points up to which each is drawn, so that a curve of one step is seen
CAPTION = (
    "A line is one seed. Losses of different methods are different quantities: each panel has its own scale, and "
    "heights are not comparable between panels. Orange: seeds that diverged or have no curve, all of them where no "
    "seed is named.",
)


@dataclass(frozen=True)
class Curve:
    """Of one cell: the loss after each logged step. state: of the cell, which says what an empty one is."""

    model: str
    method: str
    seed: int | None
    state: State
    points: tuple[tuple[int, float], ...]


def read(frame: Frame, store: Store) -> list[Curve]:
    """The curves of all trained cells, in the order of the plan; empty where a cell left none."""
    curves = []
    for cell in frame.cells:
        if not cell.view.train:
            continue
        points = ((step, values["loss"]) for step, values in curve_points(cell.view, store) if "loss" in values)
        curves.append(Curve(cell.view.model, cell.view.method, cell.view.seed, cell.state, tuple(points)))
    return curves


def draw(curves: Sequence[Curve]) -> list[style.Plot]:
    """For each model a figure for every fifty methods. HarnessError where no cell has a curve."""
    models: dict[str, dict[str, list[Curve]]] = {}
    for curve in curves:
        models.setdefault(curve.model, {}).setdefault(curve.method, []).append(curve)
    models = {m: methods for m, methods in models.items() if any(c.points for of in methods.values() for c in of)}
    if not models:
        why = "none is trained yet, or its trainer logged no loss" if curves else "nothing here is trained"
        why = f"no cell in the store has the curve of its training; {why}"
        raise HarnessError("no loss curves", why=why, todo="run a method that trains")
    plots = []
    for model, name in style.file_names("curves", list(models)).items():
        panels = list(models[model].items())
        pages = [panels[at : at + PER_PAGE] for at in range(0, len(panels), PER_PAGE)]
        for number, page in enumerate(pages, 1):
            with style.style():
                figure = _figure(model, page)
            plots.append(style.Plot(name if len(pages) == 1 else f"{name}-{number}", figure))
    return plots


def _figure(model: str, panels: Sequence[tuple[str, list[Curve]]]) -> Any:
    from matplotlib.lines import Line2D

    across = min(ACROSS, len(panels))
    down = -(-len(panels) // across)
    seeds = list(dict.fromkeys(c.seed for _, curves in panels for c in curves))
    looks = {s: (SEEDS[i % len(SEEDS)], DASHES[i // len(SEEDS) % len(DASHES)]) for i, s in enumerate(seeds)}
    figure = style.canvas(style.WIDTH if across > 2 else 5.5, 1.3 + 1.35 * down + (0.9 if down == 1 else 0))
    axes = figure.subplots(down, across, squeeze=False, sharex=True)
    for number, axis in enumerate(axes.flat):
        if number >= len(panels):
            axis.set_visible(False)
            continue
        _panel(axis, *panels[number], looks)
        axis.tick_params(labelbottom=number + across >= len(panels))
        if number + across >= len(panels):
            axis.set_xlabel("optimiser steps")
        if number % across == 0:
            axis.set_ylabel("loss")
    handles = [Line2D([], [], color=looks[s][0], linestyle=looks[s][1]) for s in seeds]
    names = ["no seed" if s is None else f"seed {s}" for s in seeds]
    figure.legend(handles, names, loc="outside upper right", ncols=min(6, len(seeds)), frameon=False, fontsize=7.5)
    style.entitle(figure, f"Training loss on {style.clean(model, 40)}", CAPTION)
    return figure


def _panel(axis: Any, method: str, curves: Sequence[Curve], looks: dict[int | None, tuple[str, Dash]]) -> None:
    for curve in curves:
        colour, dashes = looks[curve.seed]
        values = [loss if math.isfinite(loss) else math.nan for _, loss in curve.points]
        if curve.points:
            dot = "." if len(values) <= MARKED else ""
            steps = [step for step, _ in curve.points]
            axis.plot(steps, values, color=colour, linestyle=dashes, linewidth=1.1, marker=dot, markersize=3)
    axis.set_title(style.clean(method, 23), fontsize=7, pad=13)
    axis.tick_params(labelsize=7)
    axis.margins(y=0.12)
    if not any(curve.points for curve in curves):
        axis.set_yticks([])
    if amiss := _amiss(curves):
        axis.text(
            0, 1.03, style.clean(amiss, 30), transform=axis.transAxes, va="bottom", fontsize=6.5, color=style.WORSE
        )


def _amiss(curves: Sequence[Curve]) -> str:
    """Which seeds diverged or have no curve, on one line."""
    states: dict[str, list[str]] = {}
    for curve in curves:
        word = "no curve" if curve.state == "ok" and not curve.points else str(curve.state)
        if word == "diverged" or not curve.points:
            states.setdefault(word, []).append("" if curve.seed is None else str(curve.seed))
    parts = [word if len(seeds) == len(curves) else f"{word}: {', '.join(seeds)}" for word, seeds in states.items()]
    return "; ".join(parts)
