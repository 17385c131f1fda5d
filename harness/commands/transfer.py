"""`harness export` and `harness import`: a run into a file, and a file into the store."""

from __future__ import annotations

import argparse

from harness.commands.named import is_matrix, store_of, warn


def export(args: argparse.Namespace) -> int:
    """A run's records, responses and scores into a file."""
    from harness.matrix import load_matrix
    from harness.runs import export_run

    name = load_matrix(args.run).name if is_matrix(args.run) else args.run
    store = store_of(args)
    print(export_run(store, name, args.file))
    warn(store)
    return 0


def import_(args: argparse.Namespace) -> int:
    """What such a file holds into the store."""
    from harness.runs import import_run

    print(import_run(store_of(args), args.file))
    return 0
