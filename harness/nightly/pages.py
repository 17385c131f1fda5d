"""What the pages of a board show of its nights: the last night's cells, and the numbers of nights one after the other.

A cell that a night did not train anew (an untrained one, or all of them where only gate A ran) is shown as its frozen
artifact was measured. Nothing is decided here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from harness.boards.site.about import Point
from harness.errors import HarnessError
from harness.nightly.baseline import FILE
from harness.nightly.environment import changes
from harness.nightly.history import FROZEN, RETRAINED
from harness.nightly.nights import Measured, Night, Nights
from harness.results.columns import Column
from harness.results.frame import CellResult, CellView, collect
from harness.results.stats import mean
from harness.runs import RunView, load_run
from harness.store import Store

WORDS = {  # for findings about a number; others are about a night
    "confirmed": "confirmed worse",
    "inconclusive": "suspected, undecided",
    "cleared": "suspected, cleared",
    "improved": "improved",
    "refused": "not comparable",
}
LAST = 90  # nights of a trend; each is read with its scores by item, from which its intervals come
NAMED = 3  # changed packages that a point's note names


@dataclass(frozen=True)
class Shown:
    """The cells of one part of a night, with the store that is behind them."""

    store: Store
    run: RunView
    cells: tuple[CellResult, ...]


def last_night(nights: Nights) -> tuple[Night, list[Shown]]:
    """The newest finished night whose answers are still there. HarnessError without one."""
    for night in reversed(nights.finished()):
        shown: list[Shown] = []
        for part in (RETRAINED, FROZEN):
            folder = night.folder / "stores" / part
            if part in night.parts() and folder.is_dir():
                store, rows = Store(folder), {(c.view.model, c.view.method) for s in shown for c in s.cells}
                run = load_run(store, nights.board)
                left = [c for c in run.cells if (c.model, c.method) not in rows]
                shown.append(Shown(store, run, collect(left, store).cells))
        if shown:
            return night, shown
    raise HarnessError(
        "no finished night has its answers still", where=str(nights.folder), todo="run `harness nightly` to its end"
    )


def trends(nights: Nights, cells: Sequence[CellView], columns: Sequence[Column]) -> Iterator[Point]:
    """The numbers of those rows and columns on the last `LAST` finished nights, with intervals, the oldest first."""
    rows = {view.name.removesuffix(f".s{view.seed}"): view for view in cells}
    labels = {(c.suite, c.task, c.metric): c.label for c in columns if not c.of_tasks}
    accepted = _accepted(nights)
    before: Mapping[str, str] = {}
    for night in nights.finished()[-LAST:]:
        facts, said = night.facts(), _said(night)
        of_night = [accepted.get(night.name, ""), _software(before, facts)]
        before = facts["packages"]
        for measured in newest(night):
            line = measured.line
            view, label = rows.get(line.cell), labels.get((line.suite, line.task, line.metric))
            if view is not None and label is not None and measured.results:
                found = mean(measured.results)
                assert found.value is not None, "every seed has a value"
                where = (facts["started"], view.model, view.method, label)
                note = "; ".join(filter(None, [said.get(line.what, ""), *of_night]))
                yield Point(*where, found.value, found.low, found.high, note)


def newest(night: Night) -> list[Measured]:
    """Every number of a night once: of the retrained cell where there is one, else of the frozen artifact."""
    parts, found = night.parts(), dict[tuple[str, str, str], Measured]()
    for part in (RETRAINED, FROZEN):
        if part in parts:
            found = {m.line.what: m for m in night.measured(part)} | found
    return list(found.values())


def _said(night: Night) -> dict[tuple[str, str, str], str]:
    """What the gates said of single results, in a word or two."""
    findings = [f for f in night.report()["findings"] if f["status"] in WORDS]
    return {(f["cell"], f["task"], f["metric"]): WORDS[f["status"]] for f in findings}


def _accepted(nights: Nights) -> dict[str, str]:
    file = nights.folder / FILE
    history = json.loads(file.read_text())["history"] if file.exists() else []
    return {each["night"]: f"accepted: {each['why']}" for each in history}


def _software(before: Mapping[str, str], facts: Mapping[str, object]) -> str:
    """What changed since the night before."""
    now = facts["packages"]
    assert isinstance(now, Mapping)
    found = changes(before, now) if before else {}
    named = [f"{name} {old or 'absent'} -> {new or 'absent'}" for name, (old, new) in list(found.items())[:NAMED]]
    more = [f"{len(found) - NAMED} more packages"] if len(found) > NAMED else []
    return ", ".join([*named, *more])
