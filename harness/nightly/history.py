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
        return tuple(sorted({s for m in self.results.values() for s in m.line.seeds if s is not None}))

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


def past_values(nights: Sequence[Night], baseline: Baseline) -> dict[What, list[Line]]:
    """The lines of retrained cells on those nights, without results that were in dispute and not accepted."""
    found: dict[What, list[Line]] = {}
    for night in nights:
        disputed = set()
        if night.name != baseline.night:
            listed = night.report()["findings"]
            disputed = {(f["cell"], f["task"], f["metric"]) for f in listed if f["status"] in DISPUTED}
        for line in night.parts().get(RETRAINED, ([], {}))[0]:
            if line.value is not None and line.what not in disputed:
                found.setdefault(line.what, []).append(line)
    return found


def comparable(past: Sequence[Line], now: Line) -> tuple[float, ...]:
    """The values of earlier nights that were measured and trained the same way, on the same class of machine."""
    same = ("protocol", "training", "machine")
    return tuple(
        line.value
        for line in past
        if line.value is not None
        and all(getattr(line, name) == getattr(now, name) for name in same)
        and len(line.seeds) == len(now.seeds)
    )


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
