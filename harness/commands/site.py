"""`harness site`: a run or a board as pages that open without a server, with its samples where they are kept."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.commands.named import is_matrix, replanned, store_of, view_named, warn
from harness.commands.prompt import as_dict, in_words
from harness.errors import HarnessError

if TYPE_CHECKING:
    from harness.engines.base import Request
    from harness.plan import Plan
    from harness.planned import PlannedCell, PlannedTask
    from harness.results.frame import TaskView
    from harness.store import Store


def site(args: argparse.Namespace) -> int:
    """The command."""
    from harness.boards.site import About, write_site
    from harness.results.frame import Frame, collect

    if (Path(args.matrix) / "board.yaml").is_file():
        return _of_board(Path(args.matrix), args)
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
        reproduce=f"harness run {args.matrix}" if is_matrix(args.matrix) else "",
    )
    reader = StoredSamples(store, replanned(args, store) if args.outputs else None)
    write_site(about, Frame(started), args.out, read=reader)
    warn(store)
    print(f"{args.out / 'index.html'}: {len(started)} cells; open it in a browser")
    return 0


def _of_board(folder: Path, args: argparse.Namespace) -> int:
    """The live entries of a board's folder."""
    from harness.boards.board import open_board
    from harness.boards.ledger import read_ledger
    from harness.boards.pages import live_entries, notes_of
    from harness.boards.site import About, write_site

    board = open_board(folder)
    if args.outputs:
        raise HarnessError("--outputs shows the answers of a run's store", todo="name the run, or leave it out")
    with live_entries(folder) as live:
        if not live.frame.cells:
            raise HarnessError(
                "nothing is published on this board", where=str(folder), todo="harness publish BOARD RUN"
            )
        notes = tuple(notes_of(read_ledger(folder)))
        about = About(name=board.name, title=args.title or board.title, baseline=live.baseline, notes=notes)
        write_site(about, live.frame, args.out, read=StoredSamples(live.store, None))
        print(f"{args.out / 'index.html'}: {len(live.frame.cells)} cells; open it in a browser")
    return 0


class StoredSamples:
    """The samples of a store's score steps. With a plan, which can tell whose they are, prompts and outputs too."""

    def __init__(self, store: Store, plan: Plan | None) -> None:
        self.store, self.plan = store, plan
        self.planned = {t.score.key: (cell, t) for cell in (plan.cells if plan else ()) for t in cell.tasks}
        self.asked: dict[str, Mapping[int, list[Request]]] = {}

    def __call__(self, cell: str, task: TaskView) -> Iterable[Mapping[str, Any]] | None:
        from harness.results.frame import read_samples

        record = self.store.find("score", task.key)
        if record is None or not record.file("samples.jsonl").exists():
            return None
        lines = read_samples(record.file("samples.jsonl"))
        planned = self.planned.get(task.key)
        return self._with_texts(lines, *planned) if planned else lines

    def _with_texts(
        self, lines: Iterable[Mapping[str, Any]], cell: PlannedCell, planned: PlannedTask
    ) -> Iterator[Mapping[str, Any]]:
        """An engine's words are kept under the keys of the requests, which the task makes again from its data."""
        from harness.evaluation.lm import requests_by_document
        from harness.steps.bench import Bench
        from harness.steps.responses import prompted, read_responses

        generated = self.store.find("generate", planned.generate.key)
        if self.plan is None or generated is None or not generated.file("responses.jsonl").exists():
            yield from lines
            return
        if planned.task.name not in self.asked:
            self.asked[planned.task.name] = requests_by_document(planned.task)
        stack = Bench(self.plan, self.store, lambda *_: None).settled(cell).stack
        said = {r.key: r for r in read_responses(generated.file("responses.jsonl"))}
        for line in lines:
            asked = self.asked[planned.task.name].get(line["doc"], [])
            prompts = dict.fromkeys(in_words(as_dict(prompted(stack, request)[-1])) for request in asked)
            texts = [said[request.key].text for request in asked if request.key in said]
            yield {**line, "prompt": "\n\n".join(prompts), "output": "\n\n".join(filter(None, texts))}
