"""A night as the results of a run, so that two nights compare like two runs.

It is read from the night's lines and scores by item, which are kept for ever; a cell that the night did not train anew
is there as its frozen artifact was measured.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import yaml

from harness.errors import HarnessError
from harness.nightly.baseline import read_baseline
from harness.nightly.nights import Measured, Night, Nights
from harness.nightly.pages import newest
from harness.results.frame import CellResult, CellView, Cost, Frame, Result

NAMES = ("last", "accepted")


def is_night(text: str) -> bool:
    """Whether a command names a night: its folder, or `last` or `accepted` in the folder of a board's nights."""
    folder = Path(text)
    return (folder / "night.json").is_file() or (folder.name in NAMES and any(folder.parent.glob("*/night.json")))


def open_night(text: str) -> Night:
    """A finished night by what `is_night` takes. HarnessError where it is not finished, or none is accepted."""
    folder = Path(text).resolve()
    nights = Nights(folder.parent.parent, folder.parent.name)
    name = folder.name
    if name == "accepted":
        baseline = read_baseline(nights)
        if baseline is None:
            raise HarnessError("no night is accepted yet", where=str(folder.parent), todo="harness accept")
        name = baseline.night
    night = nights.named(name)
    if not night.finished:
        raise HarnessError(
            f"night {night.name} is not finished",
            where=str(night.folder),
            todo="the same `harness nightly` command goes on with it",
        )
    return night


def frame_of(night: Night) -> tuple[Frame, dict[str, Path]]:
    """Its cells, one a seed, and the folder of the store that each was measured in, which may be gone."""
    rows: dict[str, list[Measured]] = {}
    for measured in newest(night):
        rows.setdefault(measured.line.cell, []).append(measured)
    models = sorted(map(str, yaml.safe_load(night.facts()["matrix"])["models"]), key=len, reverse=True)
    cells, stores = [], dict[str, Path]()
    for row, of_row in rows.items():
        first, model = of_row[0].line, next((m for m in models if row.startswith(f"{m}.")), "")
        method = row.removeprefix(f"{model}.")
        for place, (name, seed) in enumerate(zip(first.names, first.seeds, strict=True)):
            results = tuple(r for m in of_row if (r := _at(m, place)) is not None)
            view = CellView(name, model, method, seed, (), (), tuple(r.task for r in results))
            cells.append(CellResult(view, "ok" if results else "failed", first.reason, results, Cost()))
            stores[name] = night.folder / first.store
    return Frame(tuple(cells)), stores


def _at(measured: Measured, place: int) -> Result | None:
    """The result of one seed, which knows the key of its score step."""
    if place >= len(measured.results):
        return None
    result = measured.results[place]
    return replace(result, task=replace(result.task, key=measured.line.keys[place]))
