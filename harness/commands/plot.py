"""`harness plot`: the results of a run as figures, written as PNG and SVG files."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from harness.commands.named import store_of, view_named, warn
from harness.commands.table import check_baseline
from harness.errors import HarnessError, MissingExtra

if TYPE_CHECKING:
    from harness.results.frame import Frame
    from harness.results.plots.style import Plot
    from harness.results.table import Table
    from harness.store import Store


def plot(args: argparse.Namespace) -> int:
    """The command. A kind that has nothing to show is an error where it was asked for, else a note."""
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingExtra("matplotlib", "`harness plot`", "pip install matplotlib")
    from harness.results.frame import collect
    from harness.results.plots.style import save
    from harness.results.table import make_table

    if args.folder.exists() and not args.folder.is_dir():
        raise HarnessError(f"{args.folder} is a file", todo="name a folder for the plots")
    store = store_of(args)
    view = view_named(args, store)
    check_baseline(view, args.baseline)
    frame = collect(view.cells, store)
    table = make_table(frame, baseline=args.baseline or view.baseline, notes=view.notes, rows="methods")
    plots = _draw(_makers(frame, table, store), args.kind)
    for made in plots:
        for path in save(made, args.folder):
            print(path)
    warn(store)
    return 0


def _makers(frame: Frame, table: Table, store: Store) -> dict[str, Callable[[], list[Plot]]]:
    from harness.results.plots import curves, forest, heatmap, pareto

    return {
        "pareto": lambda: pareto.draw(table),
        "heatmap": lambda: heatmap.draw(table),
        "forest": lambda: forest.draw(table),
        "curves": lambda: curves.draw(curves.read(frame, store)),
    }


def _draw(makers: dict[str, Callable[[], list[Plot]]], kinds: list[str] | None) -> list[Plot]:
    plots: list[Plot] = []
    for kind in dict.fromkeys(kinds or makers):
        try:
            plots += makers[kind]()
        except HarnessError as error:
            if kinds:
                raise
            print(f"note: {error}", file=sys.stderr)
    if not plots:
        raise HarnessError("there is nothing to plot", why="the notes above say why of each kind")
    return plots
