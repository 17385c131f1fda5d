"""The engine beside a trainer: what it serves, what it is told, and that it ends with whoever started it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import pytest
import torch

import harness.training.resident
from harness.engines.base import Artifact, EngineSpec, Request
from harness.errors import HarnessError, StepFailed
from harness.methods.base import Method
from harness.methods.grao import GRAO
from harness.methods.grpo import GRPO
from harness.methods.lora import LoRA
from harness.training.budget import Meter
from harness.training.curation import curate
from harness.training.generator import Told
from harness.training.resident import Resident, Served
from harness.training.stage import run_stage
from tests.sampler import Letters
from tests.training import Watch, train

FAKE, HF = EngineSpec("fake", max_model_len=512), EngineSpec("hf", "float32", 512)
ASKED = [Request(messages=({"role": "user", "content": f"{i}?"},), temperature=1.0, seed=i) for i in (1, 2, 1)]


def base(folder: Path) -> Any:
    return lambda name: Artifact(folder, name, name=name)


def alive(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def test_it_starts_when_asked_answers_in_order_and_ends_when_closed(tmp_path: Path) -> None:
    resident = Resident(FAKE, tmp_path, base(tmp_path))
    assert resident.process is None
    given = resident.answer(ASKED, "base")
    assert [r.key for r in given] == [r.key for r in ASKED]
    assert given[0] == given[2]
    assert given[0].text != given[1].text
    choose = Request(kind="choose", text="a", choices=(" b", " c"))
    assert len(resident.answer([choose], "base")[0].logprobs) == 2
    assert resident.answer(ASKED, "other")[0].text != given[0].text
    assert resident.answer(ASKED, "base") == given
    assert resident.process
    pid = resident.process.pid
    resident.close()
    assert not alive(pid)


def test_it_says_how_many_answers_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[tuple[int, int]] = []
    served = Served(lambda told: heard.append(told))
    monkeypatch.setattr(harness.training.resident, "_PACE", 0.0)
    served.open(FAKE, tmp_path)
    served.serve(base(tmp_path)("base"), live=False)
    assert len(served.answer(ASKED)) == 3
    assert heard == [(1, 2), (2, 2)], "of three requests two are equal"
    ours, theirs = Pipe()
    resident, heard = Resident(FAKE, tmp_path, base(tmp_path), told=lambda *told: heard.append(told)), []
    resident._pipe = ours
    for word in (Told(3, 9), Told(7, 9), None):
        theirs.send(word)
    assert resident._ask("anything") is None
    assert heard == [(3, 9), (7, 9)]


def test_what_the_engine_refuses_is_raised_here_and_it_goes_on(tmp_path: Path) -> None:
    resident = Resident(FAKE, tmp_path, base(tmp_path))
    with pytest.raises(HarnessError, match="the context holds 512"):
        resident.answer([Request(text="a " * 600)], "base")
    assert resident.answer(ASKED, "base")
    assert resident.process
    resident.process.kill()
    with pytest.raises(StepFailed, match="the engine `fake` that answers for training ended"):
        resident.answer(ASKED, "base")
    resident.close()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_it_does_not_outlive_a_trainer_that_is_killed(tmp_path: Path, number: int) -> None:
    program = (
        "import time; from pathlib import Path; from tests.test_resident import *\n"
        f"r = Resident(FAKE, Path('{tmp_path}'), base(Path('{tmp_path}'))); r.answer(ASKED, 'base')\n"
        "print(r.process.pid, flush=True); time.sleep(60)"
    )
    trainer = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, cwd=Path(__file__).parents[1])
    assert trainer.stdout
    pid = int(trainer.stdout.readline())
    assert alive(pid)
    os.kill(trainer.pid, number)
    trainer.communicate()
    until = time.monotonic() + 5
    while alive(pid) and time.monotonic() < until:
        time.sleep(0.02)
    assert not alive(pid)


class Stage:
    """Runs a stage as `train` does, with an engine."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, engine: EngineSpec) -> None:
        import tests.training as training

        def with_engine(task: Any, *rest: Any) -> Any:
            return run_stage(type(task)(**{**vars(task), "engine": engine}), *rest)

        monkeypatch.setattr(training, "run_stage", with_engine)


@pytest.mark.parametrize("stack", [(), (LoRA(r=4),)], ids=["full", "lora"])
def test_the_live_model_is_what_answers(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, stack: tuple[Method, ...]
) -> None:
    """In fp32 but for the bf16 of the saved weights, what the engine says of its samples is what the trainer says."""
    Stage(monkeypatch, HF)
    found = Watch()
    method = GRAO(n=4, max_tokens=6, refresh=1)
    done = train(tmp_path, tiny_model, *stack, method, Letters(own=1.0, reward=lambda _: 0.0), found, lr=5e-3, steps=3)
    assert [line["gap_mean"] < 0.02 for line in done.curve] == [True] * 3
    assert done.result.cost["seconds"]["refresh"] > 0


def test_weights_that_are_not_refreshed_show_in_the_gap(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every third step: at the fourth step the engine is the trainer again."""
    Stage(monkeypatch, HF)
    method = GRPO(n=4, max_tokens=6, refresh=3)
    settings = {"lr": 2e-2, "steps": 4, "schedule": "constant", "warmup": 0.0}
    done = train(tmp_path, tiny_model, method, Letters(), **settings)
    gaps = [line["gap_mean"] for line in done.curve]
    assert gaps[2] > 3 * max(gaps[0], gaps[3])


def test_curation_asks_the_base(tmp_path: Path, tiny_model: Path) -> None:
    class Rewrites(Method):
        name, needs = "rewrites", frozenset({"generator"})
        model = "base"

        def curate(self, rows: list[Any], ctx: Any) -> Any:
            told = ctx.generate([Request(text=row["id"], temperature=1.0) for row in rows], self.model)
            return [{**row, "told": said.text} for row, (said,) in zip(rows, told, strict=True)]

    rows, method = [{"id": "a"}, {"id": "b"}], Rewrites()
    meter = Meter(torch.device("cpu"))
    sets, _ = curate([method], rows, seed=0, model=tiny_model, engine=FAKE, meter=meter)
    assert meter.rollout["prompt_tokens"] > 0 and meter.rollout["generated_tokens"] > 0
    assert {"curate", "engine"} <= meter.seconds.keys()
    assert all(row["told"] for row in sets["train"])
    assert curate([method], rows, seed=0, model=tiny_model, engine=FAKE)[0] == sets
    method.model = "live"
    with pytest.raises(HarnessError, match="there is no model `live`"):
        curate([method], rows, seed=0, model=tiny_model, engine=FAKE)
