"""Published methods of several families run on the host unchanged, which shows that the seam fits them.

They are test-only: what is checked is the host (hooks, pools, stages, frozen models, nested gradients), by the numbers
that their papers or closed forms give.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.methods.base import Method, Stage, Term
from harness.methods.lora import LoRA
from harness.training.adapters import make
from tests.training import Watch, make_rows, train


class RowMean(Method):
    name, norm = "row-mean", "rows"


# --- sampled objective ----------------------------------------------------------------------------------------------
class OneTokenRollout(Method):
    """OTR, arXiv 2509.26313: sample next tokens at each gold prefix, reward agreement with the gold token."""

    name, norm = "otr", "rows"
    k, kappa, beta = 8, 1.3, -0.1
    gold = False

    def loss(self, tok: Any, ctx: Any) -> Tensor:
        def one(z: Tensor, x: Tensor) -> Tensor:
            cold = (z.detach() / self.kappa).softmax(-1)
            drawn = torch.multinomial(cold, self.k, replacement=True, generator=ctx.rng("otr"))
            drawn = x[:, None].expand(-1, self.k) if self.gold else drawn
            reward = torch.where(drawn == x[:, None], 1.0, self.beta)
            return -(reward * z.log_softmax(-1).gather(-1, drawn)).mean(-1)

        return tok.vocab(one)


def test_one_token_rollout_is_its_closed_form(monkeypatch: pytest.MonkeyPatch) -> None:
    """V = 3, K = 4, draws 0, 1, 1, 2 at gold 1: loss 0.633423 and its gradient."""

    class Three:
        logits = torch.tensor([[1.0, 0.0, -1.0]], requires_grad=True)

        def vocab(self, f: Any) -> Tensor:
            return f(self.logits, torch.tensor([1]))

    class Clock:
        def rng(self, purpose: str) -> None:
            return None

    monkeypatch.setattr(torch, "multinomial", lambda *args, **options: torch.tensor([[0, 1, 1, 2]]))
    method, tok = OneTokenRollout(), Three()
    method.k = 4
    loss = method.loss(tok, Clock())
    loss.sum().backward()
    assert loss.item() == pytest.approx(0.633423, abs=1e-6)
    assert tok.logits.grad is not None
    assert tok.logits.grad[0].tolist() == pytest.approx([0.324358, -0.389872, 0.065514], abs=1e-6)


def test_one_token_rollout_that_samples_the_gold_token_is_sft_over_rows(tmp_path: Path, tiny_model: Path) -> None:
    method = OneTokenRollout()
    method.gold = True
    a = train(tmp_path / "a", tiny_model, method, steps=20)
    b = train(tmp_path / "b", tiny_model, RowMean(), steps=20)
    assert a.losses == pytest.approx(b.losses, abs=1e-5)


def test_draws_belong_to_rows_so_neither_layout_nor_recomputation_changes_them(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With slices of 16 every slice is recomputed in the backward pass; another draw there would show as a gradient
    that differs between layouts."""
    from harness.training import tokens

    runs = []
    monkeypatch.setattr(tokens, "SLICE", 16)
    for micro in (4, 1):
        watch = Watch()
        done = train(tmp_path / str(micro), tiny_model, OneTokenRollout(), watch, micro_batch=micro)
        runs.append((done.losses, watch.gradients[0]))
    assert runs[0][0] == pytest.approx(runs[1][0], abs=1e-6)
    assert all(torch.allclose(g, runs[1][1][n], rtol=0, atol=1e-6) for n, g in runs[0][1].items())


# --- joint pruning of rows and tokens -------------------------------------------------------------------------------
class QTuning(Method):
    """Q-Tuning, arXiv 2509.23873: keep the confidently wrong and the unsure rows; trim noisy tokens of the former."""

    name, pool = "q-tuning", 8

    def __init__(self, rows: float = 0.25, tokens: float = 0.7, lam: float = 0.5, pool: int = 8) -> None:
        super().__init__()
        self.rows, self.tokens, self.lam, self.pool = rows, tokens, lam, pool

    def pick(self, tok: Any, ctx: Any) -> Tensor:
        nll = -tok.logp
        return self.weights(nll.exp(), tok.row_mean(nll).exp(), tok.row_mean(tok.entropy), tok.row)

    def weights(self, p: Tensor, ppl: Tensor, ent: Tensor, row: Tensor) -> Tensor:
        def at(x: Tensor, g: float) -> Tensor:
            return x.sort().values[math.ceil(g * len(x)) - 1]

        def hat(x: Tensor) -> Tensor:
            return (x - x.min()) / (x.max() - x.min()).clamp(min=1e-9)

        lo, hi = 0.0, 0.49
        for _ in range(10):
            g = (lo + hi) / 2
            wrong = (ppl >= at(ppl, 1 - g)) & (ent <= at(ent, g))
            unsure = (ppl <= at(ppl, g)) & (ent >= at(ent, 1 - g))
            lo, hi = (g, hi) if (wrong | unsure).float().mean() < self.rows else (lo, g)
        lean, weights = hat(ppl) - hat(ent), torch.zeros(len(row))
        order = (lean.abs() + 9 * (wrong | unsure)).argsort(descending=True, stable=True)
        for r in order[: max(1, int(self.rows * len(ppl)))]:
            i = (row == r).nonzero()[:, 0]
            weights[i] = self.trim(p[i]) if wrong[r] or (lean[r] >= 0 and not unsure[r]) else 1.0
        return weights

    def trim(self, p: Tensor) -> Tensor:
        around = torch.cat([p[:1], p[:-1]]) + torch.cat([p[1:], p[-1:]])
        score = (1 - self.lam) * p + self.lam * around
        return torch.zeros_like(p).index_fill(0, score.argsort(stable=True)[: max(1, int(self.tokens * len(p)))], 1.0)


def test_q_tuning_keeps_the_tokens_and_rows_of_its_worked_examples() -> None:
    p = torch.tensor([1.2, 9, 8, 1.1, 1, 6, 1.3, 1.2])
    assert QTuning(tokens=0.5).trim(p).nonzero()[:, 0].tolist() == [4, 5, 6, 7]
    ppl = torch.tensor([2.0, 3, 4, 8, 9, 12, 20, 30])
    ent = torch.tensor([1.0, 2.5, 1.2, 0.9, 2.8, 2.9, 1.1, 3.0])
    kept = QTuning(tokens=1.0).weights(torch.ones(8), ppl, ent, torch.arange(8))
    assert kept.nonzero()[:, 0].tolist() == [1, 6]


def test_q_tuning_that_keeps_everything_is_sft(tmp_path: Path, tiny_model: Path) -> None:
    a = train(tmp_path / "a", tiny_model, QTuning(rows=1.0, tokens=1.0, pool=4), steps=20)
    b = train(tmp_path / "b", tiny_model, steps=20)
    assert a.losses == b.losses


def test_q_tuning_fills_batches_from_pools_and_bills_the_scoring(tmp_path: Path, tiny_model: Path) -> None:
    watch = Watch()
    done = train(tmp_path, tiny_model, LoRA(r=2), QTuning(), watch, steps=3)
    assert all(len(b.seqs) == 4 for b in watch.batches)
    assert [len(rows) for rows in watch.rows] == [8] * 6
    cost = done.result.cost
    assert cost["extra_forward_tokens"]["live"] > 2 * cost["trained_tokens"]
    assert cost["loss_tokens"] < sum(int((b.targets != -100).sum()) for b in watch.batches)


# --- representation edits in two stages -----------------------------------------------------------------------------
def spread(o: Any) -> Tensor:
    return torch.zeros(o.in_features // o.edit.shape[1], o.edit.shape[1]).index_add(0, o.heads, o.edit).flatten()


class LoFiT(Method):
    """LoFiT, arXiv 2406.01563: choose attention heads by learned scales, then learn one offset for each."""

    name, freeze = "lofit", True
    k, l1 = 3, 5e-4

    def stages(self, ctx: Any) -> list[Stage]:
        return [Stage("scales"), Stage("offsets")]

    def layers(self, model: Any) -> list[Any]:
        return [block.self_attn.o_proj for block in model.model.layers]

    def wrap(self, model: Any, ctx: Any) -> Any:
        scales, heads = ctx.stage.name == "scales", model.config.num_attention_heads
        for index, o in enumerate(self.layers(model)):
            o.heads = torch.tensor([h for h in range(heads) if scales or (index, h) in ctx.memory["heads"]])
            o.heads = o.heads.long()
            shape = (len(o.heads), o.in_features // heads)
            o.edit = nn.Parameter(1e-3 * torch.randn(shape, generator=ctx.rng(f"lofit{index}")))
            edit = (lambda m, z: (z[0] * (1 + spread(m)),)) if scales else (lambda m, z: (z[0] + spread(m),))
            o.hook = o.register_forward_pre_hook(edit)
        return model

    def auxiliary(self, tok: Any, ctx: Any) -> dict[str, Term]:
        if ctx.stage.name == "offsets":
            return {}
        return {"l1": Term(sum(o.edit.abs().sum() for o in self.layers(ctx.model))[None], scale=self.l1)}

    def after_stage(self, model: Any, ctx: Any) -> None:
        pairs = [(i, o) for i, o in enumerate(self.layers(model))]
        size = {(i, int(h)): float(e.norm()) for i, o in pairs for h, e in zip(o.heads, o.edit.detach(), strict=True)}
        if ctx.stage.name == "scales":
            ctx.memory["heads"] = sorted(size, key=lambda at: size[at])[-self.k :]
        with torch.no_grad():
            self.logits = model(input_ids=torch.arange(5, 25)[None]).logits

    def unwrap(self, model: Any, ctx: Any) -> Any:
        for o in self.layers(model):
            o.hook.remove()
            o.bias = nn.Parameter((o.weight @ spread(o)).detach())
            del o.edit
        self.unwrapped = model(input_ids=torch.arange(5, 25)[None]).logits.detach()
        return model


def test_lofit_carries_its_choice_of_heads_to_the_second_stage_and_bakes(tmp_path: Path, tiny_model: Path) -> None:
    first = train(tmp_path / "1", tiny_model, LoFiT(), micro_batch=2, steps=6)
    assert {"l1", "loss"} <= set(first.curve[0])
    method, watch = LoFiT(), Watch()
    second = train(
        tmp_path / "2", tiny_model, method, watch, stage=1, steps=6, done={"scales": first.work / "artifact"}
    )
    assert sum(g.shape[0] for g in watch.gradients[0].values()) == LoFiT.k
    assert all(n.endswith("edit") for n in watch.gradients[0])
    assert (method.unwrapped - method.logits).abs().max() < 1e-6
    assert json.loads((second.work / "artifact" / "artifact.json").read_text())["kind"] == "full"


# --- reference models, pairs, and gradients inside a hook -----------------------------------------------------------
class DPO(Method):
    """arXiv 2305.18290, on pairs, against the frozen base."""

    name, needs, beta = "dpo", frozenset({"ref", "pairs"}), 0.5

    def loss(self, tok: Any, ctx: Any) -> Term:
        gain = tok.logp - tok.ref.logp
        margin = tok.view("chosen").row_sum(gain) - tok.view("rejected").row_sum(gain)
        return Term(-F.logsigmoid(self.beta * margin))


def pairs() -> list[dict[str, Any]]:
    return [
        {
            "id": row["id"],
            "chosen": row["messages"],
            "rejected": [row["messages"][0], {"role": "assistant", "content": "no"}],
        }
        for row in make_rows(8)
    ]


def test_dpo_starts_at_log_two_and_falls_whatever_the_layout(tmp_path: Path, tiny_model: Path) -> None:
    whole = train(tmp_path / "4", tiny_model, DPO(), rows=pairs(), steps=4)
    parts = train(tmp_path / "1", tiny_model, DPO(), rows=pairs(), steps=4, micro_batch=1)
    assert whole.losses[0] == pytest.approx(math.log(2), abs=1e-6)
    assert whole.losses[-1] < whole.losses[0]
    assert parts.losses == pytest.approx(whole.losses, abs=1e-5)
    assert whole.result.cost["extra_forward_tokens"]["base"] == whole.result.cost["trained_tokens"]


class MetaWeights(Method):
    """The re-weighting of LiST, arXiv 2110.06274: rows weigh by how well their gradient agrees with that of others."""

    name, needs = "meta-weights", frozenset({"double_backward"})

    def loss(self, tok: Any, ctx: Any) -> Term:
        each = tok.row_mean(-tok.logp)
        other = ctx.forward(ctx.draw("held", tok.R))
        eps = torch.zeros_like(each, requires_grad=True)
        held = ctx.grad(other.row_mean(-other.logp).mean(), ctx.trainable)
        pull = ctx.grad((eps * each).sum(), ctx.trainable, create_graph=True)
        weights = ctx.grad(sum((a * b).sum() for a, b in zip(held, pull, strict=True)), [eps])[0].relu()
        return Term(weights * each, weights)


def test_gradients_inside_a_hook_and_a_second_stream_of_rows(tmp_path: Path, tiny_model: Path) -> None:
    sets = {"train": make_rows(16), "held": make_rows(24)[16:]}
    whole = train(tmp_path / "4", tiny_model, MetaWeights(), sets=sets, steps=4)
    assert whole.losses[-1] < whole.losses[0]
    cost = whole.result.cost
    assert cost["extra_backwards"] == 12
    assert cost["extra_forward_tokens"]["live"] > 0


# --- tokens and embeddings ------------------------------------------------------------------------------------------
class Masking(Method):
    """MFT, arXiv 2403.02178: some tokens of the answer are hidden from the model, not from the loss."""

    name = "masking"

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def collate(self, seqs: Any, ctx: Any) -> Any:
        out = []
        for q in seqs:
            hide = torch.rand(len(q.ids), generator=ctx.rng("mask", q.row)) < self.p
            answer = [False, *(t != -100 for t in q.targets[:-1])]
            ids = [3 if a and h else i for i, a, h in zip(q.ids, answer, hide.tolist(), strict=True)]
            out.append(q.but(ids=tuple(ids)))
        return out


class Noise(Method):
    """NEFTune, arXiv 2310.05914: uniform noise on the embeddings."""

    name = "noise"

    def __init__(self, alpha: float) -> None:
        super().__init__()
        self.alpha = alpha

    def on_embeddings(self, emb: Tensor, batch: Any, ctx: Any) -> Tensor:
        noise = [2 * torch.rand(emb.shape[1:], generator=ctx.rng("noise", q.row)) - 1 for q in batch.seqs]
        return emb + torch.stack(noise) * self.alpha / (batch.lengths[:, None, None] * emb.shape[-1]).sqrt()


def test_no_masking_and_no_noise_is_sft_and_some_is_not(tmp_path: Path, tiny_model: Path) -> None:
    plain = train(tmp_path / "a", tiny_model, steps=5)
    assert train(tmp_path / "b", tiny_model, Masking(0.0), Noise(0.0), steps=5).losses == plain.losses
    some = [train(tmp_path / n, tiny_model, Masking(0.3), Noise(5.0), steps=5).losses for n in "cd"]
    assert some[0] == some[1] != plain.losses


class HideFuture(Method):
    """Sequences that bring their own positions and mask: the plain causal ones, written out."""

    name = "own-mask"

    def collate(self, seqs: Any, ctx: Any) -> Any:
        return [
            q.but(positions=tuple(range(len(q.ids))), mask=torch.ones(len(q.ids), len(q.ids)).tril().bool())
            for q in seqs
        ]


def test_a_mask_of_ones_own_that_is_causal_changes_nothing(tmp_path: Path, tiny_model: Path) -> None:
    a, b = (train(tmp_path / n, tiny_model, *s, steps=3) for n, s in (("a", ()), ("b", (HideFuture(),))))
    assert a.losses == pytest.approx(b.losses, abs=1e-5)


def test_prompt_reaches_the_conversations_that_are_trained_on(tmp_path: Path, tiny_model: Path) -> None:
    class Prefix(Method):
        name = "prefix"

        def prompt(self, request: Any, ctx: Any) -> Any:
            return request.but(messages=({"role": "system", "content": "Be brief."}, *request.messages))

    watch = Watch()
    train(tmp_path, tiny_model, Prefix(), watch, steps=1)
    from harness.training.opening import open_tokenizer

    assert "Be brief." in open_tokenizer(tiny_model).decode(watch.batches[0].ids[0])


def test_the_native_trainer_accepts_all_of_these() -> None:
    for method in (OneTokenRollout(), QTuning(), LoFiT(), DPO(), MetaWeights(), Masking(0.1), Noise(1.0)):
        make("native").check((method,))
