"""Nights for tests: a small matrix, and measurements that are made up instead of run."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from harness.nightly import measure as measuring
from harness.nightly.closing import close
from harness.nightly.measure import Part, Setting, plan_part, store_of
from harness.nightly.nights import Line, Nights
from harness.nightly.procedure import Outcome, Procedure, Wanted
from harness.nightly.report import as_json, files
from harness.planning.planned import PlannedCell, PlannedTask
from harness.results.frame import collect
from harness.runs import cell_views

MATRIX = """
version: 1
name: small
models: {{tiny: {model}}}
data: {{sums: {{source: "make:word_problems", rows: 40}}}}
train: {{data: sums, budget: {{steps: 2}}, batch_size: 2, lr: 1e-3}}
methods: {{base: {{}}, lora: {{}}}}
seeds: {seeds}
suites: {{glue: {{limit: {limit}, tasks: [made_sentiment]}}}}
engine: {{name: fake, max_model_len: 4096}}
"""
ITEMS = 300


def write_matrix(folder: Path, model: Path, *, seeds: int = 3, limit: int = 20) -> Path:
    """`base` and `lora` on one task."""
    file = folder / "small.yaml"
    file.write_text(MATRIX.format(model=model, seeds=seeds, limit=limit))
    return file


@dataclass
class Made:
    """In place of `measure`: every cell is right on most of the items, flips at random, and does what it is told.

    drop: by part and row, how much more is wrong.  broken: rows whose cells fail.  scorer: share of the verdicts that
    today's scorers turn, in a replay and everywhere else.  tokens: of every answer, by part.
    parts: what was asked for.
    """

    drop: Mapping[tuple[str, str], float] = field(default_factory=dict)
    broken: frozenset[str] = frozenset()
    scorer: float = 0.0
    stop_at: str = ""
    tokens: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    parts: list[str] = field(default_factory=list)

    def __call__(self, setting: Setting, part: Part) -> tuple[list[Line], dict[str, dict[str, list[float]]]]:
        if part.name == self.stop_at:
            raise KeyboardInterrupt
        self.parts.append(part.name)
        plan, store = plan_part(setting, part), store_of(setting, part.name)
        store.create()
        measuring.save_run(store, plan)
        for source in part.weights:
            measuring.take_weights(measuring.Store(Path(source)), store, plan.cells)
        for cell in plan.cells:
            row = cell.name.rpartition(".s")[0] if cell.trained else cell.name
            if row not in self.broken:
                for step in cell.trained:
                    _publish(store, step, {})
                for task in cell.tasks:
                    self._score(store, part, row, cell, task)
        frame = collect(cell_views(plan), store)
        costs: dict[str, dict[str, list[float]]] = {measuring.row_name(c): {} for c in frame.cells}
        return measuring.lines_of(setting, part.name, plan, store, frame.cells), costs

    def _score(self, store: Any, part: Part, row: str, cell: PlannedCell, task: PlannedTask) -> None:
        answer = {"key": "r", "text": "-", "tokens": self.tokens.get(part.name, (1, 2, 3))}
        _publish(store, task.generate, {"responses.jsonl": json.dumps(answer) + "\n"})
        wrong = 0.3 + self.drop.get((part.name, row), 0.0)
        artifact = np.random.default_rng(zlib.crc32(cell.name.encode())).random(ITEMS)  # the same in every part
        turned = np.random.default_rng(5).random(ITEMS) < self.scorer
        scores = (artifact >= wrong) & ~turned
        samples = [
            {
                "doc": i,
                "hash": f"{i:016x}",
                "scores": {task.task.primary: float(s)},
                "answer": f"answer {i}",
                "outcome": "",
            }
            for i, s in enumerate(scores)
        ]
        metrics = {task.task.primary: {"value": float(scores.mean()), "n": ITEMS}}
        lines = "".join(json.dumps(s) + "\n" for s in samples)
        _publish(store, task.score, {"samples.jsonl": lines, "metrics.json": json.dumps(metrics)})


def _publish(store: Any, step: Any, outputs: Mapping[str, str]) -> None:
    if store.find(step.kind, step.key):
        return
    with store.claim(step.kind, step.key, step.identity) as attempt:
        for name, text in outputs.items():
            (attempt.work / name).write_text(text)
        attempt.publish()


def night(matrix: Path, nights: Path, made: Made, **wanted: Any) -> tuple[dict[str, Any], Outcome]:
    """One night from begin to report."""
    setting = Setting(matrix=str(matrix), folder="")
    procedure = Procedure(Nights(nights, "small"), setting, Wanted(**wanted), made)
    procedure.run()
    body = as_json(close(procedure, matrix=matrix.name, find_cause=False))
    for name, text in files(body).items():
        (procedure.night.folder / name).write_text(text)
    return body, procedure.outcome
