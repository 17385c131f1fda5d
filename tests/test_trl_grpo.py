"""`grpo` through `trainer: trl`: on the answers that TRL sampled, our steps are its steps; what is billed and refused.

What is compared is every step of a run: our trainer is given TRL's answers again, with the log-probabilities of the
weights that train, which are what TRL takes for those that sampled.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from harness import methods
from harness.engines.base import Request, Response
from harness.engines.prompts import Prompts
from harness.errors import HarnessError, Refused
from harness.matrix import Budget, TrainSettings, load_matrix
from harness.methods.base import Method
from harness.methods.grpo import GRPO
from harness.methods.lora import LoRA
from harness.planning.plan import Where, make_plan
from harness.training import verify
from harness.training.adapters import TrainResult, TrainTask, make
from tests.runs import write_matrix
from tests.sampler import Sampled
from tests.training import make_rows, train, write_rows

pytest.importorskip("trl")

BASE: dict[str, Any] = {"n": 4, "max_tokens": 8}
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "rows": ({}, {"micro_batch": 16}),
    "rows-centred-in-parts": ({"scale": "none", "temperature": 0.7}, {"micro_batch": 4, "clip": 0.05}),
    "tokens-in-parts": ({"norm": "tokens", "epsilon": 0.1}, {"micro_batch": 8, "schedule": "cosine", "warmup": 0.4}),
    "reference": ({"beta": 0.05}, {"micro_batch": 8}),
    "tokens-reference": ({"norm": "tokens", "beta": 0.5, "epsilon_high": 0.3}, {"micro_batch": 16}),
}


@pytest.fixture(autouse=True)
def reward(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reward that differs within groups: no answer of a model this small is right."""
    utils = importlib.import_module("trl.import_utils")
    monkeypatch.setattr(utils, "is_vllm_available", lambda *_, **__: False)  # TRL would import all of vLLM
    ours = importlib.import_module("harness.training.trl_grpo")

    def of_text(rows: Sequence[Any], texts: Sequence[str]) -> list[float]:
        assert len(rows) == len(texts)
        return [float((sum(map(ord, text)) + len(row["id"])) % 3) for row, text in zip(rows, texts, strict=True)]

    monkeypatch.setattr(ours, "scores", of_text)
    monkeypatch.setattr(verify, "scores", of_text)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[list[list[int]]]:
    """The answers of each step of TRL's."""
    from harness.training.trl_grpo import MeteredGRPO

    found: list[list[list[int]]] = []
    generate = MeteredGRPO._generate_single_turn

    def keeping(self: Any, *args: Any, **options: Any) -> Any:
        made = generate(self, *args, **options)
        found.append(made[0])
        return made

    monkeypatch.setattr(MeteredGRPO, "_generate_single_turn", keeping)
    return found


class Replay(Sampled):
    """Gives the answers of another run, with what the model that trains thinks of them."""

    def __init__(self, folder: Path, said: list[list[list[int]]]) -> None:
        super().__init__(folder)
        self.said = iter(said)

    @torch.no_grad()
    def answer(self, requests: Sequence[Request], model: str) -> list[Response]:
        prompts, made = Prompts(self.folder, 4096), []
        for request, tokens in zip(requests, next(self.said), strict=True):
            asked = prompts.encode(request)
            logits = self.model(input_ids=torch.tensor([[*asked, *tokens]])).logits[0, len(asked) - 1 : -1].float()
            logps = logits.log_softmax(-1)[range(len(tokens)), tokens].tolist()
            text = prompts.tokenizer.decode(tokens, skip_special_tokens=True)
            finish = "stop" if tokens[-1] in prompts.ends else "length"
            made.append(Response(request.key, text, finish, tuple(tokens), tuple(logps), prompt_tokens=len(asked)))
        return made


def run(work: Path, model: Path, *stack: Method, rows: Any = None, **changes: Any) -> TrainResult:
    work.mkdir(parents=True)
    init = changes.pop("init", None)
    settings = {"budget": Budget(steps=3), "batch_size": 4, "precision": "fp32", "lr": 1e-2, **changes}
    named = tuple((m.name, m.params.model_dump(mode="json")) for m in stack)
    task = TrainTask(
        model, named, {"train": write_rows(work / "rows.jsonl", rows or make_rows())}, TrainSettings(**settings), 3,
        init=init,
    )  # fmt: skip
    return make("trl").train(task, work, [], lambda done, total, note: None)


def curve(work: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (work / "curve.jsonl").read_text().splitlines()]


def compare(work: Path, model: Path, said: Any, *stack: Method, **settings: Any) -> tuple[TrainResult, TrainResult]:
    """Run both and compare every step; TRL's result, then ours."""
    theirs = run(work / "trl", model, *stack, **settings)
    ours = train(work / "native", model, *stack, Replay(model, said), seed=3, lr=1e-2, **settings)
    lines = curve(work / "trl")
    assert len(lines) == len(ours.curve) >= 2
    for a, b in zip(lines, ours.curve, strict=True):
        for name in ("step", "tokens"):
            assert a[name] == b[name], name
        for name in ("loss", "lr", "reward", "length", "cut", "no_contrast"):
            assert a[name] == pytest.approx(b[name], abs=1e-5), name
        assert a["norm"] == pytest.approx(b["norm"], rel=1e-3, abs=1e-5)
    assert any(line["norm"] > 1e-3 for line in lines)
    return theirs, ours.result


@pytest.mark.parametrize(("params", "settings"), CASES.values(), ids=CASES.keys())
def test_a_run_is_the_native_run_on_the_same_answers(
    tmp_path: Path, tiny_model: Path, said: Any, params: dict[str, Any], settings: dict[str, Any]
) -> None:
    theirs, ours = compare(tmp_path, tiny_model, said, GRPO(**BASE, **params), **settings)
    assert theirs.status == ours.status == "ok"
    assert theirs.summary.keys() == ours.summary.keys() and theirs.summary["steps"] == ours.summary["steps"] == 3
    for name in ("trained_tokens", "loss_tokens", "rollout", "trainable_parameters", "artifact_bytes"):
        assert theirs.cost[name] == ours.cost[name], name
    assert theirs.cost["extra_forward_tokens"] == ours.cost["extra_forward_tokens"]
    assert bool(theirs.cost["extra_forward_tokens"]) is bool(params.get("beta"))
    assert {"rollout", "reward", "forward", "backward", "optimizer"} <= theirs.cost["seconds"].keys()
    assert theirs.cost["flops"] == pytest.approx(ours.cost["flops"], rel=0.3)  # TRL computes padding


def test_lora_and_a_budget_of_tokens(tmp_path: Path, tiny_model: Path, said: Any) -> None:
    settings: dict[str, Any] = {"budget": Budget(tokens=2500), "micro_batch": 8, "schedule": "linear"}
    theirs, ours = compare(tmp_path, tiny_model, said, LoRA(r=4), GRPO(**BASE, beta=0.1), **settings)
    assert theirs.cost["trained_tokens"] == ours.cost["trained_tokens"] >= 2500
    assert theirs.summary["steps"] == ours.summary["steps"] == len(said)
    files = [{p.name for p in (tmp_path / trainer / "artifact").iterdir()} for trainer in ("native", "trl")]
    assert files[0] == files[1] and "adapter_model.safetensors" in files[0]


def test_a_start_is_its_own_reference(tmp_path: Path, tiny_model: Path, said: Any) -> None:
    train(tmp_path / "first", tiny_model, steps=4, lr=1e-2)
    init = tmp_path / "first" / "artifact"
    compare(tmp_path, tiny_model, said, GRPO(**BASE, beta=0.5), init=init, micro_batch=16)


def test_a_prompt_that_leaves_no_room_is_named(tmp_path: Path, tiny_model: Path) -> None:
    with pytest.raises(HarnessError, match=r"an answer of 60 are longer than the longest row allowed, 64"):
        run(tmp_path / "a", tiny_model, GRPO(n=4, max_tokens=60), max_length=64)


def test_what_does_not_go_through_is_refused() -> None:
    adapter = make("trl")
    adapter.check(methods.build((("lora", {}), ("grpo", {}))))
    for name, hook in {"grao": "loss", "ppo": "wrap"}.items():
        with pytest.raises(Refused, match=f"`{name}` uses the hook `{hook}`, which TRL's trainers do not run"):
            adapter.check(methods.build(((name, {}),)))
    with pytest.raises(Refused, match="`mft` uses the hook `collate`"):
        adapter.check(methods.build((("grpo", {}), ("mft", {}))))
    with pytest.raises(Refused, match="`dpo` and `grpo` both change `loss`"):
        adapter.check(methods.build((("dpo", {}), ("grpo", {}))))
    with pytest.raises(Refused, match="`grpo` has `refresh: 4`, and TRL samples from the weights that train"):
        adapter.check(methods.build((("grpo", {"refresh": 4}),)))


def test_the_row_is_labelled_and_grao_is_refused_at_plan_time(tmp_path: Path, tiny_model: Path) -> None:
    file = write_matrix(tmp_path, tiny_model)
    text = "\n".join(t for t in file.read_text().splitlines() if not t.startswith(("  math:", "  glue:")))
    file.write_text(text.replace("  lora+dft: {}", "  theirs: {stack: [lora, grpo], trainer: trl}"))
    (theirs,) = (cell for cell in make_plan(load_matrix(file), Where()).cells if cell.train and cell.flags)
    assert theirs.flags == ("trl",)
    file.write_text(text.replace("  lora+dft: {}", "  theirs: {stack: [grao], trainer: trl}"))
    with pytest.raises(HarnessError, match="`grao` uses the hook `loss`"):
        make_plan(load_matrix(file), Where())
