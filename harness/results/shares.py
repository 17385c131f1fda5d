"""Intervals of a share, which stay honest near 0 and 1, where the variance that was seen says nothing of the truth's.

Wilson's (1927) holds the shares p with |seen - p|² <= r p (1 - p), r = z² / n. Where runs are averaged or items belong
together, r is such that the variance at the seen share is the estimated one, which is Wilson's interval for the
effective number of items (Korn and Graubard 1998 have the same for the exact interval of survey data). All work on one
share or on arrays of them.
"""

from __future__ import annotations

from typing import Any

Z = 1.959963984540054  # normal quantile at 0.975


def wilson(successes: Any, n: Any) -> tuple[Any, Any]:
    """95 %, of `successes` among `n` independent items."""
    return _interval(successes / n, Z * Z / n)


def of_layout(share: Any, reach: Any, items: int, seeds: int, clustered: bool) -> tuple[Any, Any]:
    """95 %, of a share strictly between 0 and 1, from `seeds` runs on the same `items`.

    reach: half the width of the symmetric interval.  Near 0 and 1 it is often too narrow: a few right answers, each in
    one run or each in a cluster of its own, look as if all answers were independent. So the effective number of items
    is taken to be items x sqrt(seeds) at most, and where items belong together their number.
    """
    import numpy as np

    most = items if clustered else items * seeds**0.5
    return _interval(share, np.maximum(reach**2 / (share * (1 - share)), Z * Z / most))


def _interval(share: Any, ratio: Any) -> tuple[Any, Any]:
    centre = (share + ratio / 2) / (1 + ratio)
    half = (share * (1 - share) * ratio + ratio**2 / 4) ** 0.5 / (1 + ratio)
    return centre - half, centre + half
