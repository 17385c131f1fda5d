"""`harness publish`: a run onto a board, twice the same, replaced, withdrawn; a kill leaves no half of an entry."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from harness.boards.ledger import ENTRIES, ledger_of
from tests.boards import make_board, only_entry, stamp
from tests.runs import harness, write_matrix


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A folder with a finished run and an empty board."""
    folder = tmp_path_factory.mktemp("publish")
    write_matrix(folder, tiny_model)
    harness(folder, "run", "small.yaml")
    stamp(folder / "store", clean=True)
    make_board(folder)
    return folder


@pytest.fixture
def place(finished: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished, tmp_path / "w")
    return tmp_path / "w"


def test_a_run_is_published_and_its_board_checked_and_shown(place: Path) -> None:
    out, _ = harness(place, "publish", "board", "small")
    entry = only_entry(place / "board")
    assert out == f"published {entry.name}\n"
    out, _ = harness(place, "publish", "board", "--check")
    assert out == "the whole board: nothing amiss\n"
    assert "made_word_problems" in (place / "board" / "board.csv").read_text()
    assert "A tiny board" in (place / "board" / "board.md").read_text()
    assert not [p for p in entry.rglob("*") if p.suffix == ".safetensors"]
    assert "simple_python" not in (place / "board" / "board.json").read_text(), "a task that the board does not have"


def test_the_same_run_again_is_no_new_entry(place: Path) -> None:
    harness(place, "publish", "board", "small")
    ledger = ledger_of(place / "board").read_bytes()
    out, _ = harness(place, "publish", "board", "small")
    assert "on the board already; nothing to do" in out
    assert ledger_of(place / "board").read_bytes() == ledger
    only_entry(place / "board")


def test_check_of_a_run_publishes_nothing(place: Path) -> None:
    out, _ = harness(place, "publish", "board", "small", "--check")
    assert out.endswith(": nothing amiss\n")
    assert list((place / "board" / ENTRIES).iterdir()) == []
