"""The commands, thin: they read arguments, call one function each and print what it returns.

Results go to standard output, progress and errors to standard error. Exit codes: 0 all good, 1 some cells failed,
2 a mistake in the command or the matrix, 130 interrupted. Nothing heavy is imported before a command needs it.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import __version__
from harness.errors import HarnessError

if TYPE_CHECKING:
    from harness.plan import Plan
    from harness.runs import RunView
    from harness.store import Store


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; the exit code."""
    parser = make_parser()
    args = parser.parse_args(argv)
    if not hasattr(args, "command"):
        parser.print_help()
        return 2
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        code: int = args.command(args)
        sys.stdout.flush()
        return code
    except HarnessError as error:
        if args.debug:
            raise
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of a pipe, `head` for one, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if args.debug:
            raise
        from harness.store.disk import explain

        print(f"error: {explain(error, Path(error.filename or '.').absolute())}", file=sys.stderr)
        return 2
    except Exception as error:
        if args.debug:
            raise
        print(f"error: {type(error).__name__}: {error}\n  why: this is a bug in harness", file=sys.stderr)
        print("  do:  run the command again with --debug and report what it prints", file=sys.stderr)
        return 1


def _interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


# --- arguments ------------------------------------------------------------------------------------------------


def make_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = argparse.ArgumentParser(
        prog="harness", description="Fine-tune every model x method pair, evaluate every result, compare honestly."
    )
    top.add_argument("--version", action="version", version=f"harness {__version__}")
    top.add_argument("--debug", action="store_true", help="show tracebacks")
    verbs = top.add_subparsers(title="commands", metavar="COMMAND")

    def verb(name: str, command: Callable[[argparse.Namespace], int], text: str, *groups: Any) -> Any:
        sub = verbs.add_parser(name, help=text, description=text)
        sub.set_defaults(command=command)
        sub.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show tracebacks")
        for group in groups:
            group(sub)
        return sub

    common = (_matrix, _selection, _store, _output, _verbose)
    run = verb("run", cmd_run, "do what a matrix asks for, then print its table", *common)
    run.add_argument("--dry-run", action="store_true", help="the same as `harness plan`")
    run.add_argument("--runner", default="local", metavar="PROFILE", help="runner profile (default: local)")
    run.add_argument("--jobs", type=_positive, metavar="N", help="jobs at once on a machine without a GPU (default: 1)")
    verb("plan", cmd_plan, "what `run` would do, step by step, why, and how long it may take", *common)
    verb("status", cmd_status, "how far the cells of a matrix or run are", _run_or_matrix, _selection, _store, _output)
    table = verb("table", cmd_table, "the results of a matrix or run", _run_or_matrix, _selection, _store)
    table.add_argument("--format", choices=("md", "csv", "csv-long", "json"), default="md")
    table.add_argument("--json", dest="format", action="store_const", const="json", help="short for --format json")
    table.add_argument("--strict", action="store_true", help="refuse columns that hold more than one protocol")
    table.add_argument("-o", "--output", type=Path, metavar="FILE", help="write to a file instead of printing")
    methods = verb("methods", cmd_methods, "the methods, or one of them with its parameters", _output)
    methods.add_argument("name", nargs="?")
    suites = verb("suites", cmd_suites, "the suites, or one of them with its tasks", _output, _data)
    suites.add_argument("name", nargs="?")
    doctor = verb("doctor", cmd_doctor, "what this machine can do", _store, _output, _data)
    doctor.add_argument("--full", action="store_true", help="import the heavy packages too")
    init = verb("init", cmd_init, "write the demo matrix into a folder")
    init.add_argument("folder", nargs="?", type=Path, default=Path())
    gc = verb(
        "gc", cmd_gc, "what could be deleted from the store; with --delete, delete it", _store, _output, _selection
    )
    gc.add_argument("matrix", nargs="*", type=Path, help="keep only what these matrices need (default: every result)")
    gc.add_argument("--delete", action="store_true", help="delete what was listed")
    export = verb("export", cmd_export, "pack a run's records, responses and scores into a file", _store)
    export.add_argument("run", help="name of a run, or a matrix file")
    export.add_argument("file", type=Path)
    import_ = verb("import", cmd_import, "take over what `export` packed, after checking every digest", _store)
    import_.add_argument("file", type=Path)
    return top


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return int(text)


def _matrix(sub: Any) -> None:
    sub.add_argument("matrix", type=Path, help="a matrix file, such as matrix.yaml")


def _run_or_matrix(sub: Any) -> None:
    sub.add_argument("matrix", nargs="?", default="matrix.yaml", help="a matrix file or the name of a run")


def _selection(sub: Any) -> None:
    sub.add_argument(
        "--only", action="append", default=[], metavar="PATTERN", help="cells, methods or models like this"
    )
    sub.add_argument(
        "--set", action="append", default=[], metavar="PATH=VALUE", help="change the matrix: train.lr=1e-4"
    )
    sub.add_argument("--limit", type=_positive, metavar="N", help="at most N items a task")
    sub.add_argument("--seeds", type=_positive, metavar="N", help="seeds 0 to N-1 instead of the matrix's")
    _data(sub)


def _data(sub: Any) -> None:
    mirror = os.environ.get("HARNESS_MIRROR")
    sub.add_argument(
        "--mirror",
        type=Path,
        metavar="DIR",
        default=Path(mirror) if mirror else None,
        help="folder with mirror.yaml that stands for the hub (default: $HARNESS_MIRROR)",
    )
    sub.add_argument("--offline", action="store_true", help="never ask the hub")


def _store(sub: Any) -> None:
    default = Path(os.environ.get("HARNESS_STORE", "store"))
    sub.add_argument(
        "--store", type=Path, default=default, metavar="DIR", help="the store (default: $HARNESS_STORE or ./store)"
    )


def _output(sub: Any) -> None:
    sub.add_argument("--json", action="store_true", help="machine-readable output")


def _verbose(sub: Any) -> None:
    sub.add_argument("-v", "--verbose", action="store_true", help="more detail: keys of steps, logs of jobs")


# --- what several commands need -------------------------------------------------------------------------------


def _plan(args: argparse.Namespace, *, whole: bool = False) -> Plan:
    """The plan of the matrix that a command names; `whole` ignores `--only`."""
    from harness.matrix import load_matrix
    from harness.plan import Where, make_plan

    offline = args.offline or args.mirror is not None or os.environ.get("HF_HUB_OFFLINE") == "1"
    where = Where(args.mirror, offline)
    matrix = load_matrix(Path(args.matrix), overrides=args.set)
    return make_plan(matrix, where, only=() if whole else args.only, seeds=args.seeds, limit=args.limit)


def _open_store(args: argparse.Namespace) -> Store:
    from harness.store import Store

    return Store(args.store)


def _is_matrix(name: str) -> bool:
    return name.endswith((".yaml", ".yml")) or "/" in name or Path(name).is_file()


def _view(args: argparse.Namespace, store: Store) -> RunView:
    """The run that a command names: planned anew from a matrix file, or read back by name."""
    from harness.runs import load_run, view_of

    if _is_matrix(args.matrix):
        return view_of(_plan(args))
    if args.only or args.set or args.limit or args.seeds:
        todo = "name the matrix file instead of the run"
        raise HarnessError("--only, --set, --limit and --seeds choose from a matrix, not from a run", todo=todo)
    return load_run(store, args.matrix)


def _warn(store: Store) -> None:
    for warning in store.warnings:
        print(f"warning: {warning}", file=sys.stderr)


# --- the commands ---------------------------------------------------------------------------------------------


def cmd_run(args: argparse.Namespace) -> int:
    """Plan, launch, table."""
    if args.dry_run:
        return cmd_plan(args)
    from harness.execute import Asked, execute
    from harness.runs import save_run, view_of

    store, plan = _open_store(args), _plan(args)
    store.create()
    save_run(store, _plan(args, whole=True) if args.only else plan)
    asked = Asked(args.matrix, args.set, args.seeds, args.limit, args.runner, args.jobs, args.verbose)
    good = execute(plan, store, asked)
    complete = _print_table(view_of(plan), store, form="json" if args.json else "md", keep=not args.only)
    _warn(store)
    return 0 if good and complete else 1


def cmd_plan(args: argparse.Namespace) -> int:
    """Every step that would run, with its reason, and an estimate."""
    from harness.pending import estimate, pending, previous
    from harness.runs import run_folder
    from harness.show import show_plan

    store, plan = _open_store(args), _plan(args)
    todo = pending(plan, store, previous(run_folder(store, plan.matrix.name)))
    cost = estimate(plan, todo, store)
    _warn(store)
    return show_plan(plan, todo, cost, verbose=args.verbose, json_wanted=args.json)


def cmd_status(args: argparse.Namespace) -> int:
    """How far each cell is."""
    from harness.show import show_status

    store = _open_store(args)
    show_status(_view(args, store), store, json_wanted=args.json)
    _warn(store)
    return 0


def cmd_table(args: argparse.Namespace) -> int:
    """The results."""
    store = _open_store(args)
    _print_table(_view(args, store), store, form=args.format, strict=args.strict, output=args.output)
    _warn(store)
    return 0


def _print_table(
    view: RunView, store: Store, *, form: str, strict: bool = False, output: Path | None = None, keep: bool = False
) -> bool:
    """Print a run's table, or write it to `output`; True when no cell in it failed or is missing.

    keep: leave it in the run's folder in every form, too.
    """
    from harness.results.frame import collect
    from harness.results.table import make_table
    from harness.runs import run_folder, write

    frame = collect(view.cells, store)
    table = make_table(frame, baseline=view.baseline, notes=view.notes, strict=strict)
    if keep:
        for suffix, make in (("md", table.markdown), ("csv", table.csv), ("json", table.json)):
            write(run_folder(store, view.name) / f"table.{suffix}", make())
    if form == "md" and output is None and sys.stdout.isatty():
        from rich.console import Console

        console = Console()
        console.print(table.terminal(width=console.width))
        return not frame.incomplete
    text = {"md": table.markdown, "csv": table.csv, "csv-long": table.csv_long, "json": table.json}[form]()
    if output:
        write(output, text)
    else:
        print(text, end="" if text.endswith("\n") else "\n")
    return not frame.incomplete


def cmd_methods(args: argparse.Namespace) -> int:
    """The methods, or one."""
    from harness.show import show_method, show_methods

    return show_method(args.name, json_wanted=args.json) if args.name else show_methods(json_wanted=args.json)


def cmd_suites(args: argparse.Namespace) -> int:
    """The suites, or one."""
    from harness.show import show_suites

    return show_suites(
        args.name, mirror=args.mirror, offline=args.offline or args.mirror is not None, json_wanted=args.json
    )


def cmd_doctor(args: argparse.Namespace) -> int:
    """What this machine can do."""
    from harness.doctor import examine, render

    checks = examine(store=args.store, mirror=args.mirror, full=args.full)
    print(render(checks, json_wanted=args.json))
    return 1 if any(c.level == "problem" for c in checks) else 0


def cmd_init(args: argparse.Namespace) -> int:
    """The demo matrix."""
    from harness.demo import write_demo

    file = write_demo(args.folder)
    print(f"wrote {file}\nnext: harness plan {file}, then harness run {file}")
    return 0


def cmd_gc(args: argparse.Namespace) -> int:
    """What could go, or its removal."""
    from harness.show import show_gc

    plans = [_plan(argparse.Namespace(**{**vars(args), "matrix": m}), whole=True) for m in args.matrix]
    return show_gc(_open_store(args), plans, delete=args.delete, json_wanted=args.json)


def cmd_export(args: argparse.Namespace) -> int:
    """A run into a file."""
    from harness.matrix import load_matrix
    from harness.runs import export_run

    name = load_matrix(args.run).name if _is_matrix(args.run) else args.run
    store = _open_store(args)
    print(export_run(store, name, args.file))
    _warn(store)
    return 0


def cmd_import(args: argparse.Namespace) -> int:
    """A file into the store."""
    from harness.runs import import_run

    print(import_run(_open_store(args), args.file))
    return 0
