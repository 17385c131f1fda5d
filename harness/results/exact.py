"""Tests of one run against another by their items alone: exact McNemar for 0/1 scores, sign flips for others.

Neither knows of training seeds; what may be said from them is decided in `stats`.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

FLIPS = 1999  # drawn sign patterns; with the observed one 2,000
EXHAUSTIVE = 10  # up to so many differing items all patterns are tried
SEED = 20


def mcnemar(better: int, worse: int) -> float:
    """Two-sided p of the exact test: as many items should get better as worse."""
    from scipy.special import bdtr

    return min(1.0, 2 * float(bdtr(min(better, worse), better + worse, 0.5))) if better + worse else 1.0


def sign_flips(differences: Floats) -> float:
    """Two-sided p of the permutation test in which each item's difference (or cluster's sum) may have either sign.

    Drawn patterns, with the plus-one rule; all of them where they are few.
    """
    import numpy as np

    moved = np.sort(
        np.abs(differences[differences != 0])
    )  # the signs are flipped anyway: the order of items is nothing
    if not len(moved):
        return 1.0
    observed = abs(differences.sum()) - 1e-9 * moved.sum()  # sums in another order differ in the last digits
    if len(moved) <= EXHAUSTIVE:
        patterns = 2.0 * ((np.arange(2 ** len(moved))[:, None] >> np.arange(len(moved))) & 1) - 1
        return float((np.abs(patterns @ moved) >= observed).mean())
    extreme = int((np.abs(moved @ _signs(1 << (len(moved) - 1).bit_length())[: len(moved)]) >= observed).sum())
    return (1 + extreme) / (1 + FLIPS)


@cache
def _signs(rows: int) -> Floats:
    import numpy as np

    return np.random.default_rng(SEED).choice([-1.0, 1.0], size=(rows, FLIPS))
