"""`harness table`: the results of a run, from the store alone."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from harness.commands.named import store_of, view_named, warn

if TYPE_CHECKING:
    from harness.runs import RunView
    from harness.store import Store


def table(args: argparse.Namespace) -> int:
    """The command."""
    store = store_of(args)
    print_table(view_named(args, store), store, form=args.format, strict=args.strict, output=args.output)
    warn(store)
    return 0


def print_table(
    view: RunView, store: Store, *, form: str, strict: bool = False, output: Path | None = None, keep: bool = False
) -> bool:
    """Print a run's table, or write it to `output`; True when no cell in it failed or is missing.

    keep: leave it in the run's folder in every form, too.
    """
    from harness.results.frame import collect
    from harness.results.table import make_table
    from harness.runs import run_folder, write

    frame = collect(view.cells, store)
    made = make_table(frame, baseline=view.baseline, notes=view.notes, strict=strict)
    if keep:
        for suffix, make in (("md", made.markdown), ("csv", made.csv), ("json", made.json)):
            write(run_folder(store, view.name) / f"table.{suffix}", make())
    if form == "md" and output is None and sys.stdout.isatty():
        from rich.console import Console

        console = Console()
        console.print(made.terminal(width=console.width))
        return not frame.incomplete
    text = {
        "md": made.markdown,
        "tasks": made.markdown_by_task,
        "csv": made.csv,
        "csv-long": made.csv_long,
        "json": made.json,
    }[form]()
    if output:
        write(output, text)
    else:
        print(text, end="" if text.endswith("\n") else "\n")
    return not frame.incomplete
