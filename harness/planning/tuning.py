"""Tuning: the space of a stack, the key of the search in it, and a cell with the parameters that were found.

Pure: the trials are run by `harness.steps.tune`, numbers are drawn by Optuna (`sampling.py`). A range is a method's
own `knobs`, and every method has the learning rate besides. Names are those of a grid: `train.lr`, `lora.r`.
"""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from harness.errors import Refused
from harness.matrix import Cell, MethodEntry, TuneSettings
from harness.matrix.schema import CommandTrainer
from harness.methods import build
from harness.methods.base import Method, Stage, overrides, owner

VERSION = 1  # part of a search's key: raised when the same trials may be chosen or compared otherwise
RATE = "train.lr"
LOG = 10.0  # a range that is at least so many times its lower end is searched on a logarithmic scale
Value = int | float


@dataclass(frozen=True)
class Dimension:
    """One parameter. default: where the search starts, always within low and high.  whole: only whole numbers."""

    low: Value
    high: Value
    default: Value
    whole: bool
    log: bool


def space(entry: MethodEntry, stack: Sequence[Method], tune: TuneSettings) -> dict[str, Dimension]:
    """The learning rate, then the knobs of every member. Refused where nothing can be searched or compared."""
    _check(entry, stack)
    rate = entry.train.lr
    found = {RATE: _dimension(rate / tune.lr_span, rate * tune.lr_span, rate, whole=False)}
    for member in stack:
        for name, (low, high) in member.knobs.items():
            found[f"{member.name}.{name}"] = _knob(member, name, low, high)
    return found


def knob_is_whole(kind: type[Method], name: str) -> bool:
    """Whether a knob's parameter takes whole numbers only."""
    annotation = kind.Params.model_fields[name].annotation
    union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    kinds = typing.get_args(annotation) if union else (annotation,)
    return int in kinds and float not in kinds


def _knob(member: Method, name: str, low: float, high: float) -> Dimension:
    value = getattr(member.params, name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise Refused(
            f"a search for `{member.name}.{name}` has nowhere to start: it is {value!r}",
            todo="give it a number, or leave the method out of `tune.methods`",
        )
    return _dimension(low, high, value, whole=knob_is_whole(type(member), name))


def _dimension(low: float, high: float, default: float, *, whole: bool) -> Dimension:
    """A range, widened where the matrix asks for a value outside it."""
    low, high = min(low, default), max(high, default)
    if whole:
        low, high, default = math.ceil(low), math.floor(high), int(default)
    return Dimension(low, high, default, whole, low > 0 and high / low >= LOG)


def _check(entry: MethodEntry, stack: Sequence[Method]) -> None:
    """Refused for what trains nothing, and for answers that are not the likeliest tokens of a model."""
    if isinstance(entry.trainer, CommandTrainer):
        if "{lr}" not in entry.trainer.command:
            raise Refused("its command never uses {lr}, and nothing else of it can be tuned", todo=_LEAVE_OUT)
        return
    stages = owner(stack, "stages").stages(None)
    if not stages:
        raise Refused("it trains nothing, so there is nothing to tune", todo=_LEAVE_OUT)
    speaker = next((m for m in stack if overrides(m, "respond")), None)
    if speaker:
        raise Refused(
            f"`{speaker.name}` answers by a rule of its own, so the loss of its model on held-out rows says nothing",
            todo=_LEAVE_OUT,
        )


_LEAVE_OUT = "leave it out of `tune.methods`"


def identity(tune: TuneSettings, searched: Mapping[str, Dimension], sampler: Mapping[str, Any]) -> dict[str, Any]:
    """What of a search is in its key, beside the method, the model and the data."""
    settings = tune.model_dump(mode="json", exclude={"methods", "sampler", "lr_span"})
    dimensions = {name: asdict(d) for name, d in searched.items()}
    return {**settings, "space": dimensions, "sampler": dict(sampler), "version": VERSION}


def dimensions(searched: Mapping[str, Mapping[str, Any]]) -> dict[str, Dimension]:
    """The space of an identity."""
    return {name: Dimension(**d) for name, d in searched.items()}


def with_parameters(cell: Cell, chosen: Mapping[str, Value]) -> Cell:
    """The cell with the values of one point of its space."""
    rate = chosen.get(RATE, cell.train.lr)
    stack = tuple(
        (name, {**params, **{p.partition(".")[2]: v for p, v in chosen.items() if p.partition(".")[0] == name}})
        for name, params in cell.stack
    )
    return replace(cell, stack=stack, train=cell.train.model_copy(update={"lr": float(rate)}))


def rebuilt(cell: Cell, stages: Sequence[Stage]) -> tuple[tuple[Method, ...], tuple[Stage, ...]]:
    """Members and stages of a cell whose parameters were searched. Refused if these change which stages there are,
    since the plan has one step for each."""
    stack = build(cell.stack)
    made = tuple(owner(stack, "stages").stages(None))
    if [s.name for s in made] != [s.name for s in stages]:
        raise Refused("with these parameters the method has other stages than by default")
    return stack, made
