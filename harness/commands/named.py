"""What a command line names: the store, a plan, or the view of a run."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import HarnessError

if TYPE_CHECKING:
    from harness.planning.plan import Plan, Where
    from harness.runs import RunView
    from harness.store import Store


def is_matrix(name: str) -> bool:
    """Whether a command names a matrix file, not a run of the store."""
    return name.endswith((".yaml", ".yml")) or "/" in name or Path(name).is_file()


def where_of(args: argparse.Namespace) -> Where:
    """The mirror, and whether the hub may be asked: not with a mirror, nor where the environment says so."""
    from harness.planning.plan import Where

    return Where(args.mirror, args.offline or args.mirror is not None or os.environ.get("HF_HUB_OFFLINE") == "1")


def plan_of(args: argparse.Namespace, *, whole: bool = False) -> Plan:
    """The plan of the matrix file that a command names; `whole` ignores `--only`."""
    from harness.matrix import load_matrix
    from harness.planning.plan import make_plan

    matrix = load_matrix(Path(args.matrix), overrides=args.set)
    only = () if whole else args.only
    return make_plan(matrix, where_of(args), only=only, seeds=args.seeds, limit=args.limit)


def replanned(args: argparse.Namespace, store: Store) -> Plan:
    """The plan of a matrix file, or of what a run was planned from, by today's code."""
    if is_matrix(args.matrix):
        return plan_of(args)
    from harness.replan import plan_again

    _check_plain(args)
    return plan_again(store, args.matrix, only=args.only, mirror=args.mirror)


def view_named(args: argparse.Namespace, store: Store) -> RunView:
    """The run that a command names: planned anew from a matrix file, or read back by name."""
    from harness.runs import load_run, view_of

    if is_matrix(args.matrix):
        plan = plan_of(args)
        stale = take_entries(plan, store)
        view, note = view_of(plan), "its entry is stale: it was made with other keys"
        cells = tuple(replace(c, notes=(*c.notes, note)) if c.name in stale else c for c in view.cells)
        return replace(view, cells=cells)
    _check_plain(args)
    if args.only:
        raise HarnessError("--only chooses from a matrix, not from a run", todo="name the matrix file")
    return load_run(store, args.matrix)


def take_entries(plan: Plan, store: Store) -> list[str]:
    """Take over what a matrix's `entries:` hold; the cells whose entries are stale. People are told of both."""
    if plan.matrix.entries is None:
        return []
    from harness.boards.entries import take_over
    from harness.runs import view_of

    came = take_over(store, view_of(plan), plan.matrix.entries)
    if came.new:
        print(f"note: cells taken from the entries of {plan.matrix.entries}: {len(came.new)} finished", file=sys.stderr)
    for cell in came.stale:
        print(f"note: the entry of {cell} in {plan.matrix.entries} is stale: made with other keys", file=sys.stderr)
    return came.stale


def _check_plain(args: argparse.Namespace) -> None:
    if args.set or args.limit or args.seeds:
        todo = "name the matrix file instead of the run"
        raise HarnessError("--set, --limit and --seeds change a matrix, not a run", todo=todo)


def store_of(args: argparse.Namespace) -> Store:
    """The store, opened."""
    from harness.store import Store

    return Store(args.store)


def warn(store: Store) -> None:
    """What the store found amiss, for people."""
    for warning in store.warnings:
        print(f"warning: {warning}", file=sys.stderr)
