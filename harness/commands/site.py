"""`harness site`: a run, a board or nights as pages that open without a server, with samples where they are kept."""

from __future__ import annotations

import argparse
import functools
from pathlib import Path
from typing import TYPE_CHECKING

from harness.commands.named import is_matrix, replanned, store_of, view_named, warn, where_of
from harness.commands.stored import StoredSamples, tasks_of
from harness.errors import HarnessError
from harness.replan import MATRIX
from harness.runs import run_folder

if TYPE_CHECKING:
    from harness.store import Store


def site(args: argparse.Namespace) -> int:
    """The command."""
    from harness.boards.site import About, write_site
    from harness.results.curve_points import curve_points
    from harness.results.frame import Frame, collect

    if (Path(args.matrix) / "board.yaml").is_file():
        return _of_board(Path(args.matrix), args)
    if any(Path(args.matrix).glob("*/night.json")):
        return _of_nights(Path(args.matrix), args)
    store = store_of(args)
    view = view_named(args, store)
    frame = collect(view.cells, store)
    started = tuple(cell for cell in frame.cells if any(result.state != "missing" for result in cell.results))
    if not started:
        raise HarnessError(f"no cell of {view.name} has a result yet", todo="`harness run` makes them")
    left = len(frame.cells) - len(started)
    about = About(
        name=view.name,
        title=args.title or view.name,
        baseline=view.baseline,
        notes=(*view.notes, *([f"{left} cells of this run have not been run yet."] if left else [])),
        reproduce=_command(args.matrix, store, view.name),
    )
    tasks = tasks_of(replanned(args, store)) if args.outputs else {}
    read, curves = StoredSamples(store, tasks), functools.partial(curve_points, store=store)
    write_site(about, Frame(started), args.out, read=read, curves=curves)
    warn(store)
    print(f"{args.out / 'index.html'}: {len(started)} cells; open it in a browser")
    return 0


def _command(named: str, store: Store, run: str) -> str:
    """What makes a run again. Its matrix as it stood may be missing where the run was imported."""
    matrix = named if is_matrix(named) else str(run_folder(store, run) / MATRIX)
    return f"harness run {matrix}" if Path(matrix).is_file() else ""


def _of_board(folder: Path, args: argparse.Namespace) -> int:
    """The live entries of a board's folder."""
    from harness.boards.board import open_board
    from harness.boards.entries import SUFFIX
    from harness.boards.ledger import ENTRIES, read_ledger
    from harness.boards.pages import live_entries, notes_of
    from harness.boards.protocol import check_pins, measured_by
    from harness.boards.site import About, write_site
    from harness.results.curve_points import curve_points

    board = open_board(folder)
    tasks = measured_by(board, where_of(args)) if args.outputs else {}
    if args.outputs:
        check_pins(board, tasks, folder)  # other questions than today's could not be told from answers not kept
    with live_entries(folder) as live:
        if not live.frame.cells:
            loose = any((folder / ENTRIES).glob(f"*{SUFFIX}"))
            todo = "harness site MATRIX, whose entries these are" if loose else "harness publish BOARD RUN"
            raise HarnessError("nothing is published on this board", where=str(folder), todo=todo)
        notes = tuple(notes_of(read_ledger(folder)))
        title = args.title or board.title
        about = About(board.name, title, baseline=live.baseline, notes=notes, reproduce=board.reproduce)
        read = StoredSamples(live.store, {name: t.task for name, t in tasks.items()})
        write_site(about, live.frame, args.out, read=read, curves=functools.partial(curve_points, store=live.store))
        print(f"{args.out / 'index.html'}: {len(live.frame.cells)} cells; open it in a browser")
    return 0


def _of_nights(folder: Path, args: argparse.Namespace) -> int:
    """The last night that `harness nightly` finished in a folder of nights, and the numbers of all of them."""
    from harness.boards.site import About, write_site
    from harness.nightly.nights import Nights
    from harness.nightly.pages import last_night, trends
    from harness.results.columns import make_columns
    from harness.results.curve_points import curve_points
    from harness.results.frame import Frame

    if args.outputs:
        raise HarnessError(
            "the pages of nights have answers as the scorers read them, and no prompts",
            why="a night keeps the text of its matrix, but not the task files beside it",
            todo="leave out --outputs",
        )
    folder = folder.resolve()
    nights = Nights(folder.parent, folder.name)
    night, shown = last_night(nights)
    cells = [cell for part in shown for cell in part.cells]
    columns = make_columns([result.task for cell in cells for result in cell.results], strict=False)
    about = About(
        name=nights.board,
        title=args.title or f"{nights.board}, night {night.name}",
        baseline=shown[0].run.baseline,
        notes=(f"The gate on night {night.name}: {night.report()['verdict']}", *shown[0].run.notes),
        history=tuple(trends(nights, [cell.view for cell in cells], columns)),
    )
    stores = {c.view.name: s.store for s in shown for c in s.cells}
    write_site(
        about,
        Frame(tuple(cells)),
        args.out,
        read=lambda cell, task: StoredSamples(stores[cell], {})(cell, task),
        curves=lambda view: curve_points(view, stores[view.name]),
    )
    print(f"{args.out / 'index.html'}: {len(cells)} cells of {len(nights.finished())} nights; open it in a browser")
    return 0
