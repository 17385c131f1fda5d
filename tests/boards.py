"""Boards in tests: a finished run of the fake engine, a board that admits it, and ways to forge an entry."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from harness.boards.entries import file_of
from harness.boards.ledger import ENTRIES, Line, append, ledger_of
from harness.boards.manifest import MANIFEST, read_manifest
from harness.digest import canonical, file_digest
from harness.results.frame import CellView
from harness.runs import RunView
from harness.store import Store
from harness.store.record import measure
from harness.store.transfer import export, import_
from harness.store.transfer import read_manifest as read_header
from tests.runs import harness

BOARD = """
version: 1
name: tiny
title: A tiny board
suites:
  math: {{limit: 12, tasks: [made_word_problems]}}
  glue: {{limit: 10, tasks: [made_sentiment]}}
engine: {{name: fake, max_model_len: 4096}}
{protocol}
admission: {{seeds: {seeds}, limits: true, clean_tree: {clean}}}
order_by: mean
"""
LIMITS = ("limit: 12", "limit: 10")


def make_board(folder: Path, form: str = BOARD, *where: str | Path, **text: object) -> Path:
    """`folder/board` with the digests of today's code. text: what the form leaves open; where: `--mirror DIR`."""
    board = folder / "board"
    board.mkdir(exist_ok=True)
    text = {"protocol": "protocol: {}", "seeds": 1, "clean": "true", **text}
    (board / "board.yaml").write_text(form.format(**text))
    pins, _ = harness(folder, "publish", "board", "--protocol", *where)
    (board / "board.yaml").write_text(form.format(**{**text, "protocol": pins.strip()}))
    return board


def stamp(store: Path, clean: bool | None) -> None:
    """Make the records of a store say that their source tree was clean, was not, or (None) that nobody knows."""
    for file in store.rglob("record.json"):
        body = json.loads(file.read_text())
        body["provenance"]["source"] = {"version": "0", "commit": "0" * 40, "clean": clean}
        file.write_text(canonical(body))


def only_entry(board: Path) -> Path:
    """The folder of the one entry there is."""
    (entry,) = [p for p in (board / ENTRIES).iterdir() if p.is_dir()]
    return entry


def forge(board: Path, cell: str, change: Callable[[Store], None]) -> None:
    """Change what is in a cell's file, and make every digest of the board fit again, as a careful forger would."""
    entry = only_entry(board)
    manifest = read_manifest(entry)
    (view,) = [c for c in manifest.run.cells if c.name == cell]
    path = file_of(view, entry)
    store = Store(board.parent / "forged")
    import_(store, path)
    change(store)
    for record in (board.parent / "forged").rglob("record.json"):
        body = json.loads(record.read_text())
        there = measure(record.parent)
        body["outputs"] = {name: there.get(name, old) for name, old in body["outputs"].items()}
        record.write_text(canonical(body))
    alone = RunView("", None, (), (view,))
    export(Store(board.parent / "forged"), alone.keys(), path, manifest=read_header(path))
    shutil.rmtree(board.parent / "forged")
    reseal(board, lambda body: None)


def reseal(board: Path, change: Callable[[dict[str, object]], object]) -> None:
    """Change the manifest, give its files their digests, and begin the ledger anew with it."""
    entry = only_entry(board)
    body = json.loads((entry / MANIFEST).read_text())
    for name, stated in body["files"].items():
        stated |= {"bytes": (entry / name).stat().st_size, "sha256": file_digest(entry / name)}
    change(body)
    (entry / MANIFEST).write_text(canonical(body))
    manifest = read_manifest(entry)
    entry.rename(entry.with_name(manifest.name))
    ledger_of(board).unlink()
    append(board, Line("publish", manifest.name, manifest.digest))


def score_folder(store: Store, view: CellView, task: str) -> Path:
    """Where the finished score step of a task lies."""
    (key,) = {t.key for t in view.scores if t.task == task}
    record = store.find("score", key)
    assert record is not None
    return record.path
