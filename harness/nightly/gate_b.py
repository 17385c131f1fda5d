"""Gate B: retrained cells. Whether a result sank below its own past, below the accepted night, or bit by bit.

Three tests flag: against the last accepted nights (ten at least; their spread is floored by the flip noise of frozen
artifacts, since the items are the same every night), against the accepted night itself (crossed seed x item test;
what is non-inferior within the margin is not flagged), and against slow drift. Benjamini-Hochberg runs over all of
them. What is flagged is trained again with seeds that nobody has looked at, and that data alone decides, each
test at 5 %.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.nightly.drift import drift
from harness.nightly.findings import Finding
from harness.nightly.flips import Noise
from harness.nightly.nights import Measured
from harness.nightly.significance import below, student_below
from harness.results.claims import non_inferior
from harness.results.corrections import benjamini_hochberg
from harness.results.stats import Estimate, difference

K = 10  # accepted nights, before they are a baseline
Q = 0.05
MARGIN = 0.01  # of a score between 0 and 1
SHARES = (-1.0, 1.0)  # bounds of a difference of such scores


@dataclass(frozen=True)
class Row:
    """One result of a night with what it is held against.

    anchor: the accepted night's.  history: values of the accepted nights before, the oldest first.
    margin: what may be lost without being a loss, in the metric's unit; None for the default.
    """

    now: Measured
    anchor: Measured | None
    history: tuple[float, ...] = ()
    noise: Noise = field(default_factory=Noise)
    margin: float | None = None

    @property
    def floor(self) -> float:
        line = self.now.line
        return self.noise.spread(line.n or 1, max(1, len(line.seeds)))


@dataclass(frozen=True)
class Suspect:
    """A result that was flagged, and by which tests: rolling, anchor, drift. q: the smallest of them."""

    row: Row
    tests: tuple[str, ...]
    q: float | None
    text: str


def margin_of(row: Row, estimate: Estimate) -> float:
    """The larger of one point and half of what the design can see; for scores without bounds the latter alone."""
    if row.margin is not None:
        return row.margin
    seen = (estimate.mde or 0.0) / 2
    return max(MARGIN, seen) if estimate.bounds == SHARES else seen


def _no_loss(row: Row, estimate: Estimate) -> bool:
    """Whether it is shown to lose less than the margin; where there is no margin nothing can be shown."""
    margin = margin_of(row, estimate)
    return margin > 0 and bool(non_inferior(estimate, margin))


@dataclass(frozen=True)
class _Looked:
    """A row with what each test says of it."""

    row: Row
    rolling: float | None
    past: str
    estimate: Estimate | None
    anchor: float | None
    non_inferior: bool


def _look(row: Row) -> _Looked:
    value = row.now.line.value
    rolling, past = None, ""
    if len(row.history) >= K and value is not None:
        rolling, mean, spread = student_below(value, row.history, row.floor)
        past = f"{value:.4f} after {mean:.4f} ± {spread:.4f} on the last {len(row.history)} accepted nights"
    estimate = difference(row.now.results, row.anchor.results) if row.anchor and row.now.results else None
    p = below(estimate) if estimate else None
    safe = estimate is not None and _no_loss(row, estimate)
    return _Looked(row, rolling, past, estimate, p, safe)


def gate_b(rows: Sequence[Row]) -> list[Suspect]:
    """What is to be trained again with fresh seeds."""
    looked = [_look(row) for row in rows]
    qs = benjamini_hochberg([p for each in looked for p in (each.rolling, each.anchor)])
    found = []
    for each, q_rolling, q_anchor in zip(looked, qs[::2], qs[1::2], strict=True):
        tests: dict[str, str] = {}
        if q_rolling is not None and q_rolling < Q:
            tests["rolling"] = each.past
        if q_anchor is not None and q_anchor < Q and not each.non_inferior and each.estimate:
            tests["anchor"] = f"{_points(each.estimate)} to the accepted night"
        value = each.row.now.line.value
        sunk = drift([*each.row.history, value], each.row.floor) if value is not None else None
        if sunk and not tests:
            tests["drift"] = f"sinking: {sunk.now:.4f} since {len(each.row.history) + 1 - sunk.start} nights, "
            tests["drift"] += f"{sunk.level:.4f} before (CUSUM {sunk.cusum:.1f})"
        if tests:
            q = min((q for q in (q_rolling, q_anchor) if q is not None), default=None)
            found.append(Suspect(each.row, tuple(tests), q, "; ".join(tests.values())))
    return found


def _points(estimate: Estimate) -> str:
    if estimate.value is None or estimate.low is None or estimate.high is None:
        return "?"
    return f"{estimate.value:+.4f} [{estimate.low:.4f}, {estimate.high:.4f}]"


def confirm_b(suspect: Suspect, fresh: Measured) -> Finding:
    """What fresh seeds say of a suspect: confirmed, cleared, or neither (the interval covers zero and the margin)."""
    row, line = suspect.row, fresh.line
    gate = "drift" if suspect.tests == ("drift",) else "B"
    if line.state == "diverged":
        return Finding(gate, "confirmed", *line.what, f"{suspect.text}; with fresh seeds, too: {line.reason}")
    if line.value is None:
        return Finding(gate, "failed", *line.what, f"{suspect.text}; training again failed: {line.reason}", q=suspect.q)
    says = [_fresh(test, row, fresh) for test in suspect.tests]
    estimate = difference(fresh.results, row.anchor.results) if row.anchor else None
    facts: dict[str, Any] = {"q": suspect.q}
    if estimate:
        facts |= {"delta": estimate.value, "low": estimate.low, "high": estimate.high}
    text = f"{suspect.text}; fresh seeds {', '.join(map(str, line.seeds))}: {line.value:.4f}"
    if "confirmed" in says:
        return Finding(gate, "confirmed", *line.what, text, **facts)
    if all(says_so == "cleared" for says_so in says):
        return Finding(gate, "cleared", *line.what, f"{text}, which is no loss", **facts)
    return Finding(gate, "inconclusive", *line.what, f"{text}, which speaks neither for a loss nor against it", **facts)


def _fresh(test: str, row: Row, fresh: Measured) -> str:
    """The same test once more, at 5 % and on fresh data."""
    value = fresh.line.value
    if test == "anchor" and row.anchor:
        estimate = difference(fresh.results, row.anchor.results)
        p, safe = below(estimate), _no_loss(row, estimate)
    else:
        assert value is not None, "a fresh result without a value has failed"
        history = row.history
        if test == "drift" and (sunk := drift([*history, row.now.line.value or 0.0], row.floor)):
            history = history[: sunk.start]
        p, low = _against(value, history, row.floor)
        safe = low > -(MARGIN if row.margin is None else row.margin)
    if p is not None and p < Q:
        return "confirmed"
    return "cleared" if safe else "inconclusive"


def _against(value: float, history: Sequence[float], floor: float) -> tuple[float, float]:
    """(p, lower end of the 95 % interval of the difference) of a value after those."""
    from scipy.special import stdtrit

    p, mean, spread = student_below(value, history, floor)
    k = len(history)
    half = float(stdtrit(k - 1, 0.975)) * spread * (1 + 1 / k) ** 0.5
    return p, value - mean - half


def improved(rows: Sequence[Row]) -> Iterator[Finding]:
    """Results that rose beyond chance: told, and never a reason to fail."""
    looked = [(row, _look(row)) for row in rows]
    qs = benjamini_hochberg([None if each.anchor is None else 1 - each.anchor for _, each in looked])
    for (row, each), q in zip(looked, qs, strict=True):
        if q is not None and q < Q and each.estimate:
            e, text = each.estimate, f"{_points(each.estimate)} to the accepted night: often a mistake when unexpected"
            yield Finding("B", "improved", *row.now.line.what, text, e.value, e.low, e.high, q)


def diverged(rows: Sequence[Row]) -> Iterator[Suspect]:
    """Cells whose training diverged tonight, and did not on the accepted night."""
    for row in rows:
        if row.now.line.state == "diverged":
            yield Suspect(row, ("anchor",), None, f"training diverged: {row.now.line.reason}")
