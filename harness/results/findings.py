"""Which of the differences to a baseline are findings, after a correction for how many were looked at.

The differences of one model are two families. Primary are the headlines of the suites: Holm's correction, 5 %. All the
others (task x method) are secondary: Benjamini and Hochberg's, 10 %. What rests on one training seed belongs to neither
and is never a finding, whatever its p.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from harness.results.corrections import benjamini_hochberg, holm
from harness.results.stats import Estimate

Verdict = Literal["better", "worse", "undecided", "items only"]
PRIMARY, SECONDARY = 0.05, 0.10


@dataclass(frozen=True)
class Finding:
    """adjusted: p after Holm's correction where primary, else Benjamini and Hochberg's q; None with `items only`."""

    verdict: Verdict
    primary: bool
    adjusted: float | None


def find(differences: Sequence[Sequence[Estimate | None]], headline: Sequence[bool]) -> list[list[Finding | None]]:
    """Of one model: rows x columns of differences -> what each shows; None where there is no test.

    headline: of each column, whether it is the headline of its suite.
    """
    claims = [[None if e is None else e.claim for e in row] for row in differences]
    adjusted: list[list[float | None]] = [[None] * len(headline) for _ in differences]
    for primary, correct in ((True, holm), (False, benjamini_hochberg)):
        places = [(i, j) for i in range(len(claims)) for j in range(len(headline)) if headline[j] is primary]
        for (i, j), p in zip(places, correct([claims[i][j] for i, j in places]), strict=True):
            adjusted[i][j] = p
    return [
        [_finding(e, p, primary) for e, p, primary in zip(row, ps, headline, strict=True)]
        for row, ps in zip(differences, adjusted, strict=True)
    ]


def _finding(estimate: Estimate | None, adjusted: float | None, primary: bool) -> Finding | None:
    if estimate is None or estimate.value is None or estimate.p is None:
        return None
    if adjusted is None:
        return Finding("items only", primary, None)
    if adjusted >= (PRIMARY if primary else SECONDARY):
        return Finding("undecided", primary, adjusted)
    return Finding("better" if estimate.value > 0 else "worse", primary, adjusted)
