"""A grid: every combination of some values, as methods with labels such as `lora[r=8,lr=0.001]`.

An axis is a training setting (`train.lr`) or a parameter of a member of the stack (`lora.r`). Lists are values too, so
a grid is only ever what stands under `grid:`.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from harness.config.schema_errors import explain
from harness.config.yaml_reader import Tree
from harness.errors import nearest
from harness.matrix.cells import Members
from harness.matrix.schema import Strict, TrainSettings

Report = Callable[[str, str, str], None]  # dotted path below `grid`, what is wrong, what to do
Value = tuple[str, Any]  # how a label shows it; and itself, settings where the axis is a setting


class _TrainAxis(Strict):
    train: TrainSettings


def points(
    label: str, grid: Mapping[str, Sequence[Any]], stack: Members, train: TrainSettings, report: Report
) -> Iterator[tuple[str, Members, TrainSettings]]:
    """Label, stack and settings of every combination; the method itself where there is no grid, or none that fits."""
    axes = {axis: _values(label, axis, values, stack, report) for axis, values in grid.items()}
    if not all(axes.values()) or not axes:
        yield label, stack, train
        return
    last = [axis.rpartition(".")[2] for axis in axes]
    shown = [name if last.count(name) == 1 else axis for axis, name in zip(axes, last, strict=True)]
    for values in itertools.product(*axes.values()):
        members, settings = {name: dict(params) for name, params in stack}, train
        for axis, (_, value) in zip(axes, values, strict=True):
            member, _, param = axis.partition(".")
            if member == "train":
                settings = merged(settings, value)
            else:
                members[member][param] = value
        chosen = ",".join(f"{name}={text}" for name, (text, _) in zip(shown, values, strict=True))
        yield f"{label}[{chosen}]", tuple(members.items()), settings


def merged(below: TrainSettings, above: TrainSettings | None) -> TrainSettings:
    """Settings with what was written in `above` over those of `below`; a budget is replaced as a whole."""
    return below.model_copy(update={name: getattr(above, name) for name in above.model_fields_set}) if above else below


def _values(label: str, axis: str, values: Sequence[Any], stack: Members, report: Report) -> list[Value]:
    head, _, rest = axis.partition(".")
    known = ["train", *(name for name, _ in stack)]
    if not rest:
        report(axis, f"`{axis}` is no axis of a grid", "write `train.SETTING` or `METHOD.PARAMETER`")
        return []
    if head not in known:
        report(axis, f"`{head}` is not in the stack of `{label}`", nearest(head, known))
        return []
    found: dict[str, Any] = {}
    for number, value in enumerate(values):
        at, text = f"{axis}.{number}", _text(value)
        if text is None:
            todo = "write these combinations as methods of their own"
            report(at, "this value of a grid cannot be part of a name", todo)
        elif text in found:
            report(at, f"{text} stands twice on the axis `{axis}`", "remove one of them")
        else:
            found[text] = _setting(axis, value, at, report) if head == "train" else value
    return list(found.items())


def _text(value: Any) -> str | None:
    """A value as labels show it, a list of plain values joined with `+`; None where it would not do as a file name."""
    parts: Sequence[Any] = value if isinstance(value, list) else [value]
    text = "+".join(part if isinstance(part, str) else json.dumps(part) for part in parts)
    return text if re.fullmatch(r"[A-Za-z0-9_.+-]+", text) else None


def _setting(axis: str, value: Any, at: str, report: Report) -> TrainSettings | None:
    """One value of an axis such as `train.lr`, as settings of which only this one is set."""
    nested = value
    for key in reversed(axis.split(".")):
        nested = {key: nested}
    try:
        return _TrainAxis.model_validate_json(json.dumps(nested), strict=True).train
    except ValidationError as error:
        for _, problem in explain(error.errors(), _TrainAxis, Tree(nested)):
            report(at, problem.what, problem.todo)
        return None
