"""One night from its begin to its report: which parts are measured, which gates look at them, what is measured again.

A night goes on where a kill left it: parts that are whole are read back, and the others go on from their stores. What
a gate decides by is in `gate_a.py` and `gate_b.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.errors import Refused
from harness.matrix import load_matrix
from harness.nightly import gate_a, gate_b
from harness.nightly.attribution import Attempt
from harness.nightly.baseline import Baseline, read_baseline
from harness.nightly.environment import changes, environment_digest, machine_class, packages
from harness.nightly.findings import Finding, Status
from harness.nightly.flips import Noise, flips, noise_of
from harness.nightly.history import (
    FROZEN,
    RETRAINED,
    Anchor,
    Past,
    anchor_of,
    comparable,
    healthy,
    level,
    noise_for,
    past_costs,
    past_values,
    settled,
    utc_now,
)
from harness.nightly.measure import Part, Setting, frozen, plan_part
from harness.nightly.nights import Line, Measured, Night, Nights
from harness.nightly.speed import slower
from harness.store import Store

SEEDS = 3  # of a trained cell, at least, for gate B
FRESH = 500  # of a night's own seeds to those that confirm, at least; the next night's are as far again
SAME = ("environment", "machine", "matrix", "overrides", "limit", "only")  # of a night that goes on
REPEATS = 3  # runs of the frozen artifacts, from which the flip noise is known

Measure = Callable[[Setting, Part], tuple[list[Line], dict[str, dict[str, list[float]]]]]


@dataclass(frozen=True)
class Wanted:
    """What the command line said. margins: by suite, in the metric's unit.  only: rows or cells of the matrix."""

    gates: tuple[str, ...] = ("a", "b")
    only: tuple[str, ...] = ()
    margins: tuple[tuple[str, float], ...] = ()
    deterministic: bool = False


@dataclass
class Outcome:
    """What a night came to, before it is a report."""

    night: Night
    facts: dict[str, Any]
    baseline: Baseline | None
    findings: list[Finding]
    notes: list[str]
    costs: dict[str, dict[str, list[float]]]
    noise: dict[str, Noise]
    software: dict[str, tuple[str | None, str | None]]
    attempts: list[Attempt]


def open_night(nights: Nights, setting: Setting, seeds: Sequence[int], only: Sequence[str]) -> Night:
    """Tonight's night: the last one, if it was not finished and everything is as it was; or a new one."""
    found, begun = packages(), utc_now()
    facts = {
        "schema": "harness-night",
        "version": 1,
        "started": begun.isoformat(timespec="seconds"),
        "packages": found,
        "environment": environment_digest(found),
        "machine": machine_class(),
        "matrix": Path(setting.matrix).read_text(encoding="utf-8"),
        "overrides": list(setting.overrides),
        "limit": setting.limit,
        "only": list(only),
    }
    before = nights.all()
    if before and not before[-1].finished:
        last = before[-1].facts()
        if all(last[name] == facts[name] for name in SAME):
            return before[-1]
    night = nights.new(begun.date().isoformat())
    night.begin({**facts, "seeds": [s + 2 * fresh(seeds) * len(before) for s in seeds]})
    return night


def fresh(seeds: Sequence[int]) -> int:
    """How far the seeds that confirm lie above a night's own, so that no night has a seed that another had."""
    return max(FRESH, max(seeds) - min(seeds) + 1)


class Procedure:
    """The state of one night at work."""

    def __init__(self, nights: Nights, setting: Setting, wanted: Wanted, measure: Measure) -> None:
        self.nights, self.wanted, self._measure = nights, wanted, measure
        matrix = load_matrix(Path(setting.matrix), overrides=list(setting.overrides))
        self.margins = dict(wanted.margins)
        self._check(setting, matrix.seeds)
        self.baseline = read_baseline(nights)
        self.night = open_night(nights, setting, matrix.seeds, wanted.only)
        self.facts = self.night.facts()
        self.setting = replace(
            setting,
            folder=str(self.night.folder),
            environment=self.facts["environment"],
            machine=self.facts["machine"],
        )
        self.outcome = Outcome(self.night, self.facts, self.baseline, [], [], {}, {}, {}, [])

    def _check(self, setting: Setting, seeds: Sequence[int]) -> None:
        plan = plan_part(setting, Part("", tuple(seeds)))
        trained = [c for c in plan.cells if c.trained]
        if "b" in self.wanted.gates and trained and len(seeds) < SEEDS:
            raise Refused(
                f"gate B retrains every cell with {SEEDS} seeds at least, and the matrix has {len(seeds)}",
                where=f"{setting.matrix}: seeds",
                why="with fewer, a training seed cannot be told from a regression",
                todo=f"write `seeds: {SEEDS}`, or ask for `--gate a` alone",
            )

    def run(self) -> Outcome:
        """Everything but the report."""
        if self.baseline is None:
            self._first()
            return self.outcome
        anchor = anchor_of(self.nights, self.baseline)
        self.outcome.software = changes(anchor.facts["packages"], self.facts["packages"])
        known = noise_for(healthy(self.nights, self.baseline), anchor.facts["environment"], utc_now())
        noise = dict(known.noise)
        if "a" in self.wanted.gates:
            same = self.facts["environment"] == anchor.facts["environment"]
            noise = self._gate_a(anchor, noise, again=same and not known.current)
        if "b" in self.wanted.gates:
            self._gate_b(anchor, self.baseline, noise)
        return self.outcome

    def part(self, part: Part) -> list[Measured]:
        """A part of the night, measured now unless it is whole already. What failed is told at once."""
        parts = self.night.parts()
        self.outcome.notes += [t for t in self.night.torn if t not in self.outcome.notes]
        if part.name not in parts:
            lines, costs = self._measure(self.setting, part)
            self.night.add(part.name, lines, {"costs": costs})
            parts = self.night.parts()
        if part.name in (RETRAINED, FROZEN):
            self.outcome.costs |= parts[part.name][1]["costs"]
        return self.night.measured(part.name)

    # --- the first night --------------------------------------------------------------------------------------------

    def _first(self) -> None:
        seeds = tuple(self.facts["seeds"])
        chosen = self._chosen(seeds)
        measured = self.part(Part(RETRAINED, seeds, chosen))
        self._failures(measured)
        store = Store(Path(self.setting.folder) / "stores" / RETRAINED)
        cells = [c.name for c in plan_part(self.setting, Part("", seeds, chosen)).cells if frozen(store, c)]
        rows = set(cells)
        self._repeat([m for m in measured if set(m.line.names) <= rows], seeds, tuple(cells), (str(store.root),))
        text = "no night is accepted yet, so there is nothing to compare with"
        self._find("night", "no baseline", text)

    def _repeat(
        self, first: list[Measured], seeds: tuple[int, ...], cells: tuple[str, ...], weights: tuple[str, ...]
    ) -> None:
        if not cells:
            return
        runs = [first]
        runs += [self.part(Part(f"repeat-{n}", seeds, cells, weights)) for n in range(2, REPEATS + 1)]
        self.outcome.noise = noise_of(runs)

    def _chosen(self, seeds: tuple[int, ...]) -> tuple[str, ...]:
        """The cells that `--only` means, by name; () for all."""
        if not self.wanted.only:
            return ()
        matrix = load_matrix(Path(self.setting.matrix), overrides=[*self.setting.overrides, f"seeds={list(seeds)}"])
        return tuple(cell.name for cell in matrix.cells(only=self.wanted.only))

    # --- gate A -----------------------------------------------------------------------------------------------------

    def _gate_a(self, anchor: Anchor, noise: dict[str, Noise], *, again: bool) -> dict[str, Noise]:
        cells = self._frozen_cells(anchor)
        if not cells:
            self.outcome.notes.append("gate A has nothing frozen to look at: no weights of the accepted night are left")
            return noise
        explained = self._replay(anchor, cells)
        weights = tuple(map(str, anchor.stores))
        now = self.part(Part(FROZEN, anchor.seeds, cells, weights))
        self._failures(now)
        compared = gate_a.compare(list(anchor.results.values()), now)
        self._refusals(compared)
        self._unknown(now, anchor)
        if again:
            self._repeat(now, anchor.seeds, cells, weights)
            noise |= self.outcome.noise
        if self.wanted.deterministic:
            self.outcome.findings += gate_a.every_flip(compared)
        open_ones = [c for c in compared if c.now.line.what not in explained]
        flagged = gate_a.gate_a(open_ones, noise)
        again_asked = {f.compared.now.line.what for f in flagged}
        self.outcome.findings += gate_a.better([c for c in open_ones if c.now.line.what not in again_asked])
        if flagged:
            rows = {n for f in flagged for n in f.compared.now.line.names}
            second = self.part(Part("frozen-again", anchor.seeds, tuple(sorted(rows)), weights))
            self.outcome.findings += gate_a.confirm_a(flagged, second, noise, self._witness(anchor))
        return noise

    def _witness(self, anchor: Anchor) -> list[Measured]:
        """Another run of the accepted artifacts: by the accepted night itself, or the first healthy night after it."""
        if "repeat-2" in anchor.night.parts():
            return anchor.night.measured("repeat-2")
        for night in healthy(self.nights, self.baseline) if self.baseline else ():
            if night.report()["accepted"] == anchor.night.name and FROZEN in night.parts():
                return night.measured(FROZEN)
        return []

    def _frozen_cells(self, anchor: Anchor) -> tuple[str, ...]:
        """Cells whose artifacts the accepted night still has, as today's code would train them."""
        plan = plan_part(self.setting, Part("", anchor.seeds, self._chosen(anchor.seeds)))
        stores = [Store(folder) for folder in anchor.stores]
        known = {name for m in anchor.results.values() for name in m.line.names}
        kept = [c for c in plan.cells if c.name in known and any(frozen(store, c) for store in stores)]
        names = {c.name for c in kept}
        left = sorted({c.name.rpartition(".s")[0] for c in plan.cells if c.trained and c.name not in names})
        if left:
            self.outcome.notes.append(f"not frozen, because their weights were not kept: {', '.join(left)}")
        return tuple(c.name for c in kept if c.name.rpartition(".s")[0] not in left)

    def _replay(self, anchor: Anchor, cells: tuple[str, ...]) -> set[tuple[str, str, str]]:
        """Stored answers through today's scorers; what they explain."""
        answers = stored_answers(anchor, cells)
        if not answers:
            self.outcome.notes.append("no stored answers of the accepted night are left to replay")
            return set()
        now = self.part(Part("replay", anchor.seeds, cells, (), answers))
        self._failures(now, "replay")
        compared = [
            gate_a.Compared(then, m, flips(then, m), gate_a.refusal(then, m))
            for m in now
            if (then := anchor.results.get(m.line.what))
        ]
        found = list(gate_a.replayed(compared))
        self.outcome.findings += found
        return {f.what for f in found}

    # --- gate B -----------------------------------------------------------------------------------------------------

    def _gate_b(self, anchor: Anchor, baseline: Baseline, noise: dict[str, Noise]) -> None:
        seeds = tuple(self.facts["seeds"])
        plan = plan_part(self.setting, Part("", seeds, self._chosen(seeds)))
        cells = tuple(c.name for c in plan.cells if c.trained)
        if not cells:
            self.outcome.notes.append("gate B has nothing to look at: no cell is trained")
            return
        now = self.part(Part(RETRAINED, seeds, cells))
        self._failures(now)
        self._unknown(now, anchor)
        nights = [n for n in healthy(self.nights, baseline) if n.name != self.night.name]
        past = past_values(nights, baseline)
        rows = [self._row(m, anchor, past.get(m.line.what, []), noise) for m in now if m.line.what in anchor.results]
        rows = [row for row in rows if row is not None]
        self.outcome.findings += gate_b.improved(rows)
        suspects = [*gate_b.gate_b([r for r in rows if r.now.line.value is not None]), *gate_b.diverged(rows)]
        if suspects:
            self._confirm(suspects, tuple(s + fresh(seeds) for s in seeds))
        self.outcome.findings += slower(past_costs(nights, self.facts["machine"]), self.outcome.costs)

    def _row(self, now: Measured, anchor: Anchor, past: Sequence[Past], noise: dict[str, Noise]) -> Any:
        then = anchor.results[now.line.what]
        if now.line.value is None and now.line.state != "diverged":
            return None
        if then.line.value is None or (now.results and (why := gate_a.refusal(then, now))):
            reason = then.line.reason if then.line.value is None else why
            self._find("B", "refused" if then.line.value is not None else "no baseline", reason, now.line)
            return None
        before = comparable(past, now.line)
        return gate_b.Row(
            now,
            then,
            history=tuple(each.line.value for each in before if each.line.value is not None),
            level=level(before, then.line, gate_b.K),
            settled=settled(before),
            noise=noise.get(now.line.task, Noise()),
            margin=self.margins.get(now.line.suite),
        )

    def _confirm(self, suspects: Sequence[gate_b.Suspect], seeds: tuple[int, ...]) -> None:
        names = sorted({f"{s.row.now.line.cell}.s{seed}" for s in suspects for seed in seeds})
        fresh = {m.line.what: m for m in self.part(Part("fresh", seeds, tuple(names)))}
        self.outcome.findings += [gate_b.confirm_b(s, fresh[s.row.now.line.what]) for s in suspects]

    # --- what all parts share ---------------------------------------------------------------------------------------

    def _find(self, gate: str, status: Status, text: str, line: Line | None = None) -> None:
        what = line.what if line else ("", "", "")
        if not any((f.status, f.what) == (status, what) for f in self.outcome.findings):
            self.outcome.findings.append(Finding(gate, status, *what, text))

    def _failures(self, measured: Iterable[Measured], gate: str = "night") -> None:
        for m in measured:
            if m.line.state in ("failed", "missing", "partial"):
                self._find(gate, "failed", m.line.reason, m.line)

    def _refusals(self, compared: Iterable[gate_a.Compared]) -> None:
        for c in compared:
            if c.refused:
                self._find("A", "refused", c.refused, c.now.line)

    def _unknown(self, measured: Iterable[Measured], anchor: Anchor) -> None:
        for m in measured:
            if m.line.what not in anchor.results and m.line.value is not None:
                self._find("night", "no baseline", "the accepted night has no such result", m.line)


def stored_answers(anchor: Anchor, cells: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Where the answers behind the accepted scores are: by cell and task, the store and the key of the answers."""
    chosen, found = set(cells), dict[str, tuple[str, str]]()
    for measured in anchor.results.values():
        folder = anchor.store(measured.line)
        if not folder.is_dir():
            continue
        store = Store(folder)
        for name, key in zip(measured.line.names, measured.line.keys, strict=True):
            record = store.find("score", key) if name in chosen else None
            if record is not None:
                found[f"{name} {measured.line.task}"] = (str(folder), record.identity["generate"])
    return found
