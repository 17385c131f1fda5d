"""`harness plan`: every step that would run, with its reason, and an estimate of what it may take."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.commands.named import plan_of, store_of, warn
from harness.commands.text import as_json, columns
from harness.progress import duration

if TYPE_CHECKING:
    from harness.pending import Estimate, Todo
    from harness.plan import Plan
    from harness.store import Store


def plan(args: argparse.Namespace) -> int:
    """The command."""
    return print_plan(plan_of(args), store_of(args), verbose=args.verbose, json_wanted=args.json)


def print_plan(plan: Plan, store: Store, *, verbose: bool, json_wanted: bool) -> int:
    """What is still to be done of a plan, in order, then notes and the expected cost."""
    from harness.pending import estimate, pending, previous
    from harness.runs import run_folder

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
