"""`publish BOARD --check` refuses what was tampered with, by file and field, also where every digest was redone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.boards.ledger import ENTRIES, ledger_of
from harness.boards.manifest import MANIFEST, read_manifest
from harness.digest import digest
from harness.results.frame import CellView
from harness.store import Store
from tests.boards import forge, make_board, only_entry, reseal, score_folder, stamp
from tests.runs import harness, write_matrix

TASK, CELL, METRIC = "made_word_problems", "tiny.sft.s0", "exact_match,strict"


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A folder with a board on which a run was published."""
    folder = tmp_path_factory.mktemp("tampering")
    write_matrix(folder, tiny_model)
    harness(folder, "run", "small.yaml")
    stamp(folder / "store", clean=True)
    make_board(folder)
    harness(folder, "publish", "board", "small")
    return folder


@pytest.fixture
def place(published: Path, tmp_path: Path) -> Path:
    shutil.copytree(published, tmp_path / "w")
    return tmp_path / "w"


def findings(place: Path) -> list[tuple[str, str, str]]:
    """What the check says, as (file, field, what); it must say something."""
    out, _ = harness(place, "publish", "board", "--check", "--json", code=1)
    return [(f["file"], f["field"], f["what"]) for f in json.loads(out)["findings"]]


def view_of(place: Path, cell: str) -> CellView:
    return next(c for c in read_manifest(only_entry(place / "board")).run.cells if c.name == cell)


def change_lines(file: Path, change: Callable[[list[dict[str, Any]]], object]) -> None:
    rows = [json.loads(text) for text in file.read_text().splitlines()]
    change(rows)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_an_edited_metric(place: Path) -> None:
    view = view_of(place, CELL)

    def better(store: Store) -> None:
        file = score_folder(store, view, TASK) / "metrics.json"
        metrics = json.loads(file.read_text())
        metrics[METRIC]["value"] = 0.75
        file.write_text(json.dumps(metrics))

    forge(place / "board", CELL, better)
    ((file, field, what),) = findings(place)
    assert file.endswith(f"/{CELL}.tar.gz")
    assert field == f"{CELL}.{TASK}.metrics.json.{METRIC}.value"
    assert what == "it says 0.75, and the samples give 0.0"


def test_samples_and_metric_edited_together_fail_against_the_responses(place: Path) -> None:
    view = view_of(place, CELL)

    def better(store: Store) -> None:
        folder = score_folder(store, view, TASK)
        change_lines(folder / "samples.jsonl", lambda rows: rows[0]["scores"].update({METRIC: 1.0}))
        metrics = json.loads((folder / "metrics.json").read_text())
        metrics[METRIC]["value"] = 1 / 12
        (folder / "metrics.json").write_text(json.dumps(metrics))

    forge(place / "board", CELL, better)
    fields = [field for _, field, _ in findings(place)]
    assert fields == [f"{CELL}.{TASK}.metrics.json.{METRIC}.value", f"{CELL}.{TASK}.samples.jsonl.doc 0.scores"]


def test_swapped_samples(place: Path) -> None:
    view = view_of(place, CELL)

    def swap(rows: list[dict[str, Any]]) -> None:
        for part in ("hash", "target"):
            rows[0][part], rows[1][part] = rows[1][part], rows[0][part]

    forge(place / "board", CELL, lambda store: change_lines(score_folder(store, view, TASK) / "samples.jsonl", swap))
    fields = [field for _, field, _ in findings(place)]
    assert fields == [f"{CELL}.{TASK}.samples.jsonl.doc {n}.hash" for n in (0, 1)]


def responses_of(store: Store, view: CellView) -> Path:
    (key,) = {t.generate for t in view.scores if t.task == TASK}
    record = store.find("generate", key)
    assert record is not None
    return record.file("responses.jsonl")


def test_responses_of_other_weights(place: Path) -> None:
    """Another cell's answers with their scores, under this cell's name: consistent in itself."""
    mine, theirs = view_of(place, CELL), view_of(place, "tiny.base")
    taken: dict[str, bytes] = {}

    def read(store: Store) -> None:
        taken["responses"] = responses_of(store, theirs).read_bytes()
        for name in ("samples.jsonl", "metrics.json"):
            taken[name] = (score_folder(store, theirs, TASK) / name).read_bytes()

    def write(store: Store) -> None:
        responses_of(store, mine).write_bytes(taken["responses"])
        for name in ("samples.jsonl", "metrics.json"):
            (score_folder(store, mine, TASK) / name).write_bytes(taken[name])

    forge(place / "board", "tiny.base", read)
    forge(place / "board", CELL, write)
    ((file, field, what),) = findings(place)
    assert file.endswith(f"/{CELL}.tar.gz")
    assert field == f"{CELL}.{TASK}.responses.jsonl"
    assert "which come from other weights" in what


def test_a_question_answered_twice(place: Path) -> None:
    view = view_of(place, CELL)

    def again(store: Store) -> None:
        change_lines(responses_of(store, view), lambda rows: rows.append(rows[0]))

    forge(place / "board", CELL, again)
    assert [f[1:] for f in findings(place)] == [
        (f"{CELL}.{TASK}.responses.jsonl", "1 responses answer a question for a second time")
    ]


def test_missing_responses(place: Path) -> None:
    view = view_of(place, CELL)
    forge(place / "board", CELL, lambda store: responses_of(store, view).unlink())
    assert findings(place)[0][0].endswith(f"/{CELL}.tar.gz")


def test_a_changed_protocol(place: Path) -> None:
    def other(body: dict[str, Any]) -> None:
        for cell in body["run"]["cells"]:
            for task in cell["scores"]:
                task["measured"]["task"]["version"] = 99
                task["protocol"] = digest(task["measured"])[:16]

    reseal(place / "board", other)
    found = findings(place)
    changed = f"tiny.base.{TASK}.measured.task.version"
    assert [(field, what) for _, field, what in found if field == changed] == [
        (changed, "the board measures otherwise: task.version 99 -> 1")
    ]
    assert all("the board measures otherwise" in what for _, _, what in found)


def test_a_protocol_changed_on_the_board(place: Path) -> None:
    file = place / "board" / "board.yaml"
    text = file.read_text()
    was = text.split(f"{TASK}: {{data: '")[1][:16]
    file.write_text(text.replace(was, "0" * 16))
    _, err = harness(place, "publish", "board", "--check", code=2)
    assert f"board/board.yaml: protocol.{TASK}.data: the board pins {'0' * 16}" in err


def test_a_limited_run(place: Path) -> None:
    harness(place, "run", "small.yaml", "--limit", "5", "--set", "name=short")
    stamp(place / "store", clean=True)
    out, _ = harness(place, "publish", "board", "short", code=1)
    assert f"tiny.base.{TASK}.measured.task.limit: a limited run: 5 items; the board measures 12 items" in out
    assert len(list((place / "board" / ENTRIES).iterdir())) == 2, "the entry of before, and the ledger"


@pytest.mark.parametrize("clean", [False, None])
def test_a_dirty_tree(place: Path, clean: bool | None) -> None:
    stamp(place / "store", clean=clean)
    make_board(place)
    shutil.rmtree(place / "board" / ENTRIES)
    out, _ = harness(place, "publish", "board", "small", code=1)
    assert "record.json: provenance.source.clean: the source tree of this step had" in out


def test_too_few_seeds(place: Path) -> None:
    make_board(place, seeds=2)
    fields = {(file.rpartition("/")[2], field): what for file, field, what in findings(place)}
    assert fields[MANIFEST, f"{view_of(place, CELL).model} sft.seeds"] == "1 seeds; the board asks for at least 2"


def test_an_edited_manifest(place: Path) -> None:
    file = only_entry(place / "board") / MANIFEST
    file.write_text(
        file.read_text().replace('"baseline":"base"', '"baseline":"sft"').replace('"name":"small"', '"name":"big"')
    )
    ((where, field, what),) = findings(place)
    assert (where.rpartition("/")[2], field) == (MANIFEST, "digest")
    assert "the ledger has another digest" in what


def test_a_rewritten_file(place: Path) -> None:
    file = only_entry(place / "board") / f"{CELL}.tar.gz"
    file.write_bytes(file.read_bytes() + b"x")
    assert [f[1:] for f in findings(place)] == [(f"{MANIFEST}: files.{file.name}.sha256", "the file was changed")]


def test_a_removed_entry_and_one_put_there_by_hand(place: Path) -> None:
    entry = only_entry(place / "board")
    entry.rename(entry.with_name("mine-0"))
    assert findings(place) == [
        ("entries/ledger.jsonl", entry.name, "the entry was published, and its folder is gone"),
        ("entries/mine-0", MANIFEST, "the ledger does not name it; publish it again"),
    ]


def test_a_removed_line_of_the_ledger(place: Path) -> None:
    entry = only_entry(place / "board").name
    harness(place, "publish", "board", "--withdraw", entry, "--why", "wrong data")
    file = ledger_of(place / "board")
    file.write_text("".join(file.read_text().splitlines(keepends=True)[1:]))
    assert findings(place) == [
        (
            "entries/ledger.jsonl",
            "1",
            "`previous` is not the digest of the line before; a line before it was changed or removed",
        )
    ]


def test_a_missing_row_and_a_missing_overlap_report(place: Path) -> None:
    view = view_of(place, CELL)

    def less(store: Store) -> None:
        (overlap,) = {t.overlap for t in view.scores if t.task == TASK}
        shutil.rmtree(store.root / "overlap" / overlap[:2], ignore_errors=True)
        for folder in store.root.rglob(overlap):
            shutil.rmtree(folder)

    forge(place / "board", CELL, less)
    ((_, field, what),) = findings(place)
    assert field == f"{CELL}.{TASK}.overlap"
    assert "no report on the overlap" in what
