"""The two sides of a comparison as the command line names them: a run, a night, or a method or cell of one."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.commands.named import replanned, view_named
from harness.errors import HarnessError, nearest

if TYPE_CHECKING:
    from harness.results.frame import CellResult, Frame, TaskView
    from harness.store import Store

    Read = Callable[[str, TaskView], Iterable[Mapping[str, Any]] | None]


@dataclass(frozen=True)
class Asked:
    """text: as it was named.  chosen: its method or cell, "" for all.  software: versions of each package behind given
    cells.  reader: how their samples are read, with prompts and outputs where these can be had.
    """

    text: str
    chosen: str
    frame: Frame
    software: Callable[[Sequence[CellResult]], dict[str, list[str]]]
    reader: Callable[[], Read]


def find_side(args: argparse.Namespace, text: str, store: Store) -> Asked:
    """RUN or NIGHT, or with `:METHOD` or `:CELL` behind it. HarnessError where there is no such thing."""
    from harness.nightly.compared import is_night

    named, _, chosen = text.partition(":")
    whole = _of_night(text, named) if is_night(named) else _of_run(args, text, named, store)
    return _part(whole, named, chosen) if chosen else whole


def _of_run(args: argparse.Namespace, text: str, named: str, store: Store) -> Asked:
    from harness.commands.stored import StoredSamples, tasks_of
    from harness.results.frame import collect

    of_run = argparse.Namespace(**{**vars(args), "matrix": named})
    frame = collect(view_named(of_run, store).cells, store)
    return Asked(
        text,
        "",
        frame,
        lambda cells: _versions(store, cells),
        lambda: StoredSamples(store, tasks_of(replanned(of_run, store))),
    )


def _of_night(text: str, named: str) -> Asked:
    """A night keeps no prompts, and what the scorers read only as long as its answers."""
    from harness.commands.stored import StoredSamples
    from harness.nightly.compared import frame_of, open_night
    from harness.store import Store

    night = open_night(named)
    frame, folders = frame_of(night)
    packages = {name: [version] for name, version in night.facts()["packages"].items()}

    def read(cell: str, task: TaskView) -> Iterable[Mapping[str, Any]] | None:
        folder = folders[cell]
        return StoredSamples(Store(folder), {})(cell, task) if Path(folder).is_dir() else None

    return Asked(text, "", frame, lambda cells: packages, lambda: read)


def _part(whole: Asked, named: str, chosen: str) -> Asked:
    from harness.results.frame import Frame

    cells = tuple(
        c
        for c in whole.frame.cells
        if chosen in (c.view.name, c.view.method, c.view.row, f"{c.view.model}.{c.view.row}")
    )
    if not cells:
        known = sorted({c.view.row for c in whole.frame.cells})
        raise HarnessError(
            f"`{named}` has no method or cell `{chosen}`", todo=nearest(chosen, known) or f"known: {', '.join(known)}"
        )
    return Asked(whole.text, chosen, Frame(cells), whole.software, whole.reader)


def _versions(store: Store, cells: Sequence[CellResult]) -> dict[str, list[str]]:
    found: dict[str, set[str]] = {}
    for cell in cells:
        keys = [("train", key) for key in cell.view.train]
        keys += [(kind, key) for t in cell.view.scores for kind, key in (("generate", t.generate), ("score", t.key))]
        for kind, key in dict.fromkeys(pair for pair in keys if pair[1]):
            record = store.find(kind, key)
            for name, version in (record.provenance.get("packages", {}) if record else {}).items():
                found.setdefault(name, set()).add(str(version))
    return {name: sorted(versions) for name, versions in found.items()}
