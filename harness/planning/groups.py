"""`groups:` of methods: an entry becomes one entry for every value of a column of its training data.

What the values are is known only with the data at hand, so this is the first thing that planning does. Every group's
cell is asked the whole of each task: no suite divides its items by the groups of a training set.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.data.sources import Source, of_group, pin
from harness.data.sources import rows as source_rows
from harness.digest import digest
from harness.errors import HarnessError, Problems, Refused, nearest
from harness.matrix import Cell, Group, Matrix, MethodEntry
from harness.matrix.schema import GroupsForm

MOST = 20  # groups of a method: each is a training a model and seed
SHOWN = 12  # values that a message names
Value = str | int | bool


def source_of(source: Source, cell: Cell) -> Source:
    """The rows that a cell trains on."""
    return of_group(source, cell.group.column, cell.group.value) if cell.group else source


def by_groups(matrix: Matrix, mirror: Path | None, offline: bool) -> tuple[Matrix, dict[str, list[HarnessError]]]:
    """The matrix with an entry for every group, and what is wrong by the label of the entry that stays as it is."""
    methods: dict[str, MethodEntry] = {}
    aliases, left_out = dict(matrix.aliases), set(matrix.left_out)
    wrong: dict[str, list[HarnessError]] = {}
    for label, entry in matrix.methods.items():
        if entry.groups is None:
            methods[label] = entry
            continue
        try:
            values = _values(matrix, entry, entry.groups, mirror, offline)
        except HarnessError as error:
            methods[label] = entry
            wrong[label] = list(error.problems) if isinstance(error, Problems) else [error]
            for problem in wrong[label]:
                problem.where = matrix.where(f"methods.{label}.groups")
            continue
        for value, shown in zip(values, _shown(values), strict=True):
            name = f"{label}[{entry.groups.column}={shown}]"
            group = Group(label, entry.groups.column, value)
            methods[name] = replace(entry, label=name, groups=None, group=group)
            aliases |= {f"methods.{name}{end}": aliases[f"methods.{label}{end}"] for end in ("", ".stack")}
            left_out |= {(model, name) for model in matrix.models if (model, label) in matrix.left_out}
    if methods == matrix.methods:
        return matrix, wrong
    return replace(matrix, methods=methods, aliases=aliases, left_out=frozenset(left_out)), wrong


def _values(matrix: Matrix, entry: MethodEntry, form: GroupsForm, mirror: Path | None, offline: bool) -> list[Value]:
    """The groups of an entry, those asked for or all, the largest first."""
    source = pin(matrix.data[entry.data], mirror=mirror, offline=offline)
    if not source.at_hand:
        raise HarnessError(f"the data of `{source.spec}` is not at hand", todo=source.needs)
    rows, column = source_rows(source), form.column
    what = f"`{entry.label}` cannot be trained by groups of `{column}`"
    if column not in rows[0]:
        known = f"the rows of the data `{entry.data}` have {', '.join(rows[0])}"
        raise Refused(f"{what}: there is no such column", why=known, todo=nearest(column, rows[0]))
    odd = [n for n, row in enumerate(rows) if not isinstance(row.get(column), Value)]
    if odd and not form.values:
        why = f"row {odd[0]} has {rows[odd[0]].get(column)!r} there; rows without a plain value: {len(odd)}"
        raise Refused(f"{what}: not every row belongs to one", why=why, todo="name the `values` that are groups")
    counts = _counts(rows, column)
    chosen = form.values or [value for _, value in sorted(counts, key=lambda key: -counts[key])]
    if len(chosen) > MOST:
        why = f"it has {len(chosen)} values, and a method trains {MOST} groups at most"
        raise Refused(f"{what}: there are too many", why=why, todo="name some of them: `values: [...]`")
    return _checked(chosen, counts, what, form)


def _counts(rows: Sequence[Mapping[str, Any]], column: str) -> Counter[tuple[type, Value]]:
    """Rows a value; by type, too, because `true` equals 1."""
    return Counter((type(v), v) for row in rows if isinstance(v := row.get(column), Value))


def _checked(chosen: Sequence[Value], counts: Counter[tuple[type, Value]], what: str, form: GroupsForm) -> list[Value]:
    wrong: list[HarnessError] = []
    for number, value in enumerate(chosen):
        have = counts[type(value), value]
        if (type(value), value) in [(type(v), v) for v in chosen[:number]]:
            wrong.append(Refused(f"{what}: {value!r} stands twice in `values`", todo="remove one of them"))
        elif not have:
            known = [str(v) for _, v in counts]
            todo = nearest(str(value), known) or f"name some of {', '.join(known[:SHOWN])}, ..."
            wrong.append(Refused(f"{what}: no row has {value!r}", todo=todo))
        elif have < form.min_rows:
            why = f"`min_rows` is {form.min_rows}"
            todo = "name the larger groups in `values`, or lower `min_rows`"
            wrong.append(Refused(f"{what}: {value!r} has only {have} row(s)", why=why, todo=todo))
    if wrong:
        raise Problems(wrong)
    return list(chosen)


def _shown(values: Sequence[Value]) -> list[str]:
    """Values as labels and file names show them; those that would look alike carry a digest."""
    plain = [re.sub(r"[^A-Za-z0-9_.+-]+", "-", str(value)).strip("-") for value in values]
    alike = Counter(text.lower() for text in plain)  # a file system may not tell cases apart
    return [
        text if text and alike[text.lower()] == 1 else f"{text}-{digest([type(value).__name__, value])[:6]}".strip("-")
        for text, value in zip(plain, values, strict=True)
    ]
