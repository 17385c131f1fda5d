"""The training curves of a site: one file a logged value (loss, reward, norm, ...), which a page loads when asked for.

At most `LONGEST` points of a cell are kept, evenly spaced, the last one always. What a value means is the method's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from harness.results.frame import CellView, Frame

LONGEST = 200
FIRST = "loss"  # the value that a page opens with, where any cell has it
NOT_DRAWN = ("tokens",)  # counts along, as the steps do

CurveReader = Callable[[CellView], Iterable[tuple[int, Mapping[str, float]]]]
"""A cell -> what its training logged, as (step, values by name), in the order of the steps."""

Points = dict[str, list[float | None]]
"""x: steps; y: values, null where it was no number. Of equal length."""


def training_curves(frame: Frame, read: CurveReader) -> dict[str, dict[int, Points]]:
    """By value, and by the cell's place in the frame: the points to draw."""
    found: dict[str, dict[int, Points]] = {}
    for number, cell in enumerate(frame.cells):
        if not cell.view.train:
            continue
        logged = list(read(cell.view))
        for name in dict.fromkeys(name for _, values in logged for name in values if name not in NOT_DRAWN):
            points = [(step, values[name]) for step, values in logged if name in values]
            found.setdefault(name, {})[number] = _drawn(points)
    return dict(sorted(found.items(), key=lambda item: (item[0] != FIRST, item[0])))


def _drawn(points: list[tuple[int, float]]) -> Points:
    every = -(-len(points) // LONGEST)
    kept = points[len(points) - 1 :: -every][::-1]
    return {"x": [step for step, _ in kept], "y": [_short(value) for _, value in kept]}


def _short(value: float) -> Any:
    """Four digits are more than a picture shows."""
    return float(f"{value:.4g}") if math.isfinite(value) else None
