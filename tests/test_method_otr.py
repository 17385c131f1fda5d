"""One-token rollout, sampled and in expectation: closed forms, what it equals, and what cannot change it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from harness import methods
from harness.errors import Problems, Refused
from harness.methods.base import NO_TARGET, Method, check_stack
from harness.methods.dft import DFT
from harness.methods.lora import LoRA
from harness.methods.otr import OTR
from harness.methods.otr_exact import OTRExact
from harness.methods.sft import SFT
from harness.training import randomness
from harness.training import tokens as tokens_module
from harness.training.adapters import make
from tests.training import Watch, make_rows, train

Objective = OTR | OTRExact


class RowMean(SFT):
    norm = "rows"


class DFTRowMean(DFT):
    norm = "rows"


def same(a: list[dict[str, Tensor]], b: list[dict[str, Tensor]], tolerance: float = 0.0) -> bool:
    pairs = zip(a, b, strict=True)
    return all(torch.allclose(x[n], y[n], rtol=0, atol=tolerance) for x, y in pairs for n in x)


class Given:
    """Loss tokens whose logits are given, and a run that logs."""

    def __init__(self, logits: Tensor, gold: Tensor, seed: int = 0) -> None:
        self.logits, self.gold, self.seed = logits.clone().requires_grad_(), gold, seed
        self.logged: dict[str, float] = {}

    def vocab(self, f: Any) -> Tensor:
        made: Tensor = f(self.logits, self.gold)
        return made

    def rng(self, purpose: str) -> torch.Generator:
        return randomness.generator(self.seed, purpose)

    def log_mean(self, **values: Tensor) -> None:
        assert not any(v.requires_grad for v in values.values())
        self.logged |= {name: float(v.mean()) for name, v in values.items()}


def losses_and_gradients(method: Objective, logits: Tensor, gold: Tensor, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Of every position by itself."""
    given: Any = Given(logits, gold, seed)
    loss = method.loss(given, given)
    loss.sum().backward()
    return loss.detach(), given.logits.grad


Z, GOLD = torch.tensor([[1.0, 0.0, -1.0]]), torch.tensor([1])


def drawing(monkeypatch: pytest.MonkeyPatch, *tokens: int) -> None:
    monkeypatch.setattr(torch, "multinomial", lambda *args, **options: torch.tensor([tokens]))


# --- closed forms ---------------------------------------------------------------------------------------------------
def test_the_sampled_loss_is_its_closed_form(monkeypatch: pytest.MonkeyPatch) -> None:
    drawing(monkeypatch, 0, 1, 1, 2)
    loss, gradient = losses_and_gradients(OTR(k=4), Z, GOLD)
    assert loss.item() == pytest.approx(0.633423, abs=1e-6)
    assert gradient[0].tolist() == pytest.approx([0.324358, -0.389872, 0.065514], abs=1e-6)


@pytest.mark.parametrize(
    ("kappa", "loss", "gradient"),
    [(1.0, 0.295690, [0.179084, -0.203320, 0.024236]), (1.3, 0.333588, [0.195131, -0.226269, 0.031138])],
)
def test_the_expected_loss_is_its_closed_form(kappa: float, loss: float, gradient: list[float]) -> None:
    made, grad = losses_and_gradients(OTRExact(kappa=kappa), Z, GOLD)
    assert made.item() == pytest.approx(loss, abs=1e-6)
    assert grad[0].tolist() == pytest.approx(gradient, abs=1e-6)


def test_without_reward_for_others_what_never_draws_the_answer_learns_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    drawing(monkeypatch, 0, 2, 2, 0)
    loss, gradient = losses_and_gradients(OTR(k=4, beta=0.0), Z, GOLD)
    assert loss.item() == 0
    assert torch.equal(gradient, torch.zeros(1, 3))
    loss, gradient = losses_and_gradients(OTR(k=4), Z, GOLD)
    assert loss.item() < 0
    assert gradient[0, 1] < 0 < gradient[0, 0] + gradient[0, 2]


def test_if_every_sample_is_the_answer_the_loss_is_the_cross_entropy(monkeypatch: pytest.MonkeyPatch) -> None:
    drawing(monkeypatch, 1, 1, 1)
    loss, gradient = losses_and_gradients(OTR(k=3), Z, GOLD)
    expected = Z.clone().requires_grad_()
    torch.nn.functional.cross_entropy(expected, GOLD).backward()
    assert loss.item() == pytest.approx(-float(Z.log_softmax(-1)[0, 1]), abs=1e-6)
    assert expected.grad is not None
    assert torch.allclose(gradient, expected.grad, rtol=0, atol=1e-6)


@pytest.mark.parametrize("method", [OTR(k=5), OTRExact()], ids=["sampled", "exact"])
def test_the_gradient_on_logits_is_the_rewards_times_onehot_minus_p(method: Objective) -> None:
    z = torch.randn(7, 11, generator=torch.Generator().manual_seed(1)).double()
    gold = torch.arange(7)
    cold = (z / method.kappa).softmax(-1)
    weights = cold
    if isinstance(method, OTR):
        drawn = torch.multinomial(cold, 5, replacement=True, generator=randomness.generator(0, "otr"))
        weights = torch.nn.functional.one_hot(drawn, 11).double().mean(1)
    rewarded = weights * torch.full_like(z, method.beta).scatter(-1, gold[:, None], 1.0)
    expected = -(rewarded - rewarded.sum(-1, keepdim=True) * z.softmax(-1))
    assert torch.allclose(losses_and_gradients(method, z, gold)[1], expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("kappa", [1.0, 1.3])
def test_the_mean_over_draws_is_the_exact_variant_within_three_standard_errors(kappa: float) -> None:
    n, k = 20_000, 4
    z = torch.tensor([[1.5, 0.3, -0.4, -2.0]]).expand(n, -1)
    gold = torch.zeros(n, dtype=torch.long) + 1
    losses, gradients = losses_and_gradients(OTR(k=k, kappa=kappa), z, gold)
    loss, gradient = losses_and_gradients(OTRExact(kappa=kappa), z[:1], gold[:1])
    for drawn, exact in ((losses[:, None], loss[:, None]), (gradients, gradient)):
        error = drawn.std(0) / n**0.5
        assert ((drawn.mean(0) - exact[0]).abs() <= 3 * error).all()


@pytest.mark.parametrize("beta", [-0.3, 0.0, 0.2])
def test_at_temperature_one_the_exact_gradient_is_a_multiple_of_that_of_dft(beta: float) -> None:
    z, gold = torch.randn(7, 11, generator=torch.Generator().manual_seed(2)), torch.arange(7)
    held = z.clone().requires_grad_()
    logp = held.log_softmax(-1).gather(-1, gold[:, None])[:, 0]
    (-logp.detach().exp() * logp).sum().backward()
    assert held.grad is not None
    exact = losses_and_gradients(OTRExact(kappa=1.0, beta=beta), z, gold)[1]
    assert torch.allclose(exact, (1 - beta) * held.grad, rtol=0, atol=1e-6)


def test_the_same_seed_gives_the_same_loss_bit_for_bit_and_another_another() -> None:
    z, gold = torch.randn(9, 50, generator=torch.Generator().manual_seed(3)), torch.arange(9)
    first, again, other = (losses_and_gradients(OTR(k=8), z, gold, seed)[0] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


# --- identity -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("method", "plain"),
    [
        (OTR(sampler="gold", norm="tokens"), SFT),
        (OTR(sampler="gold"), RowMean),
        (OTRExact(kappa=1.0, beta=0.0, norm="tokens"), DFT),
    ],
    ids=["sft", "sft-rows", "dft"],
)
def test_it_is_what_it_says_bit_for_bit_over_twenty_steps(
    tmp_path: Path, tiny_model: Path, method: Method, plain: type[Method]
) -> None:
    """Rows are forwarded one by one, since `tok.vocab` applies the head row by row and `tok.logp` to all at once."""
    mine, theirs = Watch(), Watch()
    a = train(tmp_path / "a", tiny_model, method, mine, steps=20, micro_batch=1)
    b = train(tmp_path / "b", tiny_model, plain(), theirs, steps=20, micro_batch=1)
    assert a.losses == b.losses
    assert same(mine.gradients, theirs.gradients)
    assert all(torch.equal(p, theirs.final[n]) for n, p in mine.final.items())


# --- on the model ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("method", [OTR(k=8, norm="tokens"), OTRExact(norm="tokens")], ids=["sampled", "exact"])
def test_the_gradient_is_that_of_the_loss_with_rewards_and_samples_held(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, method: Objective
) -> None:
    """Along the gradient the loss rises by its norm, if what was drawn, or the distribution, stays as it was."""
    from transformers import AutoModelForCausalLM

    drawn: list[Tensor] = []
    multinomial = torch.multinomial

    def draw(*args: Any, **options: Any) -> Tensor:
        drawn.append(multinomial(*args, **options))
        return drawn[-1]

    monkeypatch.setattr(torch, "multinomial", draw)
    watch = Watch()
    done = train(tmp_path, tiny_model, method, watch, steps=1)
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    batch, gradient = watch.batches[0], watch.gradients[0]
    norm = float(torch.nn.utils.get_total_norm(gradient.values()))
    keep = batch.targets != NO_TARGET
    gold = batch.targets[keep][:, None]

    def logp(temperature: float = 1.0) -> Tensor:
        logits: Tensor = model(input_ids=batch.ids).logits.double()[keep]
        return (logits / temperature).log_softmax(-1)

    def loss_at(distance: float) -> float:
        for name, p in model.named_parameters():
            p += distance * gradient[name] / norm
        value = -float((held * logp()).sum(-1).mean())
        for name, p in model.named_parameters():
            p -= distance * gradient[name] / norm
        return value

    with torch.no_grad():
        share = logp(method.kappa).exp()
        if isinstance(method, OTR):
            share = torch.nn.functional.one_hot(torch.cat(drawn), share.shape[1]).double().mean(1)
        held = share * torch.full_like(share, method.beta).scatter(-1, gold, 1.0)
        assert loss_at(0.0) == pytest.approx(done.losses[0], abs=1e-5)
        assert (loss_at(1e-2) - loss_at(-1e-2)) / 2e-2 == pytest.approx(norm, rel=1e-2)


@pytest.mark.parametrize("method", [OTR, OTRExact], ids=["sampled", "exact"])
@pytest.mark.parametrize("norm", ["rows", "tokens"])
@pytest.mark.parametrize("size", [2**25, 16], ids=["whole", "sliced"])
def test_layout_cannot_change_the_answer(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, method: type[Objective], norm: str, size: int
) -> None:
    """Slices of 16 are recomputed in the backward pass, where other draws would show as another gradient."""
    monkeypatch.setattr(tokens_module, "SLICE", size)
    runs = []
    for micro in (4, 2, 1):
        watch = Watch()
        done = train(tmp_path / str(micro), tiny_model, method(norm=norm), watch, steps=2, micro_batch=micro)
        runs.append((done, watch.gradients, [line["on_policy"] for line in done.curve]))
    whole, first, drawn = runs[0]
    for done, gradients, on_policy in runs[1:]:
        assert done.losses == pytest.approx(whole.losses, abs=1e-6)
        assert on_policy == pytest.approx(drawn, abs=1e-6)
        assert same(gradients[:1], first[:1], 3e-7)
        assert same(gradients, first, 3e-6)  # Adam enlarges the rounding of the first step


def test_a_run_logs_how_often_the_answer_is_drawn_and_learns_to_draw_it(tmp_path: Path, tiny_model: Path) -> None:
    done = train(tmp_path, tiny_model, OTR(k=64), rows=make_rows(4), steps=80, lr=1e-2)
    first, last = done.curve[0], done.curve[-1]
    assert 0 < first["on_policy"] < 0.05
    assert last["on_policy"] > 0.3
    assert last["never_gold"] < first["never_gold"] < 1
    assert done.result.cost["extra_forward_tokens"] == {}


@pytest.mark.parametrize("name", ["otr", "otr_exact"])
def test_interrupted_and_continued_gives_identical_losses(tmp_path: Path, tiny_model: Path, name: str) -> None:
    stack = (("lora", {"r": 2}), (name, {}))
    whole = train(tmp_path / "whole", tiny_model, *methods.build(stack), steps=6, seed=3)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "cut", tiny_model, *methods.build(stack), Watch(4), steps=6, seed=3, checkpoint_seconds=1e-9)
    again = train(
        tmp_path / "on", tiny_model, *methods.build(stack), Watch(), steps=6, seed=3, earlier=[tmp_path / "cut"]
    )
    assert again.result.summary["resumed_at"] == 3
    assert again.curve == whole.curve


# --- stacks ---------------------------------------------------------------------------------------------------------
def test_it_trains_an_adapter_alone_and_leaves_one(tmp_path: Path, tiny_model: Path) -> None:
    stack, watch = (LoRA(r=2), OTR(k=8)), Watch()
    make("native").check(stack)
    done = train(tmp_path, tiny_model, *stack, watch)
    assert all("lora_" in name for name in watch.gradients[0])
    assert (done.work / "artifact" / "adapter_config.json").exists()


def test_weights_of_others_take_tokens_out_of_the_loss_and_of_both_means(tmp_path: Path, tiny_model: Path) -> None:
    class FirstOnly(Method):
        name = "first-only"

        def token_weight(self, tok: Any, ctx: Any) -> Tensor:
            return torch.cat([torch.ones(1), (tok.row[1:] != tok.row[:-1]).float()])

    runs = [
        train(tmp_path / norm, tiny_model, OTRExact(norm=norm), FirstOnly(), rows=make_rows(4), steps=2)
        for norm in ("rows", "tokens")
    ]
    assert runs[0].losses == pytest.approx(runs[1].losses, abs=1e-6)  # one token a row: both means are the same
    assert [done.result.cost["loss_tokens"] for done in runs] == [8, 8]


def test_two_objectives_and_two_means_are_refused_by_name() -> None:
    with pytest.raises(Refused, match="`otr` and `dft` both change `loss`"):
        check_stack((OTR(), DFT()))
    with pytest.raises(Refused, match="`otr_exact` and `sft` both set `norm`"):
        check_stack((OTRExact(), RowMean()))
    check_stack((OTRExact(norm="tokens"), RowMean()))


def test_parameters_out_of_range_are_named() -> None:
    with pytest.raises(Problems) as caught:
        methods.build((("otr", {"k": 0, "kappa": 0.0, "beta": 1.0, "norm": "weights"}),))
    assert all(f"parameter `{name}`" in str(caught.value) for name in ("k", "kappa", "beta", "norm"))
