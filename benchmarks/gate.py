"""What the nightly gate lets through and what it catches, by simulation.

Run by hand: `python benchmarks/gate.py --write docs/gate.md`.

Healthy nights: how many end with a false alarm. One cell that gets worse: whether, and after how many nights, it is
caught. Everything that decides is the product's own: `gate_b`, `confirm_b`, `gate_a`, `confirm_a`, drift included. Only
the results are made up: items that are right or wrong, runs that differ in 10 % of them, seeds that differ besides.
"""

from __future__ import annotations

import argparse
import sys
import time
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np

from harness.nightly import gate_a, gate_b
from harness.nightly.findings import Finding
from harness.nightly.flips import Noise, noise_of
from harness.nightly.nights import Line, Measured
from harness.results.frame import Result, TaskView
from harness.results.items import Samples

SIZES = (164, 500, 1319)
RESULTS, NIGHTS, SEEDS = 100, 200, 3
FROZEN_NIGHTS = 1000  # of gate A, in which nothing is trained
DISCORDANCE = 0.10  # items in which two trainings differ
NOISE = 0.01  # items in which two runs of the same artifact differ
CAUGHT_WITHIN = 3
PATIENCE = 10  # nights after which a drop counts as missed
MARK = "<!-- simulation -->"


@dataclass(frozen=True)
class Cell:
    """A made-up result: which items are right most of the time, and how much its seeds differ (share, not points)."""

    name: str
    right: np.ndarray
    names: tuple[str, ...]
    seed_sd: float

    def runs(self, rng: np.random.Generator, *, drop: float = 0.0, part: str = "retrained") -> Measured:
        """Three seeds of it. Items flip both ways; a drop, or a poor seed, makes right ones wrong more often."""
        n, q = len(self.right), (1 - (1 - 2 * DISCORDANCE) ** 0.5) / 2
        values = []
        for shift in rng.normal(-drop, self.seed_sd, SEEDS):
            share = self.right.mean()
            up, down = max(0.0, q + shift / 2 / (1 - share)), max(0.0, q - shift / 2 / share)
            draws = rng.random(n)
            values.append(np.where(self.right, draws >= down, draws < up))
        return self._measured(values, part)

    def frozen(self, rng: np.random.Generator, base: Sequence[np.ndarray], *, broken: float = 0.0) -> Measured:
        """The same artifacts answered once more. broken: share of the items that a software change makes wrong."""
        flipped = [b ^ (rng.random(len(b)) < NOISE / 2) for b in base]
        return self._measured([f & (rng.random(len(f)) >= broken) for f in flipped], "frozen")

    def _measured(self, values: Sequence[np.ndarray], part: str) -> Measured:
        task = TaskView("sim", self.name, "exact_match", True, "", "p")
        samples = [Samples(self.names, values=array("d", v.astype(float).tobytes())) for v in values]
        by_seed = tuple(float(v.mean()) for v in values)
        results = tuple(Result(task, "ok", "", v, len(self.names), s) for v, s in zip(by_seed, samples, strict=True))
        seeds = tuple(range(len(values)))
        line = Line(
            part, self.name, "sim", self.name, "exact_match", True, "ok", "", float(np.mean(by_seed)),
            len(self.names), seeds, by_seed, (), (), (), "p", "t", "e", "m", part,
        )  # fmt: skip
        return Measured(line, results)


def make_cells(
    rng: np.random.Generator, sizes: Sequence[int], seed_sds: Sequence[float], label: str = "cell"
) -> list[Cell]:
    """As many cells as sizes, half of the items right."""
    found = []
    for number, (size, sd) in enumerate(zip(sizes, seed_sds, strict=True)):
        names = tuple(map(str, range(size)))
        found.append(Cell(f"{label}{number}", rng.random(size) < 0.5, names, sd))
    return found


def flip_noise(rng: np.random.Generator, cell: Cell) -> Noise:
    """As the product measures it, from three runs of one artifact."""
    base = [cell.right] * SEEDS
    return noise_of([[cell.frozen(rng, base)] for _ in range(3)]).get(cell.name, Noise())


class Board:
    """Cells with an accepted night, ten healthy nights after it, and what each night adds."""

    def __init__(self, rng: np.random.Generator, cells: Sequence[Cell]) -> None:
        self.rng, self.cells = rng, cells
        self.anchor = [c.runs(rng) for c in cells]
        self.settled = [0] * len(cells)
        self.noise = [flip_noise(rng, c) for c in cells]
        self.past = [[a, *(c.runs(rng) for _ in range(gate_b.K))] for c, a in zip(cells, self.anchor, strict=True)]

    def night(self, drop: dict[int, float]) -> list[Finding]:
        """One night, with its confirmations; healthy results join the past as the product lets them."""
        now = [c.runs(self.rng, drop=drop.get(i, 0.0)) for i, c in enumerate(self.cells)]
        rows = [
            gate_b.Row(m, a, tuple(map(_value, p)), tuple(x.line.by_seed for x in p[: gate_b.K + 1]), settled, n)
            for m, a, p, settled, n in zip(now, self.anchor, self.past, self.settled, self.noise, strict=True)
        ]
        places = {m.line.what: i for i, m in enumerate(now)}
        found = []
        for suspect in gate_b.gate_b(rows):
            i = places[suspect.row.now.line.what]
            fresh = self.cells[i].runs(self.rng, drop=drop.get(i, 0.0), part="fresh")
            found.append(gate_b.confirm_b(suspect, fresh))
        disputed = {f.what for f in found if f.status in ("confirmed", "inconclusive")}
        confirmed = any(f.status == "confirmed" for f in found)  # such a night is not accepted at all
        cleared = {f.what for f in found if f.status == "cleared"}
        for i, m in enumerate(now):
            if m.line.what not in disputed and not confirmed:
                self.past[i].append(replace(m, results=()))
                self.settled[i] = len(self.past[i]) if m.line.what in cleared else self.settled[i]
        return found


def _value(measured: Measured) -> float:
    assert measured.line.value is not None
    return measured.line.value


def mixed(rng: np.random.Generator, results: int) -> list[Cell]:
    sizes = [SIZES[i % 3] for i in range(results)]
    return make_cells(rng, sizes, [(0.0, 0.007, 0.013)[i // 3 % 3] for i in range(results)])


def healthy(nights: int, results: int, seed: int) -> dict[str, float]:
    """Nights of which nothing is wrong: shares that were suspected, that ended undecided, and that alarmed."""
    rng = np.random.default_rng(seed)
    board = Board(rng, mixed(rng, results))
    counts = {"suspected": 0, "undecided": 0, "alarmed": 0}
    for _ in range(nights):
        found = board.night({})
        confirmed = any(f.status == "confirmed" for f in found)
        counts["suspected"] += bool(found)
        counts["alarmed"] += confirmed
        counts["undecided"] += not confirmed and any(f.status == "inconclusive" for f in found)
    return {name: count / nights for name, count in counts.items()}


def healthy_frozen(nights: int, results: int, seed: int) -> float:
    """The share of nights on which gate A alarms though nothing changed; another accepted night every ten nights."""
    rng = np.random.default_rng(seed)
    cells = mixed(rng, results)
    places = {c.name: i for i, c in enumerate(cells)}
    base = [[c.right] * SEEDS for c in cells]
    noise = {c.name: flip_noise(rng, c) for c in cells}
    alarms = 0
    for number in range(nights):
        if number % 10 == 0:
            then, other = ([c.frozen(rng, b) for c, b in zip(cells, base, strict=True)] for _ in range(2))
        now = [c.frozen(rng, b) for c, b in zip(cells, base, strict=True)]
        flagged = gate_a.gate_a(gate_a.compare(then, now), noise)
        again = [cells[i].frozen(rng, base[i]) for i in (places[f.compared.now.line.cell] for f in flagged)]
        alarms += any(f.status == "confirmed" for f in gate_a.confirm_a(flagged, again, noise, other))
    return alarms / nights


def broken_frozen(share: float, draws: int, seed: int) -> float:
    """How often gate A confirms, in one night, a change that makes this share of one cell's items wrong."""
    rng = np.random.default_rng(seed)
    caught = 0
    for _ in range(draws):
        cell = make_cells(rng, [1319], [0.0])[0]
        base, noise = [cell.right] * SEEDS, {cell.name: flip_noise(rng, cell)}
        then, other = cell.frozen(rng, base), cell.frozen(rng, base)
        flagged = gate_a.gate_a(gate_a.compare([then], [cell.frozen(rng, base, broken=share)]), noise)
        found = gate_a.confirm_a(flagged, [cell.frozen(rng, base, broken=share)] if flagged else [], noise, [other])
        caught += any(f.status == "confirmed" for f in found)
    return caught / draws


def caught(
    drop: float, seed_sd: float, draws: int, seed: int, results: int = RESULTS
) -> tuple[float, float, float | None]:
    """(share caught within three nights, within ten, median night of those) of a drop in one of the results."""
    rng = np.random.default_rng(seed)
    nights: list[int] = []
    others = mixed(rng, results - 1)
    for _ in range(draws):
        cells = [*make_cells(rng, [1319], [seed_sd], "target"), *others]
        nights.append(_night_of(Board(rng, cells), drop))
    found = [n for n in nights if n <= PATIENCE]
    within = sum(n <= CAUGHT_WITHIN for n in nights) / draws
    return within, len(found) / draws, median(found) if found else None


def _night_of(board: Board, drop: float) -> int:
    for night in range(1, PATIENCE + 1):
        if any(f.status == "confirmed" and f.cell == board.cells[0].name for f in board.night({0: drop})):
            return night
    return PATIENCE + 1


def report(boards: int, draws: int, results: int) -> str:
    """The page. boards: healthy boards of 200 nights; draws: per kind of drop."""
    started = time.monotonic()
    shares = [healthy(NIGHTS, results, seed) for seed in range(boards)]
    mean = {name: float(np.mean([s[name] for s in shares])) for name in shares[0]}
    worst = max(s["alarmed"] for s in shares)
    lines = [
        f"**Healthy nights**, {boards} boards of {NIGHTS} nights with {results} results each, of {SIZES} items, "
        f"{SEEDS} seeds, seed sd 0, 0.7 and 1.3 points, 10 % of the items different between two trainings:",
        "",
        "| gate | suspected | undecided (exit 5) | false alarms (exit 3) |",
        "| --- | ---: | ---: | ---: |",
        f"| B, with drift | {mean['suspected']:.1%} | {mean['undecided']:.1%} | {mean['alarmed']:.2%}; "
        f"worst board {worst:.1%} |",
        f"| A, {FROZEN_NIGHTS:,} nights, 1 % of the items flip by themselves "
        f"| | | {healthy_frozen(FROZEN_NIGHTS, results, 7):.2%} |",
        "",
        f"**One result of {results} gets worse** (1,319 items, {SEEDS} seeds, {draws} draws each):",
        "",
        "| drop | seed sd | confirmed within 3 nights | within 10 nights | median night of those |",
        "| ---: | ---: | ---: | ---: | ---: |",
    ]
    for drop, sd in ((4, 0.7), (4, 1.3), (2, 0.7), (2, 1.3)):
        within, ever, night = caught(drop / 100, sd / 100, draws, 11, results)
        lines.append(f"| {drop} points | {sd} | {within:.0%} | {ever:.0%} | {'-' if night is None else f'{night:g}'} |")
    lines += ["", "**Gate A in one night**, a change that makes so many of 1,319 items wrong:", ""]
    lines += ["| items broken | confirmed |", "| ---: | ---: |"]
    lines += [f"| {share:.1%} | {broken_frozen(share, draws, 13):.0%} |" for share in (0.005, 0.01, 0.02)]
    print(f"{time.monotonic() - started:.0f} s", file=sys.stderr)
    return "\n".join(lines) + "\n"


def main() -> None:
    """Print the page, or put it between its marks in a file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--boards", type=int, default=4)
    parser.add_argument("--draws", type=int, default=100)
    parser.add_argument("--results", type=int, default=RESULTS)
    parser.add_argument("--write", type=Path, metavar="FILE")
    args = parser.parse_args()
    text = report(args.boards, args.draws, args.results)
    if args.write is None:
        print(text, end="")
        return
    before, _, rest = args.write.read_text(encoding="utf-8").partition(MARK)
    _, _, after = rest.partition(MARK)
    args.write.write_text(f"{before}{MARK}\n\n{text}\n{MARK}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
