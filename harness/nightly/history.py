"""What a night is held against: the accepted night's results, the values of the nights since, and the flip noise.

It reads finished nights and decides nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from harness.nightly.baseline import Baseline
from harness.nightly.flips import Noise
from harness.nightly.nights import Line, Measured, Night, Nights
from harness.nightly.speed import Costs

FROZEN, RETRAINED = "frozen", "retrained"
GOOD = (0, 5)  # verdicts of nights whose undisputed results count as healthy
DISPUTED = ("confirmed", "inconclusive", "refused", "failed")
MONTH = timedelta(days=30)

What = tuple[str, str, str]


@dataclass(frozen=True)
class Anchor:
    """The accepted night. results: by cell, task and metric, of the newest artifacts it has of each.

    seeds: of its trained cells.
    """

    night: Night
    facts: Mapping[str, Any]
    results: Mapping[What, Measured]

    @property
    def seeds(self) -> tuple[int, ...]:
        trained = {s for m in self.results.values() for s in m.line.seeds if s is not None}
        return tuple(sorted(trained) or self.facts["seeds"])

    @property
    def stores(self) -> tuple[Path, ...]:
        """Those that are still there, the one with the newest weights first."""
        folders = (self.night.folder / "stores" / part for part in (RETRAINED, FROZEN))
        return tuple(folder for folder in folders if folder.is_dir())

    def store(self, line: Line) -> Path:
        return self.night.folder / line.store


def anchor_of(nights: Nights, baseline: Baseline) -> Anchor:
    """The accepted night, read with its scores by item."""
    night = nights.named(baseline.night)
    parts = night.parts()
    found: dict[What, Measured] = {}
    for part in (FROZEN, RETRAINED):
        if part in parts:
            found |= {m.line.what: m for m in night.measured(part)}
    return Anchor(night, night.facts(), found)


def healthy(nights: Nights, baseline: Baseline) -> list[Night]:
    """Finished nights on today's level, the oldest first: those that passed, and the accepted one."""
    return [
        night
        for night in nights.finished()
        if baseline.covers(night.name) and (night.name == baseline.night or night.report()["code"] in GOOD)
    ]


@dataclass(frozen=True)
class Past:
    """A result of an earlier night. cleared: it was suspected then, and fresh seeds cleared it."""

    line: Line
    cleared: bool


def past_values(nights: Sequence[Night], baseline: Baseline) -> dict[What, list[Past]]:
    """The results of retrained cells on those nights, without those that were in dispute and not accepted."""
    found: dict[What, list[Past]] = {}
    for night in nights:
        listed = {(f["cell"], f["task"], f["metric"]): f["status"] for f in night.report()["findings"] if f["cell"]}
        for line in night.parts().get(RETRAINED, ([], {}))[0]:
            status = listed.get(line.what, "")
            if line.value is not None and (status not in DISPUTED or night.name == baseline.night):
                found.setdefault(line.what, []).append(Past(line, status == "cleared"))
    return found


def comparable(past: Sequence[Past], now: Line) -> list[Past]:
    """Those that were measured and trained the same way, on the same class of machine."""
    return [each for each in past if _alike(each.line, now)]


def settled(past: Sequence[Past]) -> int:
    """How many nights lie before fresh seeds last cleared the result, that one included."""
    return 1 + max((number for number, each in enumerate(past) if each.cleared), default=-1)


def _alike(then: Line, now: Line) -> bool:
    same = ("protocol", "training", "machine")
    return len(then.seeds) == len(now.seeds) and all(getattr(then, name) == getattr(now, name) for name in same)


def level(past: Sequence[Past], anchor: Line, nights: int) -> tuple[tuple[float, ...], ...]:
    """Scores by seed of the accepted night and of the first nights on its level: a set that does not slide."""
    others = [each.line for each in past if each.line.seeds != anchor.seeds]
    chosen = [anchor, *others[:nights]]
    return tuple(tuple(v for v in line.by_seed if v is not None) for line in chosen)


def past_costs(nights: Sequence[Night], machine: str) -> list[Costs]:
    """Speed and memory on the same class of machine."""
    return [night.report()["costs"] for night in nights if night.facts()["machine"] == machine]


@dataclass(frozen=True)
class KnownNoise:
    """Flip noise by task, and whether it is of this software and not older than a month."""

    noise: Mapping[str, Noise]
    current: bool


def noise_for(nights: Sequence[Night], environment: str, now: datetime) -> KnownNoise:
    """The newest measurement under this software; failing that the newest of any."""
    latest: dict[str, Noise] = {}
    for night in reversed(nights):
        report, facts = night.report(), night.facts()
        if not report.get("noise"):
            continue
        found = {task: Noise(*pair) for task, pair in report["noise"].items()}
        if facts["environment"] == environment:
            return KnownNoise(found, now - datetime.fromisoformat(facts["started"]) < MONTH)
        latest = latest or found
    return KnownNoise(latest, False)


def utc_now() -> datetime:
    return datetime.now(UTC)
