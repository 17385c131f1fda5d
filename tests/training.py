"""What the tests of training share: rows, a run of one stage on the tiny model, and methods that watch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from harness import methods
from harness.data.chat import to_rows
from harness.matrix import Budget, TrainSettings
from harness.matrix.schema import DataEntry
from harness.methods.base import Method, Row
from harness.methods.sft import SFT
from harness.training.adapters import TrainResult, TrainTask
from harness.training.stage import run_stage


def offer_methods(monkeypatch: pytest.MonkeyPatch, *points: EntryPoint) -> None:
    """As if installed packages offered these methods, until the test ends."""
    monkeypatch.setattr(methods, "entry_points", lambda group: points)
    monkeypatch.setattr(methods, "_table", methods._table.__wrapped__)


def make_rows(n: int = 24) -> list[Row]:
    """Conversations whose answers differ in length."""
    return [
        {
            "id": f"r{i}",
            "messages": [
                {"role": "user", "content": f"What is {i} + {i * 7 % 11}?"},
                {"role": "assistant", "content": f"{i} + {i * 7 % 11} = {i + i * 7 % 11}" + "!" * (i % 5)},
            ],
        }
        for i in range(n)
    ]


def make_pairs(n: int = 8) -> list[dict[str, Any]]:
    """Pairs of answers of different lengths, every other one after an earlier exchange, as the data step has them."""
    before = [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello."}]
    rows = [
        {
            "id": row["id"],
            "prompt": [*(before if i % 2 else []), row["messages"][0]],
            "chosen": row["messages"][1]["content"],
            "rejected": "I do not know" + "?" * (i % 3),
        }
        for i, row in enumerate(make_rows(n))
    ]
    return to_rows(rows, DataEntry(source="file:pairs.jsonl"))


def write_rows(path: Path, rows: Sequence[Row]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


class Watch(Method):
    """Changes nothing; keeps each step's gradients and last batch, and the fp32 weights at the end.

    stop_after: interrupt the run after that step.
    """

    name = "watch"

    def __init__(self, stop_after: int | None = None) -> None:
        super().__init__()
        self.gradients: list[dict[str, Any]] = []
        self.batches: list[Any] = []
        self.stop_after = stop_after
        self.final: dict[str, Any] = {}
        self.rows: list[list[str]] = []

    def collate(self, seqs: list[Any], ctx: Any) -> list[Any]:
        self.rows.append([q.row for q in seqs])
        return seqs

    def after_backward(self, model: Any, ctx: Any) -> None:
        self.gradients.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
        self.batches.append(ctx.batch)

    def after_stage(self, model: Any, ctx: Any) -> None:
        self.final = {n: p.detach().clone() for n, p in model.named_parameters()}

    def after_step(self, model: Any, ctx: Any) -> None:
        if ctx.step == self.stop_after:
            raise KeyboardInterrupt


class Before(Watch):
    """Keeps the weights that every step's gradient was taken at, too."""

    def __init__(self) -> None:
        super().__init__()
        self.weights: list[dict[str, Any]] = []

    def after_backward(self, model: Any, ctx: Any) -> None:
        super().after_backward(model, ctx)
        self.weights.append({n: p.detach().clone() for n, p in model.named_parameters()})


@dataclass
class Done:
    work: Path
    result: TrainResult
    curve: list[dict[str, Any]]

    @property
    def losses(self) -> list[float]:
        return [line["loss"] for line in self.curve]


def train(
    work: Path,
    model: Path,
    *stack: Method,
    rows: Sequence[Row] | None = None,
    sets: Mapping[str, Sequence[Row]] | None = None,
    steps: int = 3,
    earlier: Sequence[Path] = (),
    stage: int = 0,
    done: Mapping[str, Path] | None = None,
    init: Path | None = None,
    seed: int = 0,
    **settings: Any,
) -> Done:
    """One stage of a stack (sft if empty), in fp32 with batches of 4 unless told otherwise."""
    members = stack or (SFT(),)
    work.mkdir(parents=True, exist_ok=True)
    given = sets or {"train": rows if rows is not None else make_rows()}
    files = {name: write_rows(work.parent / f"{work.name}.{name}.jsonl", found) for name, found in given.items()}
    options = {"budget": Budget(steps=steps), "batch_size": 4, "precision": "fp32", "lr": 1e-3, **settings}
    task = TrainTask(
        model=model,
        stack=tuple((m.name, m.params.model_dump(mode="json")) for m in members if not isinstance(m, Watch)),
        rows=files,
        settings=TrainSettings(**options),
        seed=seed,
        stage=stage,
        done=done or {},
        init=init,
    )
    result = run_stage(task, members, work, earlier, lambda done, total, note: None)
    return Done(work, result, [json.loads(line) for line in (work / "curve.jsonl").read_text().splitlines()])
