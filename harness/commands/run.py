"""`harness run`: plan, do what is pending, print the table."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from harness.commands.named import plan_of, store_of, take_entries, warn
from harness.commands.plan import print_plan
from harness.commands.table import Wanted, print_table

if TYPE_CHECKING:
    from harness.jobs.execute import Asked
    from harness.planning.plan import Plan
    from harness.store import Store


def run(args: argparse.Namespace) -> int:
    """The command. 0 when every cell has every number."""
    from harness.jobs.execute import Asked
    from harness.trackers import check

    store, plan = store_of(args), plan_of(args)
    check(plan.matrix.report_to)
    if args.dry_run:
        return print_plan(plan, store, verbose=args.verbose, json_wanted=args.json)
    asked = Asked(args.matrix, args.set, args.seeds, args.limit, args.runner, args.jobs, args.verbose)
    return carry_out(plan, plan_of(args, whole=True) if args.only else plan, store, asked, json_wanted=args.json)


def carry_out(plan: Plan, whole: Plan, store: Store, asked: Asked, *, json_wanted: bool) -> int:
    """Do a plan and print its table. whole: the plan of all cells, which is what the run's name stands for."""
    from harness.jobs.execute import execute
    from harness.replan import keep
    from harness.runs import run_folder, save_run, view_of
    from harness.trackers import tell_and_warn

    store.create()
    take_entries(plan, store)
    save_run(store, whole)
    keep(store, whole, asked)
    good = execute(plan, store, asked)
    view = view_of(plan)
    tell_and_warn(plan.matrix.report_to, view.name, view.cells, store, run_folder(store, view.name))
    form = "json" if json_wanted else "md"
    complete = print_table(view, store, Wanted(form), keep=len(plan.cells) == len(whole.cells))
    warn(store)
    return 0 if good and complete else 1
