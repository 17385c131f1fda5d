"""`harness plan`: every step that would run, with its reason, and an estimate of what it may take."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from harness.commands.named import plan_of, store_of, take_entries, warn
from harness.commands.text import as_json, columns
from harness.errors import HarnessError
from harness.jobs.progress import duration

if TYPE_CHECKING:
    from harness.planning.pending import Estimate, Todo
    from harness.planning.plan import Plan
    from harness.store import Store

DISCORDANCE = 0.10  # the share of 0/1 items on which two runs are taken to differ


def plan(args: argparse.Namespace) -> int:
    """The command."""
    if args.seed_sd is not None and args.seed_sd < 0:
        raise HarnessError(
            f"--seed-sd {args.seed_sd:g}", why="a standard deviation is not negative", todo="give points"
        )
    made = plan_of(args)
    code = print_plan(made, store_of(args), verbose=args.verbose, json_wanted=args.json)
    if args.seed_sd is not None and not args.json:
        print()
        print("\n".join(_told_apart(made, args.seed_sd)))
    return code


def _told_apart(plan: Plan, seed_sd: float) -> Iterator[str]:
    """How large a difference to the baseline must be to be found, before it costs anything. seed_sd: in points."""
    from harness.results.claims import detectable
    from harness.runs import view_of

    view = view_of(plan)
    seeds = len({cell.seed for cell in view.cells if cell.seed is not None})
    if seeds < 2:
        yield "one seed tells no two methods apart: `seeds: 3` or more"
        return
    settled = all(cell.seed is None for cell in view.cells if cell.method == view.baseline)
    suites: dict[str, list[int | None]] = {}
    for task in view.cells[0].scores:
        if task.headline:
            suites.setdefault(task.suite, []).append(task.items)
    yield f"found with 80 % power by {seeds} seeds (seed sd {seed_sd:g} points, runs differ on 10 % of the items):"
    for suite, items in suites.items():
        known = [n for n in items if n]
        found = detectable(known, seeds, seed_sd / 100, DISCORDANCE, settled_baseline=settled) if known else None
        whole = found is not None and len(known) == len(items)
        yield f"  {suite}: a difference of {100 * found:.1f} points" if whole and found else f"  {suite}: not known"


def print_plan(plan: Plan, store: Store, *, verbose: bool, json_wanted: bool) -> int:
    """What is still to be done of a plan, in order, then notes and the expected cost."""
    from harness.planning.pending import estimate, pending, previous
    from harness.runs import run_folder

    take_entries(plan, store)
    todo = pending(plan, store, previous(run_folder(store, plan.matrix.name)))
    cost = estimate(plan, todo, store)
    warn(store)
    if json_wanted:
        return as_json(_body(plan, todo, cost))
    print(f"{plan.matrix.name}: {len(plan.cells)} cells, {len(plan.steps())} steps, {len(todo)} to do")
    if todo:
        print()
        head = ("CELL", "STEP", "REASON", "KEY")[: 4 if verbose else 3]
        print(columns(((t.cell, t.what, t.reason, t.step.key)[: len(head)] for t in todo), head))
    if plan.notes:
        print()
        print("\n".join(f"note: {n}" for n in plan.notes))
    if todo:
        parts = ", ".join(f"{kind} {duration(s)}" for kind, s in cost.seconds.items())
        print(f"\nexpected: about {duration(cost.total)} ({parts})")
        if cost.assumed:
            print(f"  speed of {' and '.join(cost.assumed)} is assumed; nothing like it is in this store yet")
    return 0


def _body(plan: Plan, todo: Sequence[Todo], cost: Estimate) -> dict[str, object]:
    return {
        "schema": "harness-plan",
        "version": 1,
        "matrix": plan.matrix.name,
        "cells": [c.name for c in plan.cells],
        "steps": [
            {"cell": t.cell, "step": t.what, "kind": t.step.kind, "key": t.step.key, "reason": t.reason} for t in todo
        ],
        "notes": plan.notes,
        "estimate": {"seconds": cost.seconds, "total_seconds": cost.total, "assumed": cost.assumed},
    }
