"""The static site of a board: `write_site` is a pure function of the board's results.

The pages are constant files of ours (`assets/`); what changes from board to board is data, written as script files,
because a page opened from the file system may not fetch. No clock and no network here, and nothing is measured.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.boards.site.about import About, Point
from harness.boards.site.history import history
from harness.boards.site.payload import make_payload
from harness.boards.site.samples import Reader, shards
from harness.boards.site.training import CurveReader, training_curves
from harness.errors import HarnessError
from harness.results.frame import Frame
from harness.results.table import make_table

ASSETS = Path(__file__).parent / "assets"
DATA = "data"

__all__ = ["About", "CurveReader", "Point", "Reader", "write_site"]


def write_site(
    about: About, frame: Frame, out: Path, *, read: Reader | None = None, curves: CurveReader | None = None
) -> None:
    """Write the site of a board into the folder `out`, whose earlier site it replaces.

    read: the samples behind a result; without it a page has scores by item only.  curves: what a cell's training
    logged; without it there is no view of the training. HarnessError where `out` holds something else.
    """
    _make_room(out)
    table = make_table(frame, baseline=about.baseline)
    for file in sorted(ASSETS.iterdir()):
        if file.is_file():
            shutil.copyfile(file, out / file.name)
    sampled: dict[int, list[int]] = {}
    for shard in shards(frame, table.columns, read):
        _script(out / DATA / f"{shard.name}.js", ["shard", shard.name], shard.body)
        if shard.cell is not None:
            sampled.setdefault(shard.column, []).append(shard.cell)
    logged = training_curves(frame, curves) if curves else {}
    for place, of_cells in enumerate(logged.values()):
        name = f"training/{place}"
        _script(out / DATA / f"{name}.js", ["shard", name], of_cells)
    if about.history:
        _script(out / DATA / "history.js", ["shard", "history"], history(about.history))
    lists = {"sampled": sampled, "logged": list(logged), "nights": len({point.day for point in about.history})}
    _script(out / DATA / "board.js", ["board"], make_payload(about, frame, table) | lists)


def _make_room(out: Path) -> None:
    """An earlier site goes entirely: a sample page that no entry names any more must not stay."""
    if out.exists() and any(out.iterdir()) and not (out / DATA / "board.js").is_file():
        raise HarnessError(
            "this folder holds something else than a site", where=str(out), todo="name an empty or a new folder"
        )
    shutil.rmtree(out / DATA, ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)


def _script(file: Path, call: Sequence[str], body: Any) -> None:
    """`Harness.shard("name", {...});`. Plain ASCII, and no `<`, so that nothing in it can be taken for markup."""
    file.parent.mkdir(parents=True, exist_ok=True)
    function, *named = call
    arguments = ", ".join(_json(value) for value in (*named, body))
    file.write_text(f"Harness.{function}({arguments});\n", encoding="ascii")


def _json(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")
