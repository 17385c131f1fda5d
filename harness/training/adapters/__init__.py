"""Trainer adapters: what executes a method stack. `native` is our own loop, `trl` TRL's, `command` any program."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from harness.engines.base import EngineSpec
from harness.errors import HarnessError, nearest
from harness.matrix import TrainSettings
from harness.matrix.schema import CommandTrainer
from harness.methods.base import Method


@dataclass(frozen=True)
class TrainTask:
    """What one train step needs, all of it on disk.

    model: Hugging Face folder of the base.  stack: method names and parameters.  rows: JSON lines by set name.
    stage: number of the stage in the stack's `stages`.  init: another cell's artifact to start from in place of the
    base ("full" or "adapter").  done: artifact folders of this cell's earlier stages, by name.  engine: what generates
    for methods that need it.
    """

    model: Path
    stack: tuple[tuple[str, Mapping[str, Any]], ...]
    rows: Mapping[str, Path]
    settings: TrainSettings = field(default_factory=TrainSettings)
    seed: int = 0
    stage: int = 0
    init: Path | None = None
    done: Mapping[str, Path] = field(default_factory=dict)
    engine: EngineSpec | None = None


@dataclass(frozen=True)
class TrainResult:
    """status: "diverged" if loss or gradient stopped being numbers; then there is no artifact, and the summary says at
    which step.  cost: tokens, seconds and peak bytes by phase, FLOPs, parameters, bytes.  summary: losses, steps."""

    status: Literal["ok", "diverged"]
    cost: Mapping[str, Any]
    summary: Mapping[str, Any]


class TrainerAdapter(Protocol):
    """version: part of a step's key.  hooks: the names of the seam's hooks that it honours, and "start" where
    it can begin from another cell's artifact."""

    name: str
    version: int
    hooks: frozenset[str]

    def identity(self) -> list[Any]:
        """What of it is in a step's key."""

    def check(self, stack: Sequence[Method]) -> None:
        """Refused, naming method and hook, if the stack needs what this adapter does not do. Loads nothing heavy."""

    def train(
        self, task: TrainTask, work: Path, earlier: Sequence[Path], report: Callable[[float, float, str], None]
    ) -> TrainResult:
        """Run one stage, leaving work/artifact and work/curve.jsonl. report(done, total, note) as it goes."""


def make(trainer: str | CommandTrainer = "native") -> TrainerAdapter:
    """An adapter, as a matrix has it under `trainer:`. HarnessError if there is none of that name."""
    from harness.training.adapters.command import CommandAdapter
    from harness.training.adapters.native import NativeAdapter
    from harness.training.adapters.trl import TRLAdapter

    if isinstance(trainer, CommandTrainer):
        return CommandAdapter(trainer)
    known: dict[str, type[TrainerAdapter]] = {"native": NativeAdapter, "trl": TRLAdapter}
    if trainer not in known:
        todo = "write `trainer: {command: ...}`" if trainer == "command" else nearest(trainer, known)
        raise HarnessError(f"unknown trainer adapter `{trainer}`", todo=todo)
    return known[trainer]()
