"""Gate B: retrained cells. Whether a result sank below its own past, below the accepted night, or bit by bit.

Three tests flag: against the last accepted nights (ten at least; their spread is floored by the flip noise of frozen
artifacts, since the items are the same every night), against the accepted night itself (crossed seed x item test;
what is non-inferior within the margin is not flagged), and against slow drift. One accepted night may have had lucky
seeds, so the first nights on its level, a fixed set that does not slide, must agree with it. Benjamini-Hochberg runs
over all of them. What is flagged is trained again with seeds that nobody has looked at, and that data alone decides,
each test at 5 %; a drift is then held against the accepted level.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.nightly.drift import Drift, drift
from harness.nightly.findings import Finding
from harness.nightly.flips import Noise
from harness.nightly.nights import Measured
from harness.nightly.significance import below, seeds_below, student_below
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
    level: scores by seed of the accepted night and of the `K` nights after it, a tuple a night.
    settled: so many of `history` lie before fresh seeds last cleared the result; drift is looked for after them.
    margin: what may be lost without being a loss, in the metric's unit; None for the default.
    """

    now: Measured
    anchor: Measured | None
    history: tuple[float, ...] = ()
    level: tuple[tuple[float, ...], ...] = ()
    settled: int = 0
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


def _below_both(row: Row, now: Measured, estimate: Estimate) -> float | None:
    """One-sided p against the accepted night by the crossed test, and against the level by seeds: the larger."""
    p, values = below(estimate), [v for v in now.line.by_seed if v is not None]
    if p is None or not row.level:
        return p
    return max(p, seeds_below(values, row.level, row.noise.spread(now.line.n or 1, 1)))


def _margin_of_fresh(row: Row, fresh: Measured) -> float:
    if row.anchor is None:
        return MARGIN if row.margin is None else row.margin
    return margin_of(row, difference(fresh.results, row.anchor.results))


@dataclass(frozen=True)
class _Looked:
    """A row with what each test says of it."""

    row: Row
    rolling: float | None
    past: str
    estimate: Estimate | None
    anchor: float | None
    non_inferior: bool
    drift: Drift | None


def _look(row: Row) -> _Looked:
    value = row.now.line.value
    rolling, past = None, ""
    if len(row.history) >= K and value is not None:
        rolling, mean, spread = student_below(value, row.history, row.floor)
        past = f"{value:.4f} after {mean:.4f} ± {spread:.4f} on the last {len(row.history)} accepted nights"
    estimate = difference(row.now.results, row.anchor.results) if row.anchor and row.now.results else None
    p = _below_both(row, row.now, estimate) if estimate else None
    safe = estimate is not None and _no_loss(row, estimate)
    sunk = drift([*row.history[row.settled :], value], row.floor) if value is not None else None
    if sunk and estimate and sunk.level - sunk.now < margin_of(row, estimate):
        sunk = None  # surely lower, and by less than counts as a loss
    return _Looked(row, rolling, past, estimate, p, safe, sunk)


def gate_b(rows: Sequence[Row]) -> list[Suspect]:
    """What is to be trained again with fresh seeds."""
    looked = [_look(row) for row in rows]
    drifts = [each.drift.p if each.drift else None for each in looked]
    qs = benjamini_hochberg([*(e.rolling for e in looked), *(e.anchor for e in looked), *drifts])
    found, n = [], len(looked)
    for each, q_rolling, q_anchor, q_drift in zip(looked, qs[:n], qs[n : 2 * n], qs[2 * n :], strict=True):
        tests: dict[str, str] = {}
        if q_rolling is not None and q_rolling < Q:
            tests["rolling"] = each.past
        if q_anchor is not None and q_anchor < Q and not each.non_inferior and each.estimate:
            tests["anchor"] = f"{_points(each.estimate)} to the accepted night"
        if q_drift is not None and q_drift < Q and each.drift:
            nights = len(each.row.history) - each.row.settled + 1 - each.drift.start
            tests["drift"] = f"sinking: {each.drift.now:.4f} over the last {nights} nights, "
            tests["drift"] += f"{each.drift.level:.4f} before (CUSUM {each.drift.cusum:.1f})"
        if tests:
            q = min(q for q in (q_rolling, q_anchor, q_drift) if q is not None)
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
    if test != "rolling" and row.anchor:
        estimate = difference(fresh.results, row.anchor.results)
        p, safe = _below_both(row, fresh, estimate), _no_loss(row, estimate)
    else:
        assert value is not None, "a fresh result without a value has failed"
        p, low = _against(value, row.history, row.floor)
        safe = low > -_margin_of_fresh(row, fresh)
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
