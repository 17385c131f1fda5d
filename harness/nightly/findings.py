"""Findings of a night and its verdict: one exit code, and what to do.

Codes: 0 pass, 1 some cells failed or are incomplete, 2 a mistake in the command, 3 a confirmed regression, 4 a
comparison was refused, 5 undecided or no baseline yet. Where several apply, the first of 2, 3, 4, 1, 5; the report
lists all. What failed is never taken for a regression.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Status = Literal["confirmed", "inconclusive", "cleared", "improved", "refused", "failed", "no baseline", "warning"]
CODES: dict[Status, int] = {"confirmed": 3, "refused": 4, "failed": 1, "inconclusive": 5, "no baseline": 5}
ORDER = (2, 3, 4, 1, 5, 0)


@dataclass(frozen=True)
class Example:
    """An item whose score differs: its name, the two scores, and the two answers where they are still stored."""

    item: str
    seed: int | None
    was: str
    now: str
    answer_was: str = ""
    answer_now: str = ""


@dataclass(frozen=True)
class Finding:
    """One thing that a night found.

    gate: A (frozen artifacts), replay (stored answers through today's scorers), B (retrained), drift, speed, night.
    delta, low, high: the difference to the accepted night with its 95 % interval, in the metric's unit.  q: of the
    test that flagged it.  down, up: items that got worse and better.  rerun: the command that measures it again.
    """

    gate: str
    status: Status
    cell: str
    task: str
    metric: str
    text: str
    delta: float | None = None
    low: float | None = None
    high: float | None = None
    q: float | None = None
    down: int | None = None
    up: int | None = None
    examples: tuple[Example, ...] = ()
    rerun: str = ""

    @property
    def what(self) -> tuple[str, str, str]:
        return self.cell, self.task, self.metric


def codes(findings: Sequence[Finding]) -> list[int]:
    """Every code that applies, the one that decides first."""
    found = {CODES[f.status] for f in findings if f.status in CODES}
    return [code for code in ORDER if code in found] or [0]


ADVICE = {
    0: "PASS: nothing to do.",
    1: "INCOMPLETE: some cells failed; look at the failures and run the same command again.",
    3: "REGRESSION CONFIRMED: hold the upgrade, or accept the change with `harness accept {night} --why ...`.",
    4: "NOT COMPARABLE: how it is measured has changed; accept the change with `harness accept {night} --why ...`.",
    5: "UNDECIDED: {why}",
}


def verdict(findings: Sequence[Finding], night: str) -> str:
    """One line: what it came to and what to do."""
    code = codes(findings)[0]
    first = not any(f.status == "inconclusive" for f in findings)
    why = (
        f"no baseline yet; if the numbers look right: `harness accept {night} --why 'first night'`."
        if first
        else "the fresh data speak neither for a regression nor against it; more seeds would decide."
    )
    return ADVICE[code].format(night=night, why=why)
