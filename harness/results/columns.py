"""Which columns a table has: one for each task's metric and protocol, one for the headline of each suite, and one for
each of its named means whose parts were all measured.

A column never mixes protocols, and one that asks fewer items than the published test set has says so in its heading.
Values are not here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from harness.digest import differences, digest
from harness.errors import HarnessError
from harness.results.frame import CellResult, Result, TaskView
from harness.results.grouped import by_seed


@dataclass(frozen=True)
class Column:
    """One task under one protocol, or the mean of a suite's headline tasks (then `of_tasks` names their columns).

    label is unique in the table.  headline: this column is the suite's headline.  items: scored items of each cell;
    whole: how many the test set has.  percent: shown times 100.  regime: the public name of the way of asking, "" for a
    mean and where the measurement does not say.
    """

    label: str
    suite: str
    task: str
    metric: str
    protocol: str
    headline: bool
    of_tasks: tuple[str, ...] = ()
    items: int | None = None
    whole: int | None = None
    chance: float | None = None
    percent: bool = True
    notes: tuple[str, ...] = ()
    regime: str = ""

    def results_of(self, cells: Sequence[CellResult]) -> list[Result | None]:
        """Of the column of one task: one a cell, None where a cell was not asked under the column's protocol.

        Of a method that is trained by groups: one a seed, the mean over its models.
        """
        wanted = (self.suite, self.task, self.metric, self.protocol)
        found = [
            next((r for r in c.results if (r.task.suite, r.task.task, r.task.primary, r.task.protocol) == wanted), None)
            for c in cells
        ]
        return by_seed(cells, found) if any(c.view.group_of for c in cells) else found


Key = tuple[str, str]  # task and metric


def make_columns(tasks: Sequence[TaskView], strict: bool) -> list[Column]:
    """Suite by suite in the order of the plan: its means, the one over its headline tasks first, then its tasks."""
    suites: dict[str, dict[Key, dict[str, TaskView]]] = {}
    for t in tasks:
        suites.setdefault(t.suite, {}).setdefault((t.task, t.primary), {}).setdefault(t.protocol, t)
    heads = {s: [k for k, v in tests.items() if next(iter(v.values())).headline] for s, tests in suites.items()}
    own = [
        column
        for suite, tests in suites.items()
        for key, variants in tests.items()
        for column in _task_columns(variants, heads[suite] == [key], strict)
    ]
    labels = [c.label for c in own]
    own = [replace(c, label=f"{c.suite} {c.label} {c.metric}") if labels.count(c.label) > 1 else c for c in own]
    columns: list[Column] = []
    for suite, tests in suites.items():
        mine = [c for c in own if c.suite == suite]
        for name, parts, headline in _means(suite, tests, heads[suite]):
            members = [[c for c in mine if (c.task, c.metric) == key] for key in parts]
            columns += _mean_columns(name, suite, members, headline)
        columns += mine
    return columns


def _means(
    suite: str, tests: Mapping[Key, Mapping[str, TaskView]], heads: Sequence[Key]
) -> Iterator[tuple[str, Sequence[Key], bool]]:
    """(name, parts, whether it is the headline). A named mean over the headline tasks is the headline itself."""
    named: dict[str, list[Key]] = {}
    sizes: dict[str, int] = {}
    for key, variants in tests.items():
        for mean, size in next(iter(variants.values())).means:
            named.setdefault(mean, []).append(key)
            sizes[mean] = size
    whole = {mean: parts for mean, parts in named.items() if len(parts) == sizes[mean]}
    if list(heads) not in whole.values():
        yield f"{suite} mean", heads, True
    for mean, parts in whole.items():
        yield mean, parts, parts == list(heads)


def _task_columns(variants: dict[str, TaskView], headline: bool, strict: bool) -> list[Column]:
    """A column for each protocol under which some cell was measured on one task."""
    first = next(iter(variants.values()))
    columns = []
    for protocol, t in variants.items():
        label, notes = t.label or t.task, list(t.notes)
        if t.items is not None and t.of is not None and t.items < t.of:
            label = f"{label} [{t.items}]"
            notes.append(f"a subset: {t.items} of {t.of} items")
        if len(variants) > 1:
            label = f"{label}@{protocol[:6]}"
            changed = "; ".join(list(differences(dict(first.measured), dict(t.measured)))[:3])
            if strict and t is not first:
                raise HarnessError(
                    f"`{t.task}` was measured under {len(variants)} protocols",
                    why=changed,
                    todo="run the cells again under one protocol, or leave --strict out to get a column for each",
                )
            if t is not first:
                notes.append(f"not the protocol of {first.task}@{first.protocol[:6]}: {changed or 'digests differ'}")
        at = (label, t.suite, t.task, t.primary, protocol, headline)
        column = Column(*at, items=t.items, whole=t.of, chance=t.chance, notes=tuple(notes), regime=_regime(t))
        columns.append(column)
    return columns


def _regime(task: TaskView) -> str:
    asked = task.measured.get("task")
    return str(asked.get("regime") or "") if isinstance(asked, Mapping) else ""


def _mean_columns(name: str, suite: str, parts: Sequence[Sequence[Column]], headline: bool) -> list[Column]:
    """parts: of each task its columns. The n-th mean is over the n-th protocol of each task.

    A cell that has not been measured under all of these has no mean, rather than one that mixes protocols.
    """
    if len(parts) < 2:
        return []
    variants = max(map(len, parts))
    columns = []
    for number in range(variants):
        members = [same[min(number, len(same) - 1)] for same in parts]
        protocol = digest([c.protocol for c in members])[:16]
        label = name + (f"@{protocol[:6]}" if variants > 1 else "")
        items = [c.items for c in members if c.items is not None]
        at = (label, suite, "", "mean", protocol, headline, tuple(c.label for c in members))
        columns.append(Column(*at, items=sum(items) if len(items) == len(members) else None))
    return columns
