"""`harness gc`: what could be deleted from the store and how much it holds; deleted only when told."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.commands.named import plan_of, store_of
from harness.commands.text import as_json, columns, size

if TYPE_CHECKING:
    from harness.planning.plan import Plan
    from harness.store import Store


def gc(args: argparse.Namespace) -> int:
    """The command."""
    plans = [plan_of(argparse.Namespace(**{**vars(args), "matrix": m}), whole=True) for m in args.matrix]
    return _list(store_of(args), plans, delete=args.delete, json_wanted=args.json)


def _list(store: Store, plans: Sequence[Plan], *, delete: bool, json_wanted: bool) -> int:
    """With plans, steps that none of them needs can go too, and weights that their `keep` does not ask for."""
    from harness.jobs.driver import sheddable
    from harness.store import gc as collector

    wanted = {(s.kind, s.key) for plan in plans for s in plan.steps().values()} if plans else None
    weights = [pair for plan in plans for pair in sheddable(plan, store)]
    found = collector.plan(store, wanted, weights)
    total = sum(r.bytes for r in found)
    if json_wanted:
        items = [{"path": str(r.path), "bytes": r.bytes, "why": r.why} for r in found]
        as_json({"schema": "harness-gc", "version": 1, "delete": delete, "bytes": total, "items": items})
    elif not found:
        print("nothing to delete")
    else:
        print(columns(((size(r.bytes), r.why, r.path) for r in found), ("SIZE", "WHY", "PATH")))
        print(f"\n{size(total)} could be freed" + ("" if delete else "; `harness gc --delete` does it"))
    if delete:
        freed = collector.carry_out(store, found)
        if not json_wanted:
            print(f"freed {size(freed)}")
    return 0
