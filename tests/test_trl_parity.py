"""Our losses and gradients are TRL's, each through its trainer's own `compute_loss`, on the same tokens in fp32.

The tokens are ours: TRL's template also learns what stands after the end token, which no engine generates. What is
compared is the third step of a run, where the policy has left the reference. No loop of TRL's is run.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from harness.methods.base import NO_TARGET, Method
from harness.methods.dft import DFT
from harness.methods.dpo import DPO
from harness.methods.grpo import GRPO
from harness.methods.sft import SFT
from harness.training.opening import open_tokenizer
from harness.training.sequences import Seq
from tests.sampler import Letters, Sampled
from tests.training import Before, make_pairs, train

pytest.importorskip("trl")

STEP = 2


def open_model(folder: Path, weights: dict[str, Tensor]) -> Any:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model.load_state_dict(weights, strict=False)
    return model


def cut(seq: Seq) -> tuple[list[int], list[int]]:
    """Prompt and completion of a sequence; what follows the last learned token is nobody's."""
    first = next(i for i, t in enumerate(seq.targets) if t != NO_TARGET) + 1
    last = max(i for i, t in enumerate(seq.targets) if t != NO_TARGET) + 1
    return list(seq.ids[:first]), list(seq.ids[first : last + 1])


def settings(work: Path) -> dict[str, Any]:
    return {"output_dir": str(work), "report_to": "none", "bf16": False, "use_cpu": True, "disable_tqdm": True}


def same(model: Any, gradients: dict[str, Tensor]) -> None:
    """To 1e-5, and to a thousandth of the largest where all are small."""
    found = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    assert found.keys() == gradients.keys()
    largest = max(float(g.abs().max()) for g in gradients.values())
    for name, g in gradients.items():
        assert torch.allclose(found[name], g, rtol=0, atol=min(1e-5, largest / 1000)), name


@pytest.mark.parametrize(
    ("method", "loss_type"), [(SFT(), "chunked_nll"), (SFT(), "nll"), (DFT(), "dft")], ids=["chunked", "plain", "dft"]
)
def test_losses_and_gradients_of_sft_and_dft(tmp_path: Path, tiny_model: Path, method: Method, loss_type: str) -> None:
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    watch = Before()
    ours = train(tmp_path / "ours", tiny_model, method, watch)
    batch = [cut(q) for q in watch.batches[STEP].seqs]
    examples = [{"input_ids": p + c, "labels": [NO_TARGET] * len(p) + c} for p, c in batch]
    model = open_model(tiny_model, watch.weights[STEP])
    trainer = SFTTrainer(
        model,
        args=SFTConfig(loss_type=loss_type, dataset_kwargs={"skip_prepare_dataset": True}, **settings(tmp_path)),
        train_dataset=Dataset.from_list(examples),
        processing_class=open_tokenizer(tiny_model),
    )
    loss = trainer.compute_loss(model, trainer.data_collator(examples))
    loss.backward()
    assert ours.losses[STEP] == pytest.approx(loss.item(), abs=1e-5)
    same(model, watch.gradients[STEP])


@pytest.mark.parametrize("beta", [0.1, 0.5])
def test_losses_and_gradients_of_dpo(tmp_path: Path, tiny_model: Path, beta: float) -> None:
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    watch = Before()
    ours = train(tmp_path / "ours", tiny_model, DPO(beta=beta), watch, rows=make_pairs())
    seqs = watch.batches[STEP].seqs
    examples = []
    for chosen, rejected in zip(seqs[::2], seqs[1::2], strict=True):
        (prompt, better), (same_prompt, worse) = cut(chosen), cut(rejected)
        assert prompt == same_prompt
        examples.append({"prompt_ids": prompt, "chosen_ids": better, "rejected_ids": worse})
    model = open_model(tiny_model, watch.weights[STEP])
    trainer = DPOTrainer(
        model,
        ref_model=open_model(tiny_model, {}),
        args=DPOConfig(beta=beta, **settings(tmp_path)),
        train_dataset=Dataset.from_list([{"prompt": "a", "chosen": "b", "rejected": "c"}]),
        processing_class=open_tokenizer(tiny_model),
    )
    loss = trainer.compute_loss(model, trainer.data_collator(examples))
    loss.backward()
    assert abs(loss.item() - 0.6931) > 1e-3  # the policy is no longer the reference
    assert ours.losses[STEP] == pytest.approx(loss.item(), abs=1e-5)
    same(model, watch.gradients[STEP])


@pytest.mark.parametrize("shift", [0.1, -0.25], ids=["inside", "clipped"])
@pytest.mark.parametrize(
    ("norm", "loss_type", "params"),
    [
        ("rows", "grpo", {}),
        ("rows", "grpo", {"beta": 0.5, "epsilon": 0.1}),
        ("rows", "grpo", {"epsilon": 0.1, "epsilon_high": 0.3, "scale": "none"}),
        ("tokens", "bnpo", {}),
        ("tokens", "bnpo", {"beta": 0.04, "epsilon": 0.15}),
        ("tokens", "dapo", {"beta": 0.04, "epsilon_high": 0.08, "scale": "none"}),
    ],
)
def test_losses_and_gradients_of_grpo(
    tmp_path: Path,
    tiny_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    norm: str,
    loss_type: str,
    params: dict[str, Any],
    shift: float,
) -> None:
    """On the answers that our run sampled, with the log-probabilities that it was told and its advantages. Those are
    TRL's of the same rewards: `test_trl_grpo.py`."""
    utils = importlib.import_module("trl.import_utils")
    monkeypatch.setattr(utils, "is_vllm_available", lambda *_, **__: False)  # TRL would import all of vLLM
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    watch, method = Before(), GRPO(n=4, max_tokens=8, norm=norm, **params)
    ours = train(
        tmp_path / "ours", tiny_model, method, Letters(), Sampled(tiny_model, shift=shift), watch, micro_batch=16
    )
    batch = watch.batches[STEP].seqs
    tokenizer, model = open_tokenizer(tiny_model), open_model(tiny_model, watch.weights[STEP])
    trainer = GRPOTrainer(
        model,
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        args=GRPOConfig(
            loss_type=loss_type,
            beta=method.beta,
            epsilon=method.epsilon,
            epsilon_high=method.epsilon_high,
            scale_rewards=method.scale,
            use_bias_correction_kl=False,  # as published: the distance is not weighted by the ratio
            num_generations=4,
            max_completion_length=8,
            **settings(tmp_path),
        ),
        train_dataset=Dataset.from_list([{"prompt": "a"}] * 4),
        processing_class=tokenizer,
    )
    trainer.model.eval()  # no loop runs, so that nothing is accumulated
    inputs = padded(batch, tokenizer.pad_token_id)
    if method.beta:
        inputs["ref_per_token_logps"] = of_reference(trainer, open_model(tiny_model, {}), inputs)
    loss = trainer.compute_loss(model, inputs)
    loss.backward()
    assert any(q.columns["advantage"] for q in batch)
    assert ours.losses[STEP] == pytest.approx(loss.item(), abs=1e-5)
    same(model, watch.gradients[STEP])


def padded(batch: list[Seq], pad: int) -> dict[str, Tensor]:
    """Prompts padded on the left, answers on the right, as TRL's loss takes them."""
    both = [cut(q) for q in batch]
    left, right = (max(len(pair[i]) for pair in both) for i in (0, 1))
    rows = lambda values: torch.tensor(values)  # noqa: E731
    return {
        "prompt_ids": rows([[pad] * (left - len(p)) + p for p, _ in both]),
        "prompt_mask": rows([[0] * (left - len(p)) + [1] * len(p) for p, _ in both]),
        "completion_ids": rows([c + [pad] * (right - len(c)) for _, c in both]),
        "completion_mask": rows([[1] * len(c) + [0] * (right - len(c)) for _, c in both]),
        "old_per_token_logps": rows(
            [q.per_token["old"].tolist() + [0.0] * (right - len(q.per_token["old"])) for q in batch]
        ),
        "advantages": rows([q.columns["advantage"] for q in batch]),
        "num_items_in_batch": rows(sum(len(c) for _, c in both)),
    }


@torch.no_grad()
def of_reference(trainer: Any, reference: Any, inputs: dict[str, Tensor]) -> Tensor:
    ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], 1)
    mask = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], 1)
    found: Tensor = trainer._get_per_token_logps_and_entropies(reference, ids, mask, inputs["completion_ids"].size(1))[
        0
    ]
    return found
