"""The committed boards: every method has its row, each table is what its entries give, and what was published holds."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from harness.boards.board import open_board
from harness.boards.pages import SHOWN, write_pages
from harness.matrix import load_matrix
from harness.methods import OURS
from tests.runs import harness

ROOT = Path(__file__).resolve().parents[1]
BOARDS = ["methods-small", "peft-small", "peft-small-hf"]
RANKED = ["methods-small"]  # three seeds of every row
NO_ROW = {"clear": "needs a model that knows contradiction, and none is at hand"}


def test_every_method_has_its_row() -> None:
    rows = {
        member
        for board in BOARDS
        for entry in load_matrix(ROOT / "matrices" / f"{board}.yaml").methods.values()
        for member, _ in entry.stack
    }
    assert rows == set(OURS) - set(NO_ROW)


@pytest.mark.parametrize("board", BOARDS)
def test_a_table_is_what_its_entries_give(board: str, mirror: Path, tmp_path: Path) -> None:
    for name in ("matrices", "leaderboards"):
        (tmp_path / name).symlink_to(ROOT / name)
    rank = ["--rank"] if board in RANKED else []
    out, _ = harness(tmp_path, "table", f"matrices/{board}.yaml", "--mirror", mirror, *rank)
    file = ROOT / "leaderboards" / board / "table.md"
    published = file.with_name("board.md")
    assert out == (file.read_text() if file.exists() else published.read_text().partition("\n\n")[2])


def test_the_published_board_passes_its_own_check_and_shows_its_entries(mirror: Path, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "leaderboards" / "peft-small-hf", tmp_path / "board")
    out, _ = harness(tmp_path, "publish", "board", "--check", "--mirror", mirror)
    assert out == "the whole board: nothing amiss\n"
    write_pages(tmp_path / "board", open_board(tmp_path / "board"))
    for name in SHOWN:
        assert (tmp_path / "board" / name).read_bytes() == (ROOT / "leaderboards/peft-small-hf" / name).read_bytes()
    harness(tmp_path, "site", "board", "--out", "pages")
    assert "harness run matrices/peft-small-hf.yaml" in (tmp_path / "pages" / "data" / "board.js").read_text()
