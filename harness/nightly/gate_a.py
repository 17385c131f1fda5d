"""Gate A: frozen artifacts under new software. Nothing is trained, so whatever moved was moved by the evaluation stack.

Flagged is a result with more flips than repeated runs of the accepted software explain, or with more items worse than
better (one-sided exact McNemar, Benjamini-Hochberg over all results). What is flagged is answered once more from the
start, and only that second run decides. A replay of stored answers through today's scorers has no chance in it: every
changed verdict counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.nightly.findings import Finding
from harness.nightly.flips import Flips, Noise, flips
from harness.nightly.nights import Measured
from harness.nightly.significance import flip_bound, mcnemar_down, too_many_flips
from harness.results.corrections import benjamini_hochberg

LEVEL = 0.01  # of the bound on flips, over all results together
Q = 0.05
AGAIN = 0.01  # of the second run, which is held against the same accepted answers as the first and shares their luck
SHOWN = 10


@dataclass(frozen=True)
class Compared:
    """One result beside the accepted one. refused: why they cannot be compared, or ""."""

    then: Measured
    now: Measured
    flips: Flips | None
    refused: str = ""

    @property
    def delta(self) -> float | None:
        a, b = self.then.line.value, self.now.line.value
        return None if a is None or b is None else b - a


@dataclass(frozen=True)
class Flagged:
    """What gate A flagged: by which test, with which q."""

    compared: Compared
    why: str
    q: float


def compare(then: Sequence[Measured], now: Sequence[Measured]) -> list[Compared]:
    """Every result of now that the accepted night has too; those that are not comparable say why."""
    known = {m.line.what: m for m in then}
    return [_compared(known[m.line.what], m) for m in now if m.line.what in known]


def _compared(then: Measured, now: Measured) -> Compared:
    if then.line.value is None or now.line.value is None:
        return Compared(then, now, None)
    if refused := refusal(then, now):
        return Compared(then, now, None, refused)
    found = flips(then, now)
    return Compared(then, now, found, "" if found or not _by_item(then) else "they have other items or seeds")


def refusal(then: Measured, now: Measured) -> str:
    """Why two measurements of one thing cannot be compared, or "". Seeds may differ."""
    if then.line.protocol != now.line.protocol:
        return f"another protocol ({then.line.protocol} then, {now.line.protocol} now)"
    if then.line.training != now.line.training:
        return f"trained otherwise ({then.line.training} then, {now.line.training} now)"
    ours = [r.samples.items for r in then.results if r.samples]
    theirs = [r.samples.items for r in now.results if r.samples]
    if ours and theirs and ours[0] != theirs[0]:
        lost, new = len(set(ours[0]) - set(theirs[0])), len(set(theirs[0]) - set(ours[0]))
        return f"other items ({lost} are gone, {new} are new)"
    return ""


def _by_item(measured: Measured) -> bool:
    return any(r.samples is not None for r in measured.results)


def gate_a(compared: Sequence[Compared], noise: Mapping[str, Noise]) -> list[Flagged]:
    """What is to be answered again. noise: flips between repeated runs, by task."""
    counted = [(c, c.flips) for c in compared if c.flips is not None]
    seen = [noise.get(c.now.line.task, Noise()) for c, _ in counted]
    worse = benjamini_hochberg([mcnemar_down(f.down, f.up) for _, f in counted])
    many = benjamini_hochberg(
        [too_many_flips(f.total, f.n, s.flips, s.compared) for (_, f), s in zip(counted, seen, strict=True)]
    )
    found = []
    for (c, f), q_worse, q_many, s in zip(counted, worse, many, seen, strict=True):
        if q_worse is not None and q_worse < Q:
            found.append(Flagged(c, f"{f.down} items worse and {f.up} better of {f.n}", q_worse))
        elif q_many is not None and q_many < LEVEL and f.total:
            bound = flip_bound(f.n, s.flips, s.compared)
            found.append(Flagged(c, f"{f.total} of {f.n} items flipped; repeated runs explain {bound}", q_many))
    return found


def confirm_a(
    flagged: Sequence[Flagged],
    again: Sequence[Measured],
    noise: Mapping[str, Noise],
    witness: Sequence[Measured] = (),
) -> list[Finding]:
    """What a second run of the flagged results says, each at its own level and on its own data alone.

    witness: another run of the accepted artifacts, from before. Where there is one, the second run must differ from it
    too: otherwise it was the accepted answers that were lucky.
    """
    others = {c.now.line.what: c for c in compare(witness, again)}
    fresh = {c.now.line.what: c for c in compare([f.compared.then for f in flagged], again)}
    places = [(f, f.compared.now.line.what) for f in flagged]
    return [_confirmed(f, fresh.get(what), others.get(what), noise) for f, what in places]


def _unusual(found: Flips, seen: Noise) -> bool:
    """Whether one result on its own flipped more, or more often down or up, than chance does."""
    many = too_many_flips(found.total, found.n, seen.flips, seen.compared)
    return min(many, mcnemar_down(found.down, found.up), mcnemar_down(found.up, found.down)) < AGAIN


def _confirmed(flagged: Flagged, again: Compared | None, other: Compared | None, noise: Mapping[str, Noise]) -> Finding:
    line = flagged.compared.now.line
    if again is None or again.flips is None:
        reason = again.now.line.reason if again else "it was not run"
        return Finding("A", "failed", *line.what, f"{flagged.why}; the second run failed: {reason}", q=flagged.q)
    found, seen = again.flips, noise.get(line.task, Noise())
    again_text = f"a second run: {found.down} worse, {found.up} better"
    facts: dict[str, Any] = {"delta": again.delta, "q": flagged.q, "down": found.down, "up": found.up}
    lucky = other is not None and other.flips is not None and not _unusual(other.flips, seen)
    if lucky or not _unusual(found, seen):
        return Finding("A", "cleared", *line.what, f"{flagged.why}; {again_text}, which is nothing unusual", **facts)
    if mcnemar_down(found.up, found.down) < AGAIN:
        text = f"{flagged.why}; {again_text}: better, and often a mistake when nobody expects it"
        return Finding("A", "improved", *line.what, text, **facts, examples=found.items[:SHOWN])
    return Finding("A", "confirmed", *line.what, f"{flagged.why}; {again_text}", **facts, examples=found.items[:SHOWN])


def better(compared: Sequence[Compared]) -> Iterator[Finding]:
    """Results that improved beyond chance."""
    counted = [(c, c.flips) for c in compared if c.flips is not None]
    for (c, f), q in zip(counted, benjamini_hochberg([mcnemar_down(f.up, f.down) for _, f in counted]), strict=True):
        if q is not None and q < Q:
            text = f"{f.up} items better and {f.down} worse of {f.n}: often a mistake when nobody expects it"
            examples = f.items[::-1][:SHOWN]
            yield Finding(
                "A", "improved", *c.now.line.what, text, c.delta, q=q, down=f.down, up=f.up, examples=examples
            )


def every_flip(compared: Sequence[Compared]) -> Iterator[Finding]:
    """With deterministic engines any flip is worth a warning."""
    for c in compared:
        if c.flips is not None and c.flips.total:
            text = f"{c.flips.total} of {c.flips.n} items flipped, and the engine is said to be deterministic"
            shown = c.flips.items[:SHOWN]
            yield Finding(
                "A", "warning", *c.now.line.what, text, c.delta, down=c.flips.down, up=c.flips.up, examples=shown
            )


def replayed(compared: Sequence[Compared]) -> Iterator[Finding]:
    """Stored answers through today's scorers: every changed verdict is a finding, since only scorers can have moved."""
    for c in compared:
        f = c.flips
        if f is None or not f.total:
            continue
        text = f"{f.total} of {f.n} verdicts on stored answers differ ({f.down} lower, {f.up} higher): a scorer changed"
        yield Finding(
            "replay", "confirmed", *c.now.line.what, text, c.delta, down=f.down, up=f.up, examples=f.items[:SHOWN]
        )
