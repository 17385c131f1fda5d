"""PPO: estimates of advantage, both clipped losses, and a critic that leaves no trace in what is served."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from harness.methods.base import Method
from harness.methods.lora import LoRA
from harness.methods.ppo import PPO, estimate
from tests.sampler import Letters, Sampled
from tests.training import train

SMALL: dict[str, Any] = {"n": 2, "max_tokens": 5}
nothing = Letters(reward=lambda text: 0.0)


# --- identity -------------------------------------------------------------------------------------------------------
def test_without_rewards_nothing_moves_in_twenty_steps(tmp_path: Path, tiny_model: Path) -> None:
    sampled = Sampled(tiny_model)
    method = PPO(n=2, max_tokens=2, kl=0.0)
    done = train(tmp_path, tiny_model, method, nothing, sampled, steps=20, batch_size=2)
    assert done.losses == [0.0] * 20
    assert all(not g.any() for step in sampled.gradients for g in step.values())


def test_the_first_update_is_the_plain_policy_gradient(tmp_path: Path, tiny_model: Path) -> None:
    """Rewards go to every token where nothing was expected and lam is 1, and the ratio is 1."""

    class Plain(Method):
        name = "plain"

        def __init__(self) -> None:
            super().__init__()
            self.rollouts = SMALL

        def loss(self, tok: Any, ctx: Any) -> Tensor:
            return -tok["advantage"][tok.row] * tok.logp

    mine, plain = Sampled(tiny_model), Sampled(tiny_model)
    method = PPO(**SMALL, kl=0.0, lam=1.0, whiten=False)
    train(tmp_path / "a", tiny_model, method, Letters(), mine, steps=1, clip=None)
    train(tmp_path / "b", tiny_model, Plain(), Letters(), plain, steps=1, clip=None)
    assert any(g.any() for g in plain.gradients[0].values())
    for name, g in plain.gradients[0].items():
        assert torch.allclose(g, mine.gradients[0][name], rtol=0, atol=1e-6)


# --- closed form ----------------------------------------------------------------------------------------------------
def test_estimates_of_advantage() -> None:
    """Expected 0.5 throughout and 1 paid at the end of the first answer; the second is paid -1 for its only token."""
    value = torch.tensor([0.5, 0.5, 0.5, 0.25])
    row, reward = torch.tensor([0, 0, 0, 1]), torch.tensor([1.0, -1.0])
    found = estimate(torch.zeros(4), value, reward, row, 1.0, 0.95)
    assert found.tolist() == pytest.approx([0.45125, 0.475, 0.5, -1.25])
    togo = estimate(torch.tensor([-0.1, -0.2, -0.3, 0]), torch.zeros(4), reward, row, 0.5, 1.0)
    assert togo.tolist() == pytest.approx([-0.1 + 0.5 * (-0.2 + 0.5 * 0.7), -0.2 + 0.5 * 0.7, 0.7, -1.0])
    one_step = estimate(torch.zeros(4), value, reward, row, 1.0, 0.0)
    assert one_step.tolist() == pytest.approx([0, 0, 0.5, -1.25])


class Tok(dict[str, Tensor]):
    def __init__(self, logp: Tensor, value: Tensor, **columns: list[float]) -> None:
        super().__init__({name: torch.tensor(column, dtype=logp.dtype) for name, column in columns.items()})
        self.logp, self.value, self.weight = logp, value, torch.ones_like(logp)


class Known(PPO):
    def values(self, tok: Any, ctx: Any) -> Tensor:
        found: Tensor = tok.value
        return found


COLUMNS = {"old": [0.0, 0.0], "advantage": [1.0, -1.0], "returns": [1.0, 0.0], "value_old": [0.0, 0.5]}


def test_both_losses_are_clipped() -> None:
    """Ratio 1.5 for advantage 1 and 0.5 for -1; values that went past their clip pay for where the clip is."""
    logp = torch.tensor([1.5, 0.5], dtype=torch.float64).log()
    ctx: Any = None
    tok: Any = Tok(logp, torch.tensor([0.9, 0.6], dtype=torch.float64), **COLUMNS)
    terms = Known().loss(tok, ctx)
    assert terms["policy"].value.tolist() == pytest.approx([-1.2, 0.8])
    assert terms["critic"].value.tolist() == pytest.approx([0.64, 0.36])
    assert terms["critic"].scale == pytest.approx(0.05)


def test_its_gradient() -> None:
    ctx: Any = None

    def loss(logp: Tensor, value: Tensor) -> Tensor:
        tok: Any = Tok(logp, value, **COLUMNS)
        terms = Known().loss(tok, ctx).values()
        return torch.stack([t.scale * t.value.sum() for t in terms]).sum()

    logp = torch.tensor([0.05, 0.1], dtype=torch.float64, requires_grad=True)
    value = torch.tensor([0.1, 0.6], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(loss, (logp, value))


# --- in a run -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("micro", [1, 3])
def test_micro_batches_do_not_change_it(tmp_path: Path, tiny_model: Path, micro: int) -> None:
    a, b = Sampled(tiny_model), Sampled(tiny_model)
    one = train(tmp_path / "a", tiny_model, PPO(**SMALL), Letters(), a, steps=2, micro_batch=8)
    other = train(tmp_path / "b", tiny_model, PPO(**SMALL), Letters(), b, steps=2, micro_batch=micro)
    assert one.losses == pytest.approx(other.losses, abs=1e-5)
    for name, g in a.gradients[0].items():
        assert torch.allclose(g, b.gradients[0][name], rtol=0, atol=1e-6)


def test_a_resumed_run_continues_alike(tmp_path: Path, tiny_model: Path) -> None:
    whole = train(tmp_path / "whole", tiny_model, PPO(**SMALL), Letters(), Sampled(tiny_model), steps=4)
    with pytest.raises(KeyboardInterrupt):
        stopped = Sampled(tiny_model, stop_after=3)
        train(tmp_path / "cut", tiny_model, PPO(**SMALL), Letters(), stopped, steps=4, checkpoint_seconds=1e-9)
    rest = train(
        tmp_path / "rest", tiny_model, PPO(**SMALL), Letters(), Sampled(tiny_model), steps=4, earlier=[tmp_path / "cut"]
    )
    assert rest.result.summary["resumed_at"] == 2
    assert rest.losses == whole.losses


@pytest.mark.parametrize("stack", [(), (LoRA(r=4),)], ids=["full", "lora"])
def test_the_critic_learns_and_is_gone_at_the_end(tmp_path: Path, tiny_model: Path, stack: tuple[Method, ...]) -> None:
    from safetensors import safe_open

    always = Letters(reward=lambda text: 1.0)
    method = PPO(**SMALL, kl=0.0, value=1.0, value_clip=10.0)
    done = train(
        tmp_path, tiny_model, *stack, method, always, Sampled(tiny_model), steps=8, lr=2e-2, schedule="constant"
    )
    assert done.curve[-1]["critic"] < done.curve[0]["critic"] / 2
    with safe_open(tmp_path / "artifact" / "model.safetensors", "pt") as file:
        assert not [name for name in file.keys() if "critic" in name or "lora" in name]  # noqa: SIM118
