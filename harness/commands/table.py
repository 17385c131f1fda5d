"""`harness table`: the results of a run, from the store alone."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from harness.commands.named import store_of, view_named, warn
from harness.errors import HarnessError, nearest

if TYPE_CHECKING:
    from harness.results.frame import Frame
    from harness.results.table import Rows, Table
    from harness.runs import RunView
    from harness.store import Store


FORMS_FOR_PROGRAMS = ("csv", "csv-long", "json")


@dataclass(frozen=True)
class Wanted:
    """How a table is asked for. rows: None for what suits the form.  baseline: None for the run's own."""

    form: str = "md"
    rows: Rows | None = None
    baseline: str | None = None
    strict: bool = False
    rank: bool = False
    columns: tuple[str, ...] = ()
    phases: bool = False
    pareto: str = ""
    output: Path | None = None


def table(args: argparse.Namespace) -> int:
    """The command."""
    columns = tuple(filter(None, (args.columns or "").split(",")))
    if columns and args.format != "latex":
        raise HarnessError("--columns chooses columns of a LaTeX table", todo="add --format latex, or leave it out")
    pareto = (args.pareto or "").replace("-", " ")
    wanted = Wanted(
        args.format, args.rows, args.baseline, args.strict, args.rank, columns, args.phases, pareto, args.output
    )
    store = store_of(args)
    view = view_named(args, store)
    check_baseline(view, args.baseline)
    print_table(view, store, wanted)
    warn(store)
    return 0


def check_baseline(view: RunView, baseline: str | None) -> None:
    """HarnessError if the run has no such method."""
    if baseline is not None and baseline not in (methods := sorted({c.method for c in view.cells})):
        todo = nearest(baseline, methods) or f"known: {', '.join(methods)}"
        raise HarnessError(f"there is no method `{baseline}` in this table", todo=todo)


def print_table(view: RunView, store: Store, wanted: Wanted, *, keep: bool = False) -> bool:
    """Print a run's table, or write it to a file; True when no cell in it failed or is missing.

    keep: leave it in the run's folder in every form, too.
    """
    from harness.results.frame import collect
    from harness.results.table import make_table
    from harness.runs import run_folder, write

    frame = collect(view.cells, store)
    if wanted.form == "parquet":
        return _samples(frame, wanted.output)
    ranked = wanted.rank or wanted.form == "latex"
    baseline = wanted.baseline or view.baseline

    @cache
    def made(rows: Rows) -> Table:
        table = make_table(
            frame, baseline=baseline, notes=view.notes, strict=wanted.strict, rows=wanted.rows or rows, ranked=ranked
        )
        return replace(table, phases=wanted.phases, pareto=wanted.pareto)

    if keep:
        people, programs = made("methods"), made("all")
        forms = (("md", people.markdown), ("csv", programs.csv), ("json", programs.json))
        for suffix, make in forms:
            write(run_folder(store, view.name) / f"table.{suffix}", make())
    shown = made("all" if wanted.form in FORMS_FOR_PROGRAMS else "methods")
    if wanted.form == "md" and wanted.output is None and sys.stdout.isatty():
        from rich.console import Console

        console = Console()
        console.print(shown.terminal(width=console.width))
    else:
        _write(_text(shown, view.name, wanted), wanted.output)
    return not frame.incomplete


def _text(shown: Table, name: str, wanted: Wanted) -> str:
    makers: dict[str, Callable[[], str]] = {
        "md": shown.markdown,
        "tasks": shown.markdown_by_task,
        "csv": shown.csv,
        "csv-long": shown.csv_long,
        "json": shown.json,
        "html": lambda: shown.html(title=name),
        "latex": lambda: shown.latex(columns=wanted.columns),
    }
    return makers[wanted.form]()


def _write(text: str, output: Path | None) -> None:
    from harness.runs import write

    if output:
        write(output, text)
    else:
        print(text, end="" if text.endswith("\n") else "\n")


def _samples(frame: Frame, output: Path | None) -> bool:
    from harness.results.parquet import write_samples

    if output is None:
        raise HarnessError("Parquet is not printed", todo="name a file with -o")
    print(f"{output}: {write_samples(frame, output)} lines")
    return not frame.incomplete
