"""One method against itself: whatever is found different is a false alarm.

Run by hand: `python benchmarks/same_method.py RUN --method NAME --store DIR [--other NAME] [--write FILE]`, of a run
(or a matrix file) that trained NAME with six seeds or more. Its seeds are split into two halves in every way, and each
half is compared with the other on every headline task, by the test that `harness table` uses. With `--other` two names
of the same method are compared, each with all of its seeds. Splits share runs, so their p are not independent: Holm's
correction holds all the same, the histogram is only to look at.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from harness.commands.named import store_of, view_named
from harness.errors import HarnessError
from harness.results import stats
from harness.results.corrections import holm
from harness.results.crossed import LEVEL
from harness.results.frame import Frame, Result, collect
from harness.results.stats import Estimate

BINS = 10


@dataclass(frozen=True)
class Comparison:
    """Of two groups of seeds on one task."""

    model: str
    task: str
    left: tuple[int, ...]
    right: tuple[int, ...]
    estimate: Estimate


def comparisons(frame: Frame, method: str, other: str | None = None) -> list[Comparison]:
    """Every split of a method's seeds into halves, or the method under one name against the other; HarnessError where
    a cell is not finished or there are fewer than two seeds a side."""
    found = []
    for (model, task), runs in _by_task(frame, method).items():
        named = _by_task(frame, other).get((model, task), []) if other is not None else None
        for left, right in _halves(runs) if named is None else [(runs, named)]:
            if min(len(left), len(right)) < 2:
                raise HarnessError(f"{model} {method}: too few seeds", todo="train it with six, or name --other")
            seeds = [tuple(r.seed for r in side if r.seed is not None) for side in (left, right)]
            found.append(Comparison(model, task, *seeds, stats.difference(left, right)))
    if not found:
        raise HarnessError(f"no results of {method}", todo="name a method of this run")
    return found


def _by_task(frame: Frame, method: str) -> dict[tuple[str, str], list[Result]]:
    found: dict[tuple[str, str], list[Result]] = {}
    for cell in frame.cells:
        if cell.view.method != method:
            continue
        for result in cell.results:
            if result.task.headline:
                if result.state != "ok":
                    raise HarnessError(f"{cell.view.name} {result.task.task}: {result.reason}", todo="finish the run")
                found.setdefault((cell.view.model, f"{result.task.task} {result.task.primary}"), []).append(result)
    return found


def _halves(runs: Sequence[Result]) -> Iterator[tuple[list[Result], list[Result]]]:
    """Each split once: of an even number of runs the half with the first one stands on the left."""
    size = len(runs) // 2
    for chosen in combinations(range(len(runs)), size):
        if 2 * size != len(runs) or 0 in chosen:
            rest = [run for i, run in enumerate(runs) if i not in chosen]
            yield [runs[i] for i in chosen], rest


def page(found: Sequence[Comparison], title: str) -> str:
    """Markdown: what was flagged, the histogram of p, and every comparison."""
    ps = [c.estimate.claim for c in found]
    adjusted = holm(ps)
    known = [p for p in ps if p is not None]
    flagged = sum(p is not None and p < LEVEL for p in adjusted)
    below = sum(p < LEVEL for p in known)
    lines = [
        f"# {title}",
        "",
        f"{len(found)} comparisons of a method with itself, {len(known)} with a p. After Holm's correction {flagged}",
        f"are flagged at {100 * LEVEL:.0f} %; without it {below}.",
        "",
        "| p | comparisons |",
        "|---|---|",
    ]
    for bin_ in range(BINS):
        inside = sum(min(BINS - 1, int(p * BINS)) == bin_ for p in known)
        lines.append(f"| {bin_ / BINS:.1f} to {(bin_ + 1) / BINS:.1f} | {'█' * inside} {inside} |")
    lines += ["", "| model | task | seeds | against | difference | 95 % interval | p | after Holm |", "|" + "---|" * 8]
    return "\n".join([*lines, *(_line(c, p) for c, p in zip(found, adjusted, strict=True))]) + "\n"


def _line(one: Comparison, adjusted: float | None) -> str:
    estimate = one.estimate
    seeds = (" ".join(map(str, side)) for side in (one.left, one.right))
    if estimate.value is None or estimate.low is None or estimate.high is None:
        return "| " + " | ".join([one.model, one.task, *seeds, estimate.reason, "", "", ""]) + " |"
    unit = 100 if estimate.bounds else 1
    value, low, high = (f"{unit * x:+.2f}" for x in (estimate.value, estimate.low, estimate.high))
    shown = ["" if p is None else f"{p:.4f}" for p in (estimate.claim, adjusted)]
    return "| " + " | ".join([one.model, one.task, *seeds, value, f"{low} to {high}", *shown]) + " |"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="One method against itself.")
    parser.add_argument("matrix", metavar="RUN", help="the name of a run in the store, or a matrix file")
    parser.add_argument("--method", required=True)
    parser.add_argument("--other", help="another name of the same method")
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--mirror", type=Path)
    parser.add_argument("--write", type=Path, metavar="FILE", help="instead of printing")
    parser.set_defaults(set=[], only=[], seeds=None, limit=None, offline=True)
    given = parser.parse_args()
    opened = store_of(given)
    frame = collect(view_named(given, opened).cells, opened)
    text = page(comparisons(frame, given.method, given.other), f"{given.method} against itself")
    if given.write:
        given.write.write_text(text)
    else:
        print(text, end="")
