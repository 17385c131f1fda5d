"""The committed boards: every method has its row, and each table is what its entries give."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.matrix import load_matrix
from harness.methods import OURS
from tests.runs import harness

ROOT = Path(__file__).resolve().parents[1]
BOARDS = ["methods-small", "peft-small", "peft-small-hf"]
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
    out, _ = harness(tmp_path, "table", f"matrices/{board}.yaml", "--mirror", mirror)
    assert out == (ROOT / "leaderboards" / board / "table.md").read_text()
