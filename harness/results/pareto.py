"""Which points of score against cost nothing else beats: dearer or worse points are not on the front.

Values alone are compared; what the intervals say of them is the reader's (and `tiers`') business.
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def front(points: Sequence[tuple[float | None, float | None]]) -> list[bool]:
    """Of each (cost, score) whether no other point costs at most as much and scores at least as high, one of the two
    strictly. Equal points stand or fall together; a point without cost or score is never on the front.
    """
    known = sorted(
        (cost, -score, i)
        for i, (cost, score) in enumerate(points)
        if cost is not None and score is not None and math.isfinite(cost) and math.isfinite(score)
    )
    found = [False] * len(points)
    best, at = math.inf, math.inf
    for cost, loss, i in known:
        if loss < best:
            best, at = loss, cost
        found[i] = loss == best and cost == at
    return found
