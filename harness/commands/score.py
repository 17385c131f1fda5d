"""`harness score`: score stored responses again by today's scorers, and list what changed."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from harness.commands.named import replanned, store_of, warn
from harness.commands.text import as_json, columns, line

if TYPE_CHECKING:
    from harness.commands.rescoring import Rescored


def score(args: argparse.Namespace) -> int:
    """The command. 1 if a scorer failed."""
    from harness.commands.rescoring import count, rescore

    store = store_of(args)
    plan = replanned(args, store)
    started = time.monotonic()
    results = rescore(plan, store)
    seconds = time.monotonic() - started
    warn(store)
    failed = any(r.state == "failed" for r in results)
    if args.json:
        body = {"schema": "harness-score", "version": 1, "run": plan.matrix.name, "seconds": seconds}
        as_json({**body, "changed": count(results), "tasks": [asdict(r) for r in results]})
        return int(failed)
    print(columns(map(_row, results), ("CELL", "TASK", "", "SAMPLES", "CHANGED", "SCORE")))
    changes = [
        (r.cell, r.task, c.doc, c.item[:8], line(f"{c.was} -> {c.now}"), line(c.why))
        for r in results
        for c in r.changes
    ]
    if changes:
        print("\n" + columns(changes, ("CELL", "TASK", "DOC", "ITEM", "VERDICT", "WHY")))
    print("\n" + _summary(results, seconds))
    return int(failed)


def _row(result: Rescored) -> tuple[object, ...]:
    was, now = (None if v is None else f"{v:.4g}" for v in result.values)
    value = (f"{was} -> {now}" if was != now else now) if result.compared else now
    changed = str(len(result.changes)) if result.compared else "-"
    state = f"{result.state}: {line(result.reason)}" if result.reason else result.state
    return result.cell, result.task, state, result.samples or "-", changed, value or "-"


def _summary(results: Sequence[Rescored], seconds: float) -> str:
    from harness.commands.rescoring import count

    scored = [r for r in results if r.state == "scored"]
    texts = [f"scored {sum(r.samples for r in scored)} samples of {len(scored)} tasks in {seconds:.1f} s"]
    same = sum(r.state == "unchanged" for r in results)
    texts += [f"{same} tasks were scored by the same scorers already"] if same else []
    kinds = count(results)
    how = ", ".join(f"{n} {kind}" for kind, n in kinds.most_common())
    texts.append(f"{sum(kinds.values())} verdicts differ from the scoring before" + (f": {line(how)}" if how else ""))
    return "; ".join(texts)
