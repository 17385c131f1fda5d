"""Corrections of p-values for their number. Where one is missing the others are corrected as if it were not there."""

from __future__ import annotations

import gc
from collections.abc import Sequence


def holm(ps: Sequence[float | None]) -> list[float | None]:
    """Adjusted p (family-wise error), in the same order; None stays None."""
    return _adjusted(ps, "holm")


def benjamini_hochberg(ps: Sequence[float | None]) -> list[float | None]:
    """Adjusted p (false discovery rate), in the same order; None stays None."""
    return _adjusted(ps, "fdr_bh")


def _adjusted(ps: Sequence[float | None], method: str) -> list[float | None]:
    known = [p for p in ps if p is not None]
    if not known:
        return [None] * len(ps)
    from statsmodels.stats.multitest import multipletests

    gc.freeze()  # statsmodels collects garbage at every call, which among a large board's scores takes 0.2 s
    try:
        adjusted = iter(multipletests(known, method=method)[1])
    finally:
        gc.unfreeze()
    return [None if p is None else float(next(adjusted)) for p in ps]
