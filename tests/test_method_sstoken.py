"""ssToken: which tokens are kept, and that the others carry no loss and no gradient."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from harness import methods
from harness.errors import HarnessError, Refused
from harness.methods.base import NO_TARGET, Method, check_stack
from harness.methods.dft import DFT
from harness.methods.lora import LoRA
from harness.methods.mft import MFT
from harness.methods.sft import SFT
from harness.methods.sstoken import SsToken, chosen
from harness.training.adapters import make
from tests.training import Watch, make_rows, train

ALL = 0.9999  # of fewer than 10,000 tokens, rounded up: all of them


class Spy(SsToken):
    """Keeps what each micro-batch was scored by and which tokens it kept."""

    def __init__(self, **params: Any) -> None:
        super().__init__(**params)
        self.weights: list[Tensor] = []
        self.toks: list[Any] = []

    def token_weight(self, tok: Any, ctx: Any) -> Tensor | None:
        weights = super().token_weight(tok, ctx)
        self.toks.append(tok)
        assert weights is not None
        assert not weights.requires_grad
        self.weights.append(weights)
        return weights


def same(a: list[dict[str, Tensor]], b: list[dict[str, Tensor]], tolerance: float = 0.0) -> bool:
    pairs = zip(a, b, strict=True)
    return all(torch.allclose(x[n], y[n], rtol=0, atol=tolerance) for x, y in pairs for n in x)


# --- identity -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "method", [SsToken(rho=1.0), SsToken(rho=ALL, gamma=1.0, warmup=0.0)], ids=["unscored", "scored"]
)
def test_keeping_all_is_sft_bit_for_bit_over_twenty_steps(tmp_path: Path, tiny_model: Path, method: SsToken) -> None:
    """The second of them does score every token, against history."""
    mine, plain = Watch(), Watch()
    a = train(tmp_path / "a", tiny_model, method, mine, steps=20)
    b = train(tmp_path / "b", tiny_model, SFT(), plain, steps=20)
    assert a.curve == b.curve
    assert same(mine.gradients, plain.gradients)


def test_the_attention_tap_leaves_losses_and_gradients_as_they_are(tmp_path: Path, tiny_model: Path) -> None:
    """Bit for bit those of `sft` on a model opened in the same way."""

    class Unfused(SFT):
        needs = frozenset({"double_backward"})

    mine, plain = Watch(), Watch()
    a = train(tmp_path / "a", tiny_model, SsToken(rho=ALL, warmup=0.5), mine, steps=6)
    b = train(tmp_path / "b", tiny_model, Unfused(), plain, steps=6)
    assert a.curve == b.curve
    assert same(mine.gradients, plain.gradients)


def test_history_costs_a_forward_pass_once_it_is_asked_for(tmp_path: Path, tiny_model: Path) -> None:
    for warmup, share in ((0.0, 1.0), (1.0, 0.0)):
        cost = train(tmp_path / str(warmup), tiny_model, SsToken(warmup=warmup)).result.cost
        assert cost["extra_forward_tokens"].get("base", 0) == share * cost["trained_tokens"]


# --- closed form ----------------------------------------------------------------------------------------------------
HISTORY = torch.tensor([2.0, 3.0, 0.5, 4.0, 1.0])
CURRENT = torch.tensor([1.0, 2.8, 0.4, 1.5, 1.2])
ATTENTION = torch.tensor([0.9, 0.2, 0.6, 0.1, 0.4])


def test_the_worked_example() -> None:
    weights = chosen(HISTORY - CURRENT, ATTENTION, 0.5, 0.6)
    assert weights.tolist() == [1, 0, 1, 1, 0]
    assert float((weights * CURRENT).sum() / weights.sum()) == pytest.approx(0.966667, abs=1e-6)
    assert float(CURRENT.mean()) == pytest.approx(1.38, abs=1e-6)


def test_the_order_of_the_worked_example_is_that_of_its_scores() -> None:
    """Scores .6722, .5500, .3556, .2000, .1741: the tokens leave in that order, from the last, as rho falls."""
    kept = [chosen(HISTORY - CURRENT, ATTENTION, 0.5, n / 5).nonzero()[:, 0].tolist() for n in range(1, 6)]
    assert kept == [[0], [0, 3], [0, 2, 3], [0, 2, 3, 4], [0, 1, 2, 3, 4]]


def test_gamma_one_ignores_attention_and_gamma_zero_history() -> None:
    gain, generator = HISTORY - CURRENT, torch.Generator().manual_seed(0)
    for _ in range(5):
        other = torch.randn(5, generator=generator)
        assert torch.equal(chosen(gain, other, 1.0, 0.6), chosen(gain, ATTENTION, 1.0, 0.6))
        assert torch.equal(chosen(other, ATTENTION, 0.0, 0.6), chosen(gain, ATTENTION, 0.0, 0.6))
    assert chosen(gain, ATTENTION, 1.0, 0.6).tolist() == [1, 1, 0, 1, 0]
    assert chosen(gain, ATTENTION, 0.0, 0.6).tolist() == [1, 0, 1, 0, 1]


def test_equal_gains_leave_the_choice_to_attention_and_one_token_is_kept() -> None:
    assert chosen(torch.full((5,), 0.7), ATTENTION, 0.5, 0.4).tolist() == [1, 0, 1, 0, 0]
    assert chosen(torch.zeros(4), torch.zeros(4), 0.5, 0.5).tolist() == [1, 1, 0, 0]
    assert chosen(torch.tensor([0.3]), torch.tensor([0.0]), 0.5, 0.01).tolist() == [1]


@pytest.mark.parametrize(("n", "rho", "kept"), [(5, 0.6, 3), (100, 0.07, 7), (10, 0.61, 7), (3, 1.0, 3), (7, 0.5, 4)])
def test_the_share_is_rounded_up_and_never_by_an_error_of_arithmetic(n: int, rho: float, kept: int) -> None:
    assert int(chosen(torch.arange(float(n)), torch.zeros(n), 1.0, rho).sum()) == kept


# --- what the host hands over ---------------------------------------------------------------------------------------
def several_turns() -> list[dict[str, Any]]:
    said = [("user", "one"), ("assistant", "two!"), ("user", "and three?"), ("assistant", "four")]
    return [
        {"id": "turns", "messages": [{"role": role, "content": text} for role, text in said]},
        *make_rows(3),
    ]


@pytest.mark.parametrize("layer", [-1, 0])
def test_attention_to_the_prompt_is_that_of_the_plain_model(tmp_path: Path, tiny_model: Path, layer: int) -> None:
    """Each row alone and unpadded: heads averaged, the target's own position, summed over earlier prompt positions."""
    from transformers import AutoModelForCausalLM

    from harness.methods.sstoken import attention_to_prompt

    seen: list[tuple[Tensor, Any]] = []

    class Look(SsToken):
        def token_weight(self, tok: Any, ctx: Any) -> Tensor | None:
            seen.append((attention_to_prompt(tok, layer), tok.batch))
            return super().token_weight(tok, ctx)

    train(tmp_path, tiny_model, Look(layer=layer), rows=several_turns(), steps=1)
    shares, batch = seen[0]
    assert len(set(batch.lengths.tolist())) > 1
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32, attn_implementation="eager")
    expected = []
    for q in batch.seqs:
        weights = model(input_ids=torch.tensor([q.ids]), output_attentions=True).attentions[layer][0].mean(0)
        assert torch.allclose(weights.sum(-1), torch.ones(len(q.ids)), atol=1e-5)
        answer = [False, *(t != NO_TARGET for t in q.targets[:-1])]
        for i in (i for i, on in enumerate(answer) if on):
            expected.append(sum(float(weights[i, j].detach()) for j in range(i) if not answer[j]))
    assert shares.tolist() == pytest.approx(expected, abs=1e-4)
    assert all(0 < share < 1 for share in shares.tolist())


def test_history_equals_the_model_at_the_start_and_falls_behind_it(tmp_path: Path, tiny_model: Path) -> None:
    gains: list[Tensor] = []

    class Look(SsToken):
        def token_weight(self, tok: Any, ctx: Any) -> Tensor | None:
            gains.append(tok.logp - tok.ref.logp)
            return super().token_weight(tok, ctx)

    train(tmp_path, tiny_model, Look(warmup=0.0), steps=8)
    assert gains[0].abs().max() < 1e-6
    assert gains[-1].mean() > 0.1


def test_attention_alone_decides_until_the_warm_up_ends(tmp_path: Path, tiny_model: Path) -> None:
    used: list[float] = []

    class Look(SsToken):
        def token_weight(self, tok: Any, ctx: Any) -> Tensor | None:
            before = ctx.meter.extra["base"]
            weights = super().token_weight(tok, ctx)
            used.append(ctx.meter.extra["base"] > before)
            return weights

    train(tmp_path, tiny_model, Look(warmup=0.5), steps=6)
    assert used == [False] * 3 + [True] * 3


def test_each_sequence_keeps_its_share_and_the_loss_is_the_mean_over_what_is_kept(
    tmp_path: Path, tiny_model: Path
) -> None:
    for norm in ("tokens", "rows"):
        spy = Spy(warmup=0.0, norm=norm)
        done = train(tmp_path / norm, tiny_model, spy, steps=2)
        losses = []
        for tok, weights in zip(spy.toks, spy.weights, strict=True):
            rows = [(weights[tok.row == r], -tok.logp[tok.row == r]) for r in range(tok.R)]
            assert [int(w.sum()) for w, _ in rows] == [-(-len(w) * 3 // 5) for w, _ in rows]
            means = [float((w * ce).sum() / w.sum()) for w, ce in rows]
            whole = float((weights * -tok.logp).sum() / weights.sum())
            losses.append(whole if norm == "tokens" else sum(means) / len(means))
        assert done.losses == pytest.approx(losses, abs=1e-6)
        assert done.result.cost["loss_tokens"] == sum(int(w.sum()) for w in spy.weights)


def test_tokens_that_are_not_kept_have_a_gradient_of_zero(tmp_path: Path, tiny_model: Path) -> None:
    states: list[Tensor] = []

    class Look(Spy):
        def token_weight(self, tok: Any, ctx: Any) -> Tensor | None:
            states.append(tok._tok.hidden)
            states[-1].retain_grad()
            return super().token_weight(tok, ctx)

    spy = Look(warmup=0.0)
    train(tmp_path, tiny_model, spy, steps=2)
    for state, weights in zip(states, spy.weights, strict=True):
        assert state.grad is not None
        assert torch.equal((state.grad != 0).any(-1), weights != 0)


def test_the_gradient_is_that_of_the_kept_tokens(tmp_path: Path, tiny_model: Path) -> None:
    """Along the gradient the loss rises by its norm, if the choice of tokens stays as it was."""
    from transformers import AutoModelForCausalLM

    watch, spy = Watch(), Spy(warmup=0.0)
    train(tmp_path, tiny_model, spy, watch, steps=1)
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    batch, gradient, weights = watch.batches[0], watch.gradients[0], spy.weights[0]
    norm = float(torch.nn.utils.get_total_norm(gradient.values()))
    keep = batch.targets != NO_TARGET

    def loss_at(distance: float) -> float:
        for name, p in model.named_parameters():
            p += distance * gradient[name] / norm
        logp = model(input_ids=batch.ids).logits.double().log_softmax(-1)
        for name, p in model.named_parameters():
            p -= distance * gradient[name] / norm
        return float(-(weights * logp[keep].gather(-1, batch.targets[keep][:, None])[:, 0]).sum() / weights.sum())

    with torch.no_grad():
        assert (loss_at(1e-2) - loss_at(-1e-2)) / 2e-2 == pytest.approx(norm, rel=1e-2)


# --- layout, resume, stacks -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("norm", ["tokens", "rows"])
def test_layout_cannot_change_the_answer(tmp_path: Path, tiny_model: Path, norm: str) -> None:
    runs = []
    for micro in (4, 2, 1):
        watch, method = Watch(), SsToken(norm=norm, warmup=0.4)
        runs.append(
            (train(tmp_path / str(micro), tiny_model, method, watch, micro_batch=micro).losses, watch.gradients)
        )
    for losses, gradients in runs[1:]:
        assert losses == pytest.approx(runs[0][0], abs=1e-6)
        assert same(gradients[:1], runs[0][1][:1], 3e-7)
        assert same(gradients, runs[0][1], 3e-6)


def test_interrupted_and_continued_gives_identical_losses(tmp_path: Path, tiny_model: Path) -> None:
    stack = (("lora", {"r": 2}), ("sstoken", {}))
    whole = train(tmp_path / "whole", tiny_model, *methods.build(stack), steps=6, seed=3)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "cut", tiny_model, *methods.build(stack), Watch(4), steps=6, seed=3, checkpoint_seconds=1e-9)
    again = train(
        tmp_path / "on", tiny_model, *methods.build(stack), Watch(), steps=6, seed=3, earlier=[tmp_path / "cut"]
    )
    assert again.result.summary["resumed_at"] == 3
    assert again.curve == whole.curve


def test_with_lora_the_history_is_the_base_without_adapters(tmp_path: Path, tiny_model: Path) -> None:
    from transformers import AutoModelForCausalLM

    watch, spy = Watch(), Spy(warmup=0.0)
    done = train(tmp_path, tiny_model, LoRA(r=2), spy, watch, steps=8, lr=1e-2)
    assert all("lora_" in name for name in watch.gradients[0])
    assert done.losses[-1] < done.losses[0]
    assert (done.work / "artifact" / "adapter_config.json").exists()
    base, tok = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32), spy.toks[-1]
    with torch.no_grad():
        logp = base(input_ids=tok.batch.ids).logits[tok.row, tok.at].log_softmax(-1)
    assert torch.allclose(tok.ref.logp, logp.gather(-1, tok.ids[:, None])[:, 0], atol=1e-4)


def test_lora_of_which_all_is_kept_is_lora(tmp_path: Path, tiny_model: Path) -> None:
    runs = [
        train(tmp_path / str(i), tiny_model, LoRA(r=2), *more, steps=6).losses
        for i, more in enumerate(((), (SsToken(rho=ALL, gamma=1.0, warmup=0.0),)))
    ]
    assert runs[0] == runs[1]


def test_it_chooses_tokens_for_the_losses_of_others(tmp_path: Path, tiny_model: Path) -> None:
    """Token weights reach a loss of another form, and answers that are masked are scored as they are read."""
    spy = Spy(warmup=0.0)
    done = train(tmp_path, tiny_model, MFT(p=0.4, warmup=0.0), spy, DFT(), steps=3)
    for loss, tok, weights in zip(done.losses, spy.toks, spy.weights, strict=True):
        assert loss == pytest.approx(float((weights * -tok.logp.exp() * tok.logp).sum() / weights.sum()), abs=1e-6)


def test_pairs_keep_their_share_of_each_answer(tmp_path: Path, tiny_model: Path) -> None:
    class Margin(Method):
        name, needs = "margin", frozenset({"pairs"})

        def loss(self, tok: Any, ctx: Any) -> Any:
            from harness.methods.base import Term

            return Term(tok.view("rejected").row_mean(tok.logp) - tok.view("chosen").row_mean(tok.logp))

    rows = [
        {"id": r["id"], "chosen": r["messages"], "rejected": [r["messages"][0], {"role": "assistant", "content": "no"}]}
        for r in make_rows(8)
    ]
    spy = Spy()
    train(tmp_path, tiny_model, spy, Margin(), rows=rows, steps=1)
    (tok,), (weights,) = spy.toks, spy.weights
    sizes = [(tok.row == r).sum().item() for r in range(tok.R)]
    assert [weights[tok.row == r].sum().item() for r in range(tok.R)] == [-(-n * 3 // 5) for n in sizes]


# --- planning and errors --------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("params", "needs"),
    [
        ({}, {"ref", "attention:-1"}),
        ({"layer": 3}, {"ref", "attention:3"}),
        ({"gamma": 0.0}, {"attention:-1"}),
        ({"gamma": 1.0}, {"ref", "attention:-1"}),
        ({"gamma": 1.0, "warmup": 0.0}, {"ref"}),
        ({"rho": 1.0}, set()),
    ],
    ids=str,
)
def test_it_asks_for_no_more_than_its_parameters_need(params: dict[str, Any], needs: set[str]) -> None:
    method = SsToken(**params)
    assert method.needs == needs
    make("native").check((LoRA(), method))


def test_two_owners_of_the_mean_are_refused() -> None:
    class Rows(Method):
        name, norm = "rows", "rows"

    check_stack((SsToken(), Rows()))
    with pytest.raises(Refused, match="`sstoken` and `rows` both set `norm`"):
        check_stack((SsToken(norm="rows"), Rows()))


@pytest.mark.parametrize("layer", [2, -3])
def test_a_layer_that_the_model_does_not_have_is_named(tmp_path: Path, tiny_model: Path, layer: int) -> None:
    with pytest.raises(HarnessError, match=f"attention weights of 2 layers, and `layer` is {layer}"):
        train(tmp_path, tiny_model, SsToken(layer=layer), steps=1)
