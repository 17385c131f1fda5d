"""GRAO: coefficients of sampled answers and of the row's own, their identities, and stacks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from harness.methods.base import Method, Term
from harness.methods.grao import GRAO
from harness.methods.lora import LoRA
from tests.sampler import Letters, Sampled, constant
from tests.training import train

SMALL: dict[str, Any] = {"n": 4, "max_tokens": 5}
R = [1.0, 0.0, -1.0, -1.0]
ELL = [-1.0, -2.0, -3.0, -4.0, -2.5]


class Ctx:
    def __init__(self) -> None:
        self.logged: dict[str, Any] = {}

    def log(self, **values: Any) -> None:
        self.logged |= values

    def log_mean(self, **values: Any) -> None:
        self.logged |= {name: float(value.mean()) for name, value in values.items()}


class Rolls(dict[str, Tensor]):
    """Groups of n samples, each followed by the row's own answer."""

    def __init__(self, rewards: list[float], own: float = 0.0, groups: int = 1) -> None:
        n = len(rewards) // groups
        reward = [r for k in range(groups) for r in [*rewards[k * n : (k + 1) * n], own]]
        super().__init__(
            reward=torch.tensor(reward, dtype=torch.float64),
            reference=torch.tensor(([0.0] * n + [1.0]) * groups, dtype=torch.float64),
            group=torch.arange(groups).repeat_interleave(n + 1),
        )
        self.R = len(reward)


def found(method: GRAO, rewards: list[float], own: float = 0.0) -> tuple[Tensor, Tensor]:
    rolls, ctx = Rolls(rewards, own), Ctx()
    made = method.advantage(rolls, ctx)  # type: ignore[arg-type]
    return made["advantage"], made["standard"]


class Tok(dict[str, Tensor]):
    """One token an answer, so that ell is its log-probability."""

    def __init__(self, ell: Tensor, columns: dict[str, Tensor]) -> None:
        super().__init__(columns)
        self.logp = ell

    def row_mean(self, values: Tensor) -> Tensor:
        return values


def objective(method: GRAO, ell: Tensor, rewards: list[float]) -> tuple[Tensor, Ctx]:
    ctx, rolls = Ctx(), Rolls(rewards)
    tok = Tok(ell, {**rolls, **method.advantage(rolls, ctx)})  # type: ignore[arg-type]
    term = method.loss(tok, ctx)  # type: ignore[arg-type]
    assert isinstance(term, Term)
    assert term.count is not None
    return -term.value.sum() / term.count.sum(), ctx


# --- closed form ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("pool", "a", "a_y", "c", "c_y", "j"),
    [
        ("joint", [1.6036, 0.2673, -1.0690, -1.0690], 0.2673, [0.6414, 0.1069, -0.4276, -0.4276], 0.1737, 1.7038),
        ("samples", [1.5076, 0.3015, -0.9045, -0.9045], 0.3015, [0.6030, 0.1206, -0.3618, -0.3618], 0.1508, 1.3116),
    ],
)
def test_the_worked_example(pool: Any, a: list[float], a_y: float, c: list[float], c_y: float, j: float) -> None:
    method = GRAO(n=4, adv_group=pool)
    coefficients, standard = found(method, R)
    assert standard.tolist() == pytest.approx([*a, a_y], abs=1e-4)
    assert coefficients.tolist() == pytest.approx([*c, c_y], abs=1e-4)
    ell = torch.tensor(ELL, dtype=torch.float64, requires_grad=True)
    value, ctx = objective(method, ell, R)
    assert value.item() == pytest.approx(j, abs=1e-4)
    (gradient,) = torch.autograd.grad(-value, ell)
    assert torch.allclose(gradient, -coefficients)
    terms = [-ctx.logged[name] for name in ("exploration", "imitation", "regulariser")]
    assert sum(terms) == pytest.approx(j, abs=1e-4)
    if pool == "joint":
        assert terms == pytest.approx([1.3363, -0.3341, 0.7016], abs=1e-4)


@pytest.mark.parametrize("seed", range(5))
def test_the_coefficients_identities(seed: int) -> None:
    rewards = torch.randint(-1, 2, (8,), generator=torch.Generator().manual_seed(seed)).double().tolist()
    for pool, share in (("joint", 0.5 + 0.6 / 8), ("samples", 0.5)):
        c, a = found(GRAO(adv_group=pool), rewards)  # type: ignore[arg-type]
        assert float(c[-1]) == pytest.approx(share * float(a[-1]))
        order = torch.randperm(8, generator=torch.Generator().manual_seed(seed)).tolist()
        mixed, _ = found(GRAO(adv_group=pool), [rewards[i] for i in order])  # type: ignore[arg-type]
        assert torch.allclose(mixed, c[[*order, 8]])


def test_samples_that_all_lose_imitate_and_what_is_flat_counts_nothing() -> None:
    c, a = found(GRAO(), [-1.0] * 8)
    assert float(a[-1]) == pytest.approx(2.828, abs=1e-3)
    assert a[:-1].tolist() == pytest.approx([-0.354] * 8, abs=1e-3)
    assert float(c[-1]) > 0
    assert (c[:-1] < 0).all()
    assert not found(GRAO(adv_group="samples"), [-1.0] * 8)[0].any()
    assert not found(GRAO(), [0.0] * 8)[0].any()


def test_rewards_are_differences_to_the_own_answer() -> None:
    right, _ = found(GRAO(n=4), [1, 0, 0, 0], own=1.0)
    assert torch.allclose(right, found(GRAO(n=4), [0, -1, -1, -1])[0])


def test_relu_keeps_the_own_answer_from_being_pushed_down() -> None:
    assert float(found(GRAO(n=4), [1, 1, 1, 0])[0][-1]) < 0
    assert float(found(GRAO(n=4, clamp_ref_adv="relu", lam=0), [1, 1, 1, 0])[0][-1]) == 0


# --- in a run -------------------------------------------------------------------------------------------------------
def test_equal_rewards_move_nothing_in_twenty_steps(tmp_path: Path, tiny_model: Path) -> None:
    sampled = Sampled(tiny_model)
    done = train(tmp_path, tiny_model, GRAO(n=2, max_tokens=2), constant(), sampled, steps=20, batch_size=2)
    assert done.losses == [0.0] * 20
    assert all(not g.any() for step in sampled.gradients for g in step.values())
    assert [line["skipped"] for line in done.curve] == [1.0] * 20


def test_without_beta_and_lambda_it_is_reinforce(tmp_path: Path, tiny_model: Path) -> None:
    """Group-normalised advantages times the mean log-probability of each answer: the first step of GRPO."""

    class Reinforce(Method):
        name = "reinforce"

        def __init__(self) -> None:
            super().__init__()
            self.rollouts = {"n": 4, "max_tokens": 5, "temperature": 0.7}

        def advantage(self, rolls: Any, ctx: Any) -> Tensor:
            r = rolls["reward"].view(-1, 4)
            spread = r.std(1, unbiased=False, keepdim=True)
            return torch.where(spread > 0, (r - r.mean(1, keepdim=True)) / spread, 0.0).flatten()

        def loss(self, tok: Any, ctx: Any) -> Term:
            return Term(-tok["advantage"] * tok.row_mean(tok.logp))

    mine, plain = Sampled(tiny_model), Sampled(tiny_model)
    method = GRAO(**SMALL, beta=0, lam=0, adv_group="samples")
    a = train(tmp_path / "a", tiny_model, method, Letters(), mine, steps=1)
    b = train(tmp_path / "b", tiny_model, Reinforce(), Letters(), plain, steps=1)
    assert a.losses == pytest.approx(b.losses, abs=1e-6)
    assert any(g.any() for g in mine.gradients[0].values())
    for name, g in mine.gradients[0].items():
        assert torch.allclose(g, plain.gradients[0][name], rtol=0, atol=1e-6)


@pytest.mark.parametrize("micro", [1, 4, 9])
def test_micro_batches_do_not_change_it(tmp_path: Path, tiny_model: Path, micro: int) -> None:
    a, b = Sampled(tiny_model), Sampled(tiny_model)
    one = train(tmp_path / "a", tiny_model, GRAO(**SMALL), Letters(), a, steps=1, micro_batch=20)
    other = train(tmp_path / "b", tiny_model, GRAO(**SMALL), Letters(), b, steps=1, micro_batch=micro)
    for name in ("loss", "exploration", "imitation", "regulariser", "ell_own", "gap_mean"):
        assert one.curve[0][name] == pytest.approx(other.curve[0][name], abs=1e-5)
    parts = [one.curve[0][name] for name in ("exploration", "imitation", "regulariser")]
    assert sum(parts) == pytest.approx(one.losses[0], abs=1e-5)
    for name, g in a.gradients[0].items():
        assert torch.allclose(g, b.gradients[0][name], rtol=0, atol=1e-6)


def test_bad_samples_teach_the_own_answer_through_lora(tmp_path: Path, tiny_model: Path) -> None:
    """The stack [lora, grao]: every sample loses to the row's own answer, which grows likelier step by step."""
    stack = (LoRA(r=8), GRAO(**SMALL), Letters(own=1.0, reward=lambda text: 0.0), Sampled(tiny_model))
    done = train(tmp_path, tiny_model, *stack, steps=10, lr=1e-2, schedule="constant", warmup=0.0)
    said = [line["ell_own"] for line in done.curve]
    assert said[-1] > said[0] + 0.1
    assert (tmp_path / "artifact" / "adapter_model.safetensors").exists()
