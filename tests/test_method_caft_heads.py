"""`caft`: what a head says of a row, what its loss is the mean of, and where its gradient goes."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.errors import Refused
from harness.methods.base import NO_TARGET, Stage, Term
from harness.methods.caft import CAFT, Heads, HeadsAlone, ahead, run_head, strength
from harness.training.context import Context
from harness.training.forward import make_batch
from harness.training.opening import open_base, open_tokenizer
from harness.training.sequences import Seq
from harness.training.tokens import Tokens


def mean(term: Term) -> float:
    assert term.count is not None
    return (term.value.detach().sum() / term.count.sum()).item()


def opened(folder: Path, *, plain_attention: bool = False, seqs: int = 3, **options: Any) -> tuple[Any, Tokens, CAFT]:
    """A model with heads, some rows of targets everywhere after the second token, and the method."""
    method = CAFT(**options)
    model = open_base(folder, plain_attention=plain_attention)
    device = torch.device("cpu")
    ctx = Context(seed=0, device=device, tokenizer=open_tokenizer(folder), limit=512, precision="fp32")
    ctx.enter(Stage("tune"), (method,))
    ctx.model = Heads(method.params).wrap(model, ctx)
    g = torch.Generator().manual_seed(0)
    rows = []
    for i in range(seqs):
        ids = torch.randint(4, 260, (12 + 2 * i,), generator=g).tolist()
        rows.append(Seq(ids=tuple(ids), targets=(NO_TARGET, *ids[2:], NO_TARGET), row=str(i)))
    return ctx, Tokens(ctx, rows, model), method


# --- closed form ----------------------------------------------------------------------------------------------------
def test_the_worked_example_of_the_schedule() -> None:
    ce = [2, 3, 3.5, 4, 4.2]
    for step, wanted in ((0, 2.0840832), (50, 2.0594558), (100, 2.0)):
        weight = CAFT().alpha * strength(CAFT().schedule, step / 100)
        total = ce[0] + weight * sum(CAFT().beta ** k * ce[k] for k in range(1, 5))
        assert total == pytest.approx(wanted, abs=1e-7)
    assert [strength(s, 0.25) for s in ("linear", "sine", "constant")] == [0.25, math.sin(math.pi / 8), 1.0]


def test_the_terms_of_a_step_are_scaled_by_alpha_g_and_beta(tiny_model: Path) -> None:
    ctx, tok, method = opened(tiny_model, alpha=0.5)
    ctx.progress = 0.5
    terms = method.auxiliary(tok, ctx)
    assert list(terms) == ["ahead1", "ahead2", "ahead3", "ahead4"]
    weight = 0.5 * math.sin(math.pi / 4)
    assert [t.scale for t in terms.values()] == pytest.approx([weight * 0.8**k for k in (1, 2, 3, 4)])
    ctx.progress = 1.0
    assert method.auxiliary(tok, ctx) == {}


@pytest.mark.parametrize("head_input", ["penultimate", "release"])
def test_each_term_is_the_mean_over_targets_one_plus_k_places_ahead(tiny_model: Path, head_input: str) -> None:
    """Against logits of the whole batch and a shift of the labels, as the release computes it; and an untrained head
    that replaces the last layer is the last layer but one."""
    ctx, tok, method = opened(tiny_model, head_input=head_input)
    model, ids = ctx.model, tok.batch.ids
    labels = torch.full_like(ids, NO_TARGET)
    labels[:, 1:] = tok.batch.targets[:, :-1]
    out = model.base_model(input_ids=ids, output_hidden_states=True, use_cache=False)
    assert torch.allclose(model.base_model.norm(out.hidden_states[-2]), out.last_hidden_state) is False
    places = torch.arange(ids.shape[1])[None]
    rotary = model.base_model.rotary_emb(ids.float(), places)
    mask = torch.ones(1, 1, ids.shape[1], ids.shape[1], dtype=torch.bool).tril()
    for tuning in (False, True):
        release = head_input == "release"
        states = out.last_hidden_state if release and tuning else out.hidden_states[-2]
        said = model.base_model.layers[-2](states, attention_mask=mask, position_embeddings=rotary)
        logits = model.lm_head(said if release else model.base_model.norm(said))
        for k, term in enumerate(ahead(tok, ctx, method.params, tuning=tuning), 1):
            theirs = F.cross_entropy(logits[:, : -(1 + k)].flatten(0, 1), labels[:, 1 + k :].flatten())
            assert mean(term) == pytest.approx(theirs.item(), abs=1e-5)
            assert int(term.count.sum()) == int((labels[:, 1 + k :] != NO_TARGET).sum())


def test_a_head_that_copies_the_gold_token_at_its_own_distance_has_no_loss_and_the_others_do() -> None:
    """The head's states are one-hot of the token 1 + k places ahead, and the output layer reads them as logits."""
    ids = tuple(torch.randint(4, 30, (14,), generator=torch.Generator().manual_seed(0)).tolist())
    seq = Seq(ids=ids, targets=(*ids[1:], NO_TARGET), row="a")
    batch = make_batch([seq], torch.device("cpu"))

    class Copies(nn.Module):
        def __init__(self, gold: int) -> None:
            super().__init__()
            self.self_attn, self.gold = nn.Identity(), gold

        def forward(self, states: Tensor, **options: Any) -> Tensor:
            return 50 * F.one_hot(batch.ids.roll(-(1 + self.gold), dims=1), 32).float()

    out = nn.Linear(32, 32, bias=False)
    out.weight = nn.Parameter(torch.eye(32))
    body = SimpleNamespace(norm=nn.Identity(), rotary_emb=lambda states, places: None)
    for gold in (1, 2, 3):
        model = SimpleNamespace(
            caft=[Copies(gold)] * 4, base_model=body, config=SimpleNamespace(_attn_implementation="sdpa")
        )
        model.get_output_embeddings = lambda: out
        ctx = Context(seed=0, device=torch.device("cpu"), tokenizer=None, limit=99, precision="fp32")
        ctx.model = model  # type: ignore[assignment]
        tok = Tokens(ctx, [seq], nn.Identity())
        states = torch.zeros(1, len(ids), 32)
        tok._kept["out"] = SimpleNamespace(hidden=states, head=out, states=[states] * 3)
        means = [mean(t) for t in ahead(tok, ctx, CAFT().params, tuning=True)]
        assert [m < 1e-3 for m in means] == [k == gold for k in (1, 2, 3, 4)]
        assert all(m > 5 for k, m in enumerate(means, 1) if k != gold)


def test_a_sequence_too_short_for_a_head_counts_nothing_and_is_a_number(tiny_model: Path) -> None:
    ctx, _, method = opened(tiny_model)
    tok = Tokens(ctx, [Seq(ids=(5, 6, 7), targets=(6, 7, NO_TARGET), row="short")], ctx.model)
    terms = ahead(tok, ctx, method.params, tuning=True)
    assert [t.count.sum().item() for t in terms if t.count is not None] == [1, 0, 0, 0]
    assert [float(t.value.detach().sum()) == 0 for t in terms] == [False, True, True, True]


# --- heads ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("plain_attention", [False, True], ids=["sdpa", "eager"])
def test_a_head_sees_no_later_token(tiny_model: Path, plain_attention: bool) -> None:
    ctx, tok, _ = opened(tiny_model, plain_attention=plain_attention, seqs=1)
    outs = []
    for ids in (tok.seqs[0].ids, (*tok.seqs[0].ids[:6], 9, *tok.seqs[0].ids[7:])):
        again = Tokens(ctx, [tok.seqs[0].but(ids=ids)], ctx.model)
        outs.append(run_head(ctx.model, 0, again.out.states[-2], again.batch))
    assert torch.allclose(outs[0][:, :6], outs[1][:, :6], rtol=0, atol=1e-6)
    assert not torch.allclose(outs[0][:, 6:], outs[1][:, 6:], rtol=0, atol=1e-3)


def test_neither_kernel_nor_padding_changes_a_head(tiny_model: Path) -> None:
    values = []
    for plain in (False, True):
        ctx, tok, method = opened(tiny_model, plain_attention=plain)
        whole = [t.value for t in ahead(tok, ctx, method.params, tuning=True)]
        alone = [ahead(Tokens(ctx, [q], ctx.model), ctx, method.params, tuning=True) for q in tok.seqs]
        parts = [torch.cat([a[k].value for a in alone]) for k in range(method.n)]
        assert all(torch.allclose(w, p, rtol=0, atol=1e-5) for w, p in zip(whole, parts, strict=True))
        values.append(whole)
    assert all(torch.allclose(a, b, rtol=0, atol=1e-4) for a, b in zip(*values, strict=True))


def test_the_output_layer_is_trained_by_the_heads_only_if_asked(tiny_model: Path) -> None:
    grads = {}
    for unembedding in ("detach", "train"):
        ctx, tok, method = opened(tiny_model, unembedding=unembedding)
        # the states are cut off, so that what is left is the output layer's own gradient
        tok.out.states = tuple(s.detach() for s in tok.out.states)
        total = sum(t.value.sum() for t in ahead(tok, ctx, method.params, tuning=True))
        (grads[unembedding],) = torch.autograd.grad(total, [ctx.model.lm_head.weight], allow_unused=True)
    assert grads["detach"] is None
    assert grads["train"].abs().max() > 0


def test_a_model_that_gives_no_layer_to_copy_is_refused(tiny_model: Path) -> None:
    ctx, _, method = opened(tiny_model)
    model: Any = open_base(tiny_model)
    model.base_model.layers = model.base_model.layers[:1]
    with pytest.raises(Refused, match="this model has one layer"):
        Heads(method.params).wrap(model, ctx)
    del model.base_model.rotary_emb
    with pytest.raises(Refused, match="rotary positions, and `llama` models have none"):
        Heads(method.params).wrap(model, ctx)


# --- gradients ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("part", ["caft.", "model.layers."], ids=["heads", "tune"])
def test_the_gradient_is_that_of_the_objective(tiny_model: Path, part: str) -> None:
    """Along the gradient the sum of all terms rises by its norm: of the heads' own loss in the heads, and of the whole
    in the trunk. The tied embeddings stay where they are: their gradient leaves the heads' use of them out."""
    ctx, tok, method = opened(tiny_model, alpha=1.0)
    model = ctx.model.double()

    def loss() -> Tensor:
        now = Tokens(ctx, tok.seqs, model)
        if part == "caft.":
            terms = HeadsAlone(method.params).loss(now, ctx)
        else:
            terms = {"loss": Term(-now.logp, torch.ones(len(now.ids)))} | method.auxiliary(now, ctx)
        return sum((t.scale * t.value.sum() / t.count.sum() for t in terms.values()), torch.zeros(()))  # type: ignore[union-attr]

    some = [p for n, p in model.named_parameters() if n.startswith(part)]
    gradients = torch.autograd.grad(loss(), some)
    norm, values = float(torch.nn.utils.get_total_norm(gradients)), []
    with torch.no_grad():
        for distance in (1e-3, -2e-3):
            torch._foreach_add_(some, gradients, alpha=distance / norm)
            values.append(loss().item())
    assert (values[0] - values[1]) / 2e-3 == pytest.approx(norm, rel=1e-3)
