"""The trials of a tune step, with something in place of the training: what counts as spent, and what ends the step."""

from __future__ import annotations

import errno
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness import methods
from harness.errors import HarnessError, StepFailed
from harness.matrix import load_matrix
from harness.planning.plan import Where, make_plan
from harness.planning.planned import PlannedCell
from harness.results.frame import collect
from harness.results.table import make_table
from harness.runs import cell_views
from harness.steps import Bench, run_data, run_train, run_tune
from harness.steps.tune import _Tuning
from harness.store import Record, Store

MATRIX = """\
models: {{tiny: {model}}}
data: {{sums: {{source: "make:word_problems", rows: 40}}}}
train: {{data: sums, budget: {{steps: 2}}, lr: 1e-3}}
methods: {{lora: {{}}}}
tune: {{trials: 5}}
suites: {{math: {{limit: 4, tasks: [made_word_problems]}}}}
engine: {{name: hf, max_model_len: 4096}}
"""
Train = Callable[[int, dict[str, Any], dict[str, Any]], None]


class World:
    def __init__(self, folder: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (folder / "matrix.yaml").write_text(MATRIX.format(model=model))
        self.plan = make_plan(load_matrix(folder / "matrix.yaml"), Where())
        self.cell: PlannedCell = self.plan.cells[-1]
        self.store, self.patch, self.ran = Store(folder / "store"), monkeypatch, folder / "ran"
        self.notes: list[tuple[float, float, str]] = []

    def tune(self, train: Train) -> Record | None:
        """Run the step; `train` stands for training and scoring of a trial, in the trial's process."""

        def instead(_: Any, number: int, point: dict[str, Any], folder: Path, found: dict[str, Any]) -> None:
            with self.ran.open("a") as f:
                f.write(f"{number}\n")
            found |= {"seconds": 1.0, "trained_tokens": 100}
            train(number, point, found)

        self.patch.setattr(_Tuning, "_train_and_score", instead)
        run_tune(Bench(self.plan, self.store, lambda *args: self.notes.append(args[1:])), self.cell)
        assert self.cell.tune is not None
        return self.store.find("tune", self.cell.tune.key)

    def trials(self) -> list[str]:
        """The numbers of the trials that were run, over all attempts."""
        return self.ran.read_text().split()


@pytest.fixture
def world(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, tiny_model, monkeypatch)


def fine(number: int, point: dict[str, Any], found: dict[str, Any]) -> None:
    found |= {"outcome": "ok", "loss": 2.0 - 0.1 * number, "scored_tokens": 7}


def test_what_diverges_fails_or_is_killed_counts_as_spent_and_is_recorded(world: World) -> None:
    def train(number: int, point: dict[str, Any], found: dict[str, Any]) -> None:
        if number == 1:
            raise HarnessError("does not fit\nthis model")
        if number == 2:
            found |= {"outcome": "diverged", "reason": "the loss is not finite at step 2"}
        elif number == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        else:
            fine(number, point, found)

    record = world.tune(train)
    assert record is not None
    lines = [json.loads(line) for line in record.file("trials.jsonl").read_text().splitlines()]
    assert [t["outcome"] for t in lines] == ["ok", "failed", "diverged", "failed", "ok"]
    assert lines[1]["reason"] == "does not fit"
    assert lines[3]["reason"] == "its process was ended by signal 9"
    assert {t["loss"] for t in lines} == {None, 2.0, 1.6}
    assert record.extra | {"parameters": 0, "default": 0} == {
        "best": 4,
        "parameters": 0,
        "loss": 1.6,
        "default": 0,
        "default_loss": 2.0,
        "diverged": 1,
        "failed": 2,
        "held_out": 4,
    }
    assert record.extra["parameters"] == lines[4]["parameters"]
    assert lines[3]["seconds"] > 0
    assert 4.0 < record.cost.pop("seconds") < 4.0 + lines[3]["wall_seconds"] + 1e-6
    assert record.cost == {"trials": 5, "trained_tokens": 400, "scored_tokens": 14}
    assert next(note[2] for note in world.notes) == "tiny.lora+tuned.s0, trial 1 of 5, opening the model"
    assert [note[0] for note in world.notes] == [0, 1, 2, 3, 4]
    text = make_table(collect(cell_views(world.plan), world.store)).markdown()
    assert "5 (1 diverged, 2 failed)" in text


def test_the_default_is_kept_where_nothing_is_better_and_where_nothing_ends_well(world: World) -> None:
    record = world.tune(lambda n, p, found: found.update(outcome="ok", loss=1.0 if n in (0, 3) else 1.5))
    assert record is not None
    assert record.extra["best"] == 0
    assert record.extra["parameters"] == record.extra["default"]


def test_where_all_diverge_the_default_parameters_are_used(world: World) -> None:
    record = world.tune(lambda n, p, found: found.update(outcome="diverged", reason="x"))
    assert record is not None
    assert (record.extra["best"], record.extra["loss"], record.extra["diverged"]) == (0, None, 5)
    assert record.extra["parameters"] == record.extra["default"]
    assert "5 (5 diverged)" in make_table(collect(cell_views(world.plan), world.store)).markdown()


def test_a_default_that_fails_is_the_failure_of_the_step_and_is_tried_again(world: World) -> None:
    def broken(number: int, point: dict[str, Any], found: dict[str, Any]) -> None:
        raise HarnessError("no such file")

    with pytest.raises(StepFailed, match="the default parameters failed: no such file"):
        world.tune(broken)
    assert world.trials() == ["0"]
    (cell,) = [c for c in collect(cell_views(world.plan), world.store).cells if c.view.tune]
    assert cell.state == "failed"
    assert "tune failed: user" in cell.reason
    assert world.tune(fine) is not None
    assert world.trials() == ["0", "0", "1", "2", "3", "4"]


@pytest.mark.parametrize(
    ("error", "kind"), [(OSError(errno.ENOSPC, "no space left"), "disk"), (KeyboardInterrupt(), "interrupted")]
)
def test_what_no_parameter_has_caused_ends_the_step_and_finished_trials_are_taken_over(
    world: World, error: BaseException, kind: str
) -> None:
    def train(number: int, point: dict[str, Any], found: dict[str, Any]) -> None:
        if number == 2:
            raise error
        fine(number, point, found)

    with pytest.raises(StepFailed) as caught:
        world.tune(train)
    assert caught.value.kind == kind
    record = world.tune(fine)
    assert record is not None
    assert world.trials() == ["0", "1", "2", "2", "3", "4"]
    assert record.extra["best"] == 4


def test_a_search_that_is_killed_between_two_lines_takes_over_the_whole_ones(world: World) -> None:
    def train(number: int, point: dict[str, Any], found: dict[str, Any]) -> None:
        if number == 3:
            raise KeyboardInterrupt
        fine(number, point, found)

    with pytest.raises(StepFailed):
        world.tune(train)
    (file,) = world.store.root.rglob("trials.jsonl")
    file.write_text(file.read_text()[:-20])  # the last line was being written
    assert world.tune(fine) is not None
    assert world.trials() == ["0", "1", "2", "3", "2", "3", "4"]


def test_nothing_is_searched_where_every_answer_is_there(world: World) -> None:
    for t in world.cell.tasks:
        with world.store.claim("generate", t.generate.key, t.generate.identity) as attempt:
            attempt.publish()
    run_train(Bench(world.plan, world.store, lambda *_: None), world.cell)
    assert world.cell.tune is not None
    assert world.store.find("tune", world.cell.tune.key) is None


def test_rows_that_a_tuned_method_curates_are_those_of_the_parameters_found(world: World) -> None:
    lora = methods.load("lora")
    world.patch.setattr(lora, "curate", lambda self, rows, ctx: rows[: self.r], raising=False)
    world.plan = make_plan(world.plan.matrix, Where())
    world.cell = world.plan.cells[-1]
    world.tune(fine)
    run_data(Bench(world.plan, world.store, lambda *_: None), world.cell)
    assert world.cell.tune is not None and world.cell.data is not None
    found, data = (world.store.find(s.kind, s.key) for s in (world.cell.tune, world.cell.data))
    assert found is not None and data is not None
    assert data.extra["rows"] == {"train": min(40, found.extra["parameters"]["lora.r"])}
    assert found.extra["parameters"]["lora.r"] != 16
