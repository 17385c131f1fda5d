"""Group-relative policy optimisation: no contrast moves nothing, and the first update is a plain policy gradient."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from harness.methods.base import Method, Term
from harness.methods.grpo import GRPO
from tests.sampler import Letters, Sampled, constant
from tests.training import train

SMALL: dict[str, Any] = {"n": 4, "max_tokens": 5}


class Nothing:
    def log_mean(self, **values: Any) -> None:
        pass


class Rolls(dict[str, Tensor]):
    def __init__(self, reward: list[float], group: list[int]) -> None:
        super().__init__(reward=torch.tensor(reward), group=torch.tensor(group))


class Tok(dict[str, Tensor]):
    def __init__(self, logp: Tensor, old: list[float], advantage: list[float], row: list[int]) -> None:
        super().__init__(old=torch.tensor(old, dtype=logp.dtype), advantage=torch.tensor(advantage, dtype=logp.dtype))
        self.logp, self.row = logp, torch.tensor(row)


# --- identity -------------------------------------------------------------------------------------------------------
def test_equal_rewards_move_nothing_in_twenty_steps(tmp_path: Path, tiny_model: Path) -> None:
    sampled = Sampled(tiny_model)
    done = train(tmp_path, tiny_model, GRPO(n=2, max_tokens=2), constant(), sampled, steps=20, batch_size=2)
    assert done.losses == [0.0] * 20
    assert all(not g.any() for step in sampled.gradients for g in step.values())
    start = train(
        tmp_path / "base", tiny_model, GRPO(n=2, max_tokens=2), constant(), base := Sampled(tiny_model), steps=1
    )
    assert start.losses == [0.0]
    assert all(torch.equal(w, base.final[n]) for n, w in sampled.final.items())


def test_the_first_update_is_the_plain_policy_gradient(tmp_path: Path, tiny_model: Path) -> None:
    """The ratio is 1 at what was just sampled, so the gradient is that of -A times the mean log-probability."""

    class Plain(Method):
        name = "plain"
        rollouts = GRPO(**SMALL).rollouts
        advantage = GRPO.advantage
        scale = "group"

        def loss(self, tok: Any, ctx: Any) -> Term:
            return Term(-tok["advantage"] * tok.row_mean(tok.logp))

    mine, plain = Sampled(tiny_model), Sampled(tiny_model)
    train(tmp_path / "a", tiny_model, GRPO(**SMALL), Letters(), mine, steps=1)
    train(tmp_path / "b", tiny_model, Plain(), Letters(), plain, steps=1)
    assert any(g.any() for g in mine.gradients[0].values())
    for name, g in mine.gradients[0].items():
        assert torch.allclose(g, plain.gradients[0][name], rtol=0, atol=1e-6)


# --- closed form ----------------------------------------------------------------------------------------------------
def test_advantages_of_one_group_do_not_see_another() -> None:
    """Group 0 is the worked example of TimeMaster's specification: mean .44, deviation .512835 with n - 1."""
    rolls: Any = Rolls([1, 0.5, 1, 0.1, 0.1, 0, 0.5], [0, 1, 0, 0, 0, 0, 1])
    ctx: Any = Nothing()
    found = GRPO().advantage(rolls, ctx)
    assert found[[0, 2, 3, 4, 5]].tolist() == pytest.approx([1.0920, 1.0920, -0.6630, -0.6630, -0.8580], abs=3e-4)
    assert found[[1, 6]].tolist() == [0, 0]
    centred = GRPO(scale="none").advantage(rolls, ctx)
    assert centred.tolist() == pytest.approx([0.56, 0, 0.56, -0.34, -0.34, -0.44, 0], abs=1e-6)


def test_clipping_acts_only_where_it_lowers_the_objective() -> None:
    """Ratios 1.5 and 0.5 with advantages 1 and -1: the larger is cut for 1, the smaller for -1."""
    logp = torch.tensor([1.5, 0.5, 1.5, 0.5], dtype=torch.float64).log()
    tok: Any = Tok(logp, [0.0] * 4, [1, 1, -1, -1], [0, 1, 2, 3])
    ctx: Any = Nothing()
    assert GRPO().loss(tok, ctx).tolist() == pytest.approx([-1.2, -0.5, 1.5, 0.8])
    assert GRPO(epsilon_high=0.4).loss(tok, ctx).tolist() == pytest.approx([-1.4, -0.5, 1.5, 0.8])


@pytest.mark.parametrize("beta", [0.0, 0.1])
def test_its_gradient(beta: float) -> None:
    ctx: Any = Nothing()

    def loss(logp: Tensor) -> Tensor:
        tok: Any = Tok(logp, [-1.0, -0.5, -2.0], [0.7, -1.2], [0, 0, 1])
        tok.ref = Tok(torch.tensor([-1.2, -0.4, -1.8], dtype=torch.float64), [0.0], [0.0], [0])
        return GRPO(beta=beta).loss(tok, ctx)

    logp = torch.tensor([-0.95, -0.9, -1.9], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(loss, logp)


@pytest.mark.parametrize("norm", ["rows", "tokens"])
@pytest.mark.parametrize("micro", [1, 3, 16])
def test_micro_batches_do_not_change_it(tmp_path: Path, tiny_model: Path, norm: str, micro: int) -> None:
    a, b = Sampled(tiny_model), Sampled(tiny_model)
    method = GRPO(**SMALL, norm=norm)
    one = train(tmp_path / "a", tiny_model, method, Letters(), a, steps=1, micro_batch=16)
    other = train(tmp_path / "b", tiny_model, method, Letters(), b, steps=1, micro_batch=micro)
    assert one.losses == pytest.approx(other.losses, abs=1e-6)
    for name, g in a.gradients[0].items():
        assert torch.allclose(g, b.gradients[0][name], rtol=0, atol=1e-6)


def test_it_finds_the_rewarded_answers(tmp_path: Path, tiny_model: Path) -> None:
    letters = Letters(reward=lambda text: float(sum(c.isascii() for c in text)))
    stack = (GRPO(n=8, max_tokens=6), letters, Sampled(tiny_model))
    done = train(tmp_path, tiny_model, *stack, steps=10, lr=1e-2, schedule="constant", warmup=0.0)
    assert done.curve[-1]["reward"] > done.curve[0]["reward"] + 0.5
