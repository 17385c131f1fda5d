"""Two sides, each with the same methods or one method, compared task by task and item by item.

A side is the cells of one method on one model. Where two sides were not measured alike the comparison is refused, and
says what differs. No files are read and nothing is rendered here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from harness.digest import differences
from harness.results import stats
from harness.results.findings import Finding, find
from harness.results.frame import CellResult, Result, TaskView
from harness.results.grouped import by_seed
from harness.results.stats import Estimate

Key = tuple[str, str, str]  # suite, task and metric


@dataclass(frozen=True)
class Side:
    """name: how it was asked for.  cells: one a seed, or one a group and seed."""

    name: str
    cells: tuple[CellResult, ...]


@dataclass(frozen=True)
class Line:
    """One task, or the mean of a suite's headline tasks. difference: B minus A; refused: why there is none."""

    suite: str
    label: str
    metric: str
    headline: bool
    a: Estimate | None
    b: Estimate | None
    difference: Estimate | None = None
    finding: Finding | None = None
    refused: str = ""


@dataclass(frozen=True)
class Compared:
    """Two sides on one model. only_a, only_b: tasks that the other side was not asked."""

    model: str
    a: str
    b: str
    lines: tuple[Line, ...]
    only_a: tuple[str, ...] = ()
    only_b: tuple[str, ...] = ()


def compare(pairs: Sequence[tuple[str, Side, Side]]) -> list[Compared]:
    """pairs: (model, A, B). The pairs of one model are corrected together."""
    made = [_compared(model, a, b) for model, a, b in pairs]
    return [
        replace(one, lines=tuple(_found(one, [other for other in made if other.model == one.model]))) for one in made
    ]


def results_by_task(cells: Sequence[CellResult]) -> dict[Key, list[Result]]:
    """The results of a side by task, one a seed; those without a value are left out."""
    views = {_key(r.task): r.task for c in cells for r in c.results}
    found: dict[Key, list[Result]] = {}
    for key in views:
        each = [next((r for r in c.results if _key(r.task) == key), None) for c in cells]
        merged = by_seed(cells, each) if any(c.view.group_of for c in cells) else each
        found[key] = [r for r in merged if r is not None and r.state == "ok"]
    return found


def _key(task: TaskView) -> Key:
    return task.suite, task.task, task.primary


def _compared(model: str, a: Side, b: Side) -> Compared:
    ours, theirs = results_by_task(a.cells), results_by_task(b.cells)
    lines: list[Line] = []
    for suite in dict.fromkeys(suite for suite, _, _ in ours):
        shared = [key for key in ours if key[0] == suite and key in theirs]
        heads = sum(_headline(a.cells, key) for key in shared)
        mine = [_line(key, _view(a.cells, key), ours[key], theirs[key], alone=heads == 1) for key in shared]
        tasks = [line for line, key in zip(mine, shared, strict=True) if _headline(a.cells, key)]
        lines += [_mean(suite, tasks), *mine] if len(tasks) > 1 else mine
    return Compared(
        model,
        a.name,
        b.name,
        tuple(lines),
        tuple(dict.fromkeys(key[1] for key in ours if key not in theirs)),
        tuple(dict.fromkeys(key[1] for key in theirs if key not in ours)),
    )


def _view(cells: Sequence[CellResult], key: Key) -> TaskView:
    return next(r.task for c in cells for r in c.results if _key(r.task) == key)


def _headline(cells: Sequence[CellResult], key: Key) -> bool:
    return _view(cells, key).headline


def _line(key: Key, view: TaskView, ours: Sequence[Result], theirs: Sequence[Result], *, alone: bool) -> Line:
    """alone: it is the only headline task of its suite, and so the headline."""
    a, b = (stats.mean(results) if results else None for results in (ours, theirs))
    line = Line(key[0], view.label or view.task, key[2], view.headline and alone, a, b)
    if not ours or not theirs:
        side = "A" if not ours else "B"
        return replace(line, refused=f"no result on side {side}")
    if ours[0].task.protocol != theirs[0].task.protocol:
        return replace(line, refused=f"measured under different protocols: {_protocols(ours[0].task, theirs[0].task)}")
    difference = stats.difference(theirs, ours)
    if difference.value is None:
        return replace(line, refused=difference.reason)
    return replace(line, difference=difference)


def _protocols(a: TaskView, b: TaskView) -> str:
    changed = list(differences(dict(a.measured), dict(b.measured)))
    return "; ".join(changed[:5]) or f"{a.protocol} and {b.protocol}"


def _mean(suite: str, tasks: Sequence[Line]) -> Line:
    missing = next((line for line in tasks if line.difference is None), None)
    a, b = ([e for e in side if e is not None] for side in zip(*((x.a, x.b) for x in tasks), strict=True))
    line = Line(
        suite,
        f"{suite} mean",
        "mean",
        True,
        stats.suite_mean(a) if len(a) == len(tasks) else None,
        stats.suite_mean(b) if len(b) == len(tasks) else None,
    )
    if missing is not None:
        return replace(line, refused=f"{missing.label}: {missing.refused}")
    return replace(line, difference=stats.suite_mean([x.difference for x in tasks if x.difference]))


def _found(one: Compared, same_model: Sequence[Compared]) -> list[Line]:
    """The lines of one pair with their findings, after the correction over all pairs of the model."""
    labels = list(dict.fromkeys((x.suite, x.label) for other in same_model for x in other.lines))
    by_label = [{(x.suite, x.label): x for x in other.lines} for other in same_model]
    headline = [any(lines[at].headline for lines in by_label if at in lines) for at in labels]
    table = [[_difference(lines, at) for at in labels] for lines in by_label]
    shown = dict(zip(labels, find(table, headline)[same_model.index(one)], strict=True))
    return [replace(x, finding=shown[x.suite, x.label]) for x in one.lines]


def _difference(lines: Mapping[tuple[str, str], Line], at: tuple[str, str]) -> Estimate | None:
    return lines[at].difference if at in lines else None
