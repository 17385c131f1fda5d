"""`harness export` and `harness import`: a run into a file, and a file into the store."""

from __future__ import annotations

import argparse

from harness.commands.named import is_matrix, store_of, warn
from harness.errors import HarnessError


def export(args: argparse.Namespace) -> int:
    """A run's records, responses and scores into a file, or a small file for each of its cells into a folder."""
    from harness.boards.entries import write_entries
    from harness.matrix import load_matrix
    from harness.runs import export_run, load_run

    name = load_matrix(args.run).name if is_matrix(args.run) else args.run
    store = store_of(args)
    if args.format and args.entries:
        raise HarnessError("--entries and --format write different files", todo="choose one of them")
    if args.format:
        from harness.results.for_tools import WRITERS

        files = WRITERS[args.format](load_run(store, name).cells, store, args.file)
        print(f"{args.file}: {len(files)} files")
    elif args.entries:
        came = write_entries(store, load_run(store, name), args.file)
        print(f"{args.file}: {len(came.new)} entries written, {len(came.present)} were there")
        print("".join(f"not finished: {cell}\n" for cell in came.missing), end="")
    else:
        print(export_run(store, name, args.file))
    warn(store)
    return 0


def import_(args: argparse.Namespace) -> int:
    """What such a file holds into the store."""
    from harness.runs import import_run

    print(import_run(store_of(args), args.file))
    return 0
