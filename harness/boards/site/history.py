"""The past numbers of a site in one file, which the page of trends loads: years of nights must not slow down the rest.

Days and notes stand once; a point names them by their place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.boards.site.about import Point

DIGITS = 6


def history(points: Sequence[Point]) -> dict[str, Any]:
    """days, notes, and for each row and column its points, oldest first: [day, value, low, high, note]; null: none."""
    days = {day: place for place, day in enumerate(sorted({p.day for p in points}))}
    notes: dict[str, int] = {}
    series: dict[tuple[str, str, str], list[list[Any]]] = {}
    for p in sorted(points, key=lambda p: p.day):
        note = notes.setdefault(p.note, len(notes)) if p.note else None
        numbers = [None if x is None else round(x, DIGITS) for x in (p.value, p.low, p.high)]
        series.setdefault((p.model, p.method, p.column), []).append([days[p.day], *numbers, note])
    named = [{"model": m, "method": r, "column": c, "points": found} for (m, r, c), found in series.items()]
    return {"days": list(days), "notes": list(notes), "series": named}
