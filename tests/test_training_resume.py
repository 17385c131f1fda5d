"""Stopped at any moment and started again, a run gives the same losses and the same weights."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness import methods
from harness.methods.sft import SFT
from tests.training import Watch, train


def test_interrupted_and_continued_gives_identical_losses_and_weights(tmp_path: Path, tiny_model: Path) -> None:
    stacks: dict[str, tuple[tuple[str, dict[str, Any]], ...]] = {
        "sft": (("sft", {}),),
        "lora": (("lora", {"r": 2, "dropout": 0.2}), ("dft", {})),
    }
    for name, stack in stacks.items():
        whole = train(tmp_path / name, tiny_model, *methods.build(stack), steps=6, seed=3)
        cut = tmp_path / f"{name}-cut"
        with pytest.raises(KeyboardInterrupt):
            train(cut, tiny_model, *methods.build(stack), Watch(4), steps=6, seed=3, checkpoint_seconds=1e-9)
        again = train(
            tmp_path / f"{name}-again", tiny_model, *methods.build(stack), Watch(), steps=6, seed=3, earlier=[cut]
        )
        assert again.result.summary["resumed_at"] == 3
        assert again.curve == whole.curve
        assert again.result.cost["trained_tokens"] == whole.result.cost["trained_tokens"]
        weights = [next((d.work / "artifact").glob("*.safetensors")).read_bytes() for d in (whole, again)]
        assert weights[0] == weights[1]
        assert not (again.work / "checkpoint").exists()


def test_a_checkpoint_of_other_settings_is_not_continued(tmp_path: Path, tiny_model: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "cut", tiny_model, SFT(), Watch(3), steps=6, checkpoint_seconds=1e-9)
    other = train(tmp_path / "b", tiny_model, SFT(), steps=6, lr=1e-4, earlier=[tmp_path / "cut"])
    assert other.result.summary["resumed_at"] is None


def test_a_torn_checkpoint_is_passed_over(tmp_path: Path, tiny_model: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "cut", tiny_model, SFT(), Watch(3), steps=6, checkpoint_seconds=1e-9)
    state = tmp_path / "cut" / "checkpoint" / "state.pt"
    state.write_bytes(state.read_bytes()[:5000])
    assert train(tmp_path / "b", tiny_model, steps=6, earlier=[tmp_path / "cut"]).result.summary["resumed_at"] is None


KILLED = """
import os, signal, sys
from pathlib import Path
from harness.methods.base import Method
from tests.training import train

class Dies(Method):
    name = "sft"
    def after_step(self, model, ctx):
        if ctx.step == 3:
            os.kill(os.getpid(), signal.SIGKILL)

train(Path(sys.argv[1]), Path(sys.argv[2]), Dies(), steps=5, checkpoint_seconds=1e-9)
"""


def test_kill_9_and_the_same_again_gives_identical_losses(tmp_path: Path, tiny_model: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-c", KILLED, str(tmp_path / "cut"), str(tiny_model)]
    assert subprocess.run(command, env=env).returncode == -signal.SIGKILL
    again = train(tmp_path / "again", tiny_model, SFT(), steps=5, earlier=[tmp_path / "cut"])
    assert again.result.summary["resumed_at"] == 2
    assert again.curve == train(tmp_path / "whole", tiny_model, SFT(), steps=5).curve


def test_the_curve_is_on_disk_while_training_goes_on(tmp_path: Path, tiny_model: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, tiny_model, SFT(), Watch(2), steps=5)
    lines = [json.loads(line) for line in (tmp_path / "curve.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2]
    assert set(lines[0]) == {"step", "tokens", "loss", "norm", "lr"}
