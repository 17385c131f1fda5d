"""`harness nightly` and `harness accept`: the gate of a night, and the night that it compares with."""

from __future__ import annotations

import argparse
import getpass
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.commands.named import where_of
from harness.commands.text import as_json
from harness.errors import HarnessError, nearest

if TYPE_CHECKING:
    from harness.nightly.measure import Setting
    from harness.nightly.nights import Nights
    from harness.nightly.procedure import Wanted


def nightly(args: argparse.Namespace) -> int:
    """The command; its exit code is the verdict."""
    from harness.matrix import load_matrix
    from harness.nightly.closing import close, let_go
    from harness.nightly.measure import measure
    from harness.nightly.nights import Nights
    from harness.nightly.procedure import Procedure
    from harness.nightly.report import as_json as body_of
    from harness.nightly.report import files

    setting = _setting(args)
    matrix = load_matrix(Path(setting.matrix), overrides=list(setting.overrides))
    wanted = _wanted(args, [entry.name for entry in matrix.suites])
    nights = Nights(args.nights.absolute(), matrix.name)
    procedure = Procedure(nights, setting, wanted, measure)
    print(f"night {procedure.night.name}, in {procedure.night.folder}", file=sys.stderr)
    procedure.run()
    body = body_of(close(procedure, matrix=str(args.matrix), find_cause=args.bisect))
    texts = files(body)
    for folder in filter(None, (args.report, procedure.night.folder)):
        _write(folder, texts)
    let_go(nights, body["accepted"])
    if args.json:
        as_json(body)
    else:
        print(texts["report.md"], end="")
    return int(body["code"])


def _setting(args: argparse.Namespace) -> Setting:
    from harness.nightly.measure import Setting

    where = where_of(args)
    overrides = [*args.set, *([f"seeds={args.seeds}"] if args.seeds else [])]
    return Setting(
        matrix=str(args.matrix),
        folder="",
        overrides=tuple(overrides),
        mirror=str(where.mirror.expanduser().resolve()) if where.mirror else None,
        offline=where.offline,
        limit=args.limit,
        runner=args.runner,
        jobs=args.jobs,
    )


def _wanted(args: argparse.Namespace, suites: list[str]) -> Wanted:
    from harness.nightly.procedure import Wanted

    gates = ("a", "b") if args.gate == "both" else (args.gate,)
    margins = tuple(_margin(text, suites) for text in args.margin)
    return Wanted(gates, tuple(args.only), margins, args.deterministic)


def _margin(text: str, suites: list[str]) -> tuple[str, float]:
    """`math=1.5` as a share of one. HarnessError for anything else."""
    suite, _, points = text.partition("=")
    try:
        value = float(points)
    except ValueError:
        value = -1.0
    if not 0 < value < 100:
        raise HarnessError(f"`--margin {text}` gives no points", todo="write --margin math=1.5")
    if suite not in suites:
        todo = nearest(suite, suites) or f"it has: {', '.join(suites)}"
        raise HarnessError(f"the matrix has no suite `{suite}`", where=f"--margin {text}", todo=todo)
    return suite, value / 100


def _write(folder: Path, texts: dict[str, str]) -> None:
    """`report.json` last: with it the night is finished."""
    from harness.runs import write

    folder.mkdir(parents=True, exist_ok=True)
    for name in sorted(texts, key=lambda name: name == "report.json"):
        write(folder / name, texts[name])


def accept(args: argparse.Namespace) -> int:
    """The command."""
    from dataclasses import asdict

    from harness.nightly.baseline import accept as move
    from harness.nightly.baseline import read_baseline

    nights = _board(args)
    night = nights.named(args.night)
    before = read_baseline(nights)
    when = datetime.now(UTC).isoformat(timespec="seconds")
    made = move(nights, night, who=args.who or getpass.getuser(), why=args.why, when=when)
    if args.json:
        return as_json({"schema": "harness-accept", "version": 1, "board": nights.board, **asdict(made)})
    instead: Any = f" instead of {before.night}" if before else ""
    print(f"{nights.board}: later nights are compared with {made.night}{instead}")
    lacking = sorted({line.cell for lines, _ in night.parts().values() for line in lines if line.value is None})
    if lacking:
        print(f"note: without a number, and so without a baseline: {', '.join(lacking)}", file=sys.stderr)
    if not (night.folder / "stores").is_dir():
        text = "its answers and weights were removed: gate A will have nothing to look at"
        print(f"note: {text}; the last night's are there", file=sys.stderr)
    return 0


def _board(args: argparse.Namespace) -> Nights:
    """The board that is meant: by name, or the only one. HarnessError with those there are."""
    from harness.nightly.nights import Nights

    root = args.nights.absolute()
    there = sorted({file.parents[1].name for file in root.glob("*/*/night.json")})
    name = args.board or (there[0] if len(there) == 1 else "")
    if name not in there:
        todo = f"--board with one of: {', '.join(there)}" if there else "run `harness nightly` first"
        what = f"there are no nights of `{name}`" if name else f"{len(there)} boards to choose from"
        raise HarnessError(what, where=str(root), todo=todo)
    return Nights(root, name)
