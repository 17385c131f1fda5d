"""The host's loop: what a step computes, and what cannot change it."""

from __future__ import annotations

import math
import shutil
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from harness import methods
from harness.errors import HarnessError, Refused
from harness.matrix import Budget, TrainSettings
from harness.methods.base import Method, Term
from harness.methods.dft import DFT
from harness.methods.sft import SFT
from harness.training import tokens as tokens_module
from harness.training.adapters import TrainTask, make
from tests.training import Watch, make_rows, offer_methods, train, write_rows


class Weighted(Method):
    """DFT's form with its weight replaced by one."""

    name = "weighted"

    def loss(self, tok: Any, ctx: Any) -> Tensor:
        return -torch.ones_like(tok.logp) * tok.logp


def same_gradients(a: list[dict[str, Tensor]], b: list[dict[str, Tensor]], tolerance: float) -> bool:
    pairs = zip(a, b, strict=True)
    return all(torch.allclose(x[n], y[n], rtol=0, atol=tolerance) for x, y in pairs for n in x)


# --- identity and the plain loop ------------------------------------------------------------------------------------
def test_a_weight_of_one_is_sft_bit_for_bit_over_twenty_steps(tmp_path: Path, tiny_model: Path) -> None:
    mine, plain = Watch(), Watch()
    a = train(tmp_path / "a", tiny_model, Weighted(), mine, steps=20)
    b = train(tmp_path / "b", tiny_model, SFT(), plain, steps=20)
    assert a.losses == b.losses
    assert same_gradients(mine.gradients, plain.gradients, 0.0)


def test_sft_is_the_plain_torch_loop(tmp_path: Path, tiny_model: Path) -> None:
    """Full logits, F.cross_entropy, clipping, AdamW and a linear schedule, written with nothing of ours."""
    from transformers import AutoModelForCausalLM

    watch = Watch()
    ours = train(tmp_path, tiny_model, watch, SFT(), steps=6, weight_decay=0.01, warmup=0.5)
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    decayed = [[p for p in model.parameters() if (p.ndim > 1) is on] for on in (True, False)]
    groups = [{"params": decayed[0], "weight_decay": 0.01}, {"params": decayed[1], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3)
    losses = []
    for step, batch in enumerate(watch.batches):
        seen = (torch.arange(batch.ids.shape[1])[None] < batch.lengths[:, None]).long()
        logits = model(input_ids=batch.ids, attention_mask=seen).logits
        loss = F.cross_entropy(logits.flatten(0, 1), batch.targets.flatten(), ignore_index=-100)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * [1 / 3, 2 / 3, 1, 1, 2 / 3, 1 / 3][step]
        optimizer.step()
        losses.append(loss.item())
    assert ours.losses == pytest.approx(losses, abs=1e-5)
    assert all(torch.allclose(p, watch.final[n], atol=1e-5) for n, p in model.named_parameters())


def test_dft_on_three_words_is_its_closed_form() -> None:
    """p = softmax(1, 0, -1), gold 1: loss -p log p, gradient p (softmax - onehot)."""

    class Three:
        logits = torch.tensor([[1.0, 0.0, -1.0]], requires_grad=True)

        @property
        def logp(self) -> Tensor:
            return self.logits.log_softmax(-1)[:, 1]

    tok: Any = Three()
    loss = DFT().loss(tok, None)  # type: ignore[arg-type]
    loss.sum().backward()
    p = [math.exp(z) / (math.e + 1 + 1 / math.e) for z in (1, 0, -1)]
    assert loss.item() == pytest.approx(-p[1] * math.log(p[1]), abs=1e-6)
    assert tok.logits.grad[0].tolist() == pytest.approx([p[1] * p[0], p[1] * (p[1] - 1), p[1] * p[2]], abs=1e-6)


def test_the_gradient_of_dft_is_that_of_the_loss_with_its_weights_held(tmp_path: Path, tiny_model: Path) -> None:
    """Along the gradient the loss rises by its norm, if the probabilities that weigh it stay as they were."""
    from transformers import AutoModelForCausalLM

    watch = Watch()
    train(tmp_path, tiny_model, DFT(), watch, steps=1)
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    batch, gradient = watch.batches[0], watch.gradients[0]
    norm = float(torch.nn.utils.get_total_norm(gradient.values()))
    keep = batch.targets != -100

    def logp() -> Tensor:
        logits = model(input_ids=batch.ids).logits.double()
        return logits.log_softmax(-1)[keep].gather(-1, batch.targets[keep][:, None])[:, 0]

    def loss_at(distance: float) -> float:
        for name, p in model.named_parameters():
            p += distance * gradient[name] / norm
        value = float(-(held * logp()).mean())
        for name, p in model.named_parameters():
            p -= distance * gradient[name] / norm
        return value

    with torch.no_grad():
        held = logp().exp()
        assert (loss_at(1e-2) - loss_at(-1e-2)) / 2e-2 == pytest.approx(norm, rel=1e-2)


# --- layout ---------------------------------------------------------------------------------------------------------
class LateCount(Method):
    """Two terms, one of them with a count that is known only after the forward pass."""

    name = "late-count"

    def token_weight(self, tok: Any, ctx: Any) -> Tensor:
        return (tok.logp < -5.5).float()

    def auxiliary(self, tok: Any, ctx: Any) -> dict[str, Term]:
        return {"entropy": Term(tok.entropy, scale=0.1)}


class Late(LateCount):
    """The same with a single term."""

    def auxiliary(self, tok: Any, ctx: Any) -> dict[str, Term]:
        return {}


class Rows(Method):
    name, norm = "rows", "rows"


@pytest.mark.parametrize("method", [SFT, DFT, LateCount, Late, Rows], ids=lambda m: m.__name__)
def test_accumulation_cannot_change_the_answer(tmp_path: Path, tiny_model: Path, method: type[Method]) -> None:
    runs = {}
    for micro in (4, 2, 1):
        watch = Watch()
        runs[micro] = train(tmp_path / str(micro), tiny_model, method(), watch, steps=3, micro_batch=micro), watch
    whole, first = runs[4]
    for micro in (2, 1):
        part, watch = runs[micro]
        assert part.losses == pytest.approx(whole.losses, abs=1e-6)
        assert same_gradients(watch.gradients[:1], first.gradients[:1], 3e-7)
        assert same_gradients(watch.gradients, first.gradients, 3e-6)  # Adam enlarges the rounding of earlier steps


def test_two_members_cannot_give_one_name_to_two_terms(tmp_path: Path, tiny_model: Path) -> None:
    class Same(LateCount):
        name = "same"

    with pytest.raises(HarnessError, match="`same` adds a term `entropy` to the loss"):
        train(tmp_path, tiny_model, SFT(), LateCount(), Same(), steps=1)


def test_slicing_the_vocabulary_cannot_change_the_answer(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, sliced = Watch(), Watch()
    a = train(tmp_path / "a", tiny_model, DFT(), whole)
    monkeypatch.setattr(tokens_module, "SLICE", 16)
    b = train(tmp_path / "b", tiny_model, DFT(), sliced)
    assert b.losses == pytest.approx(a.losses, abs=1e-6)
    assert same_gradients(whole.gradients, sliced.gradients, 1e-6)


def test_full_logits_never_exist(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest output of the head stays within a slice, although the batch has many more positions."""
    monkeypatch.setattr(tokens_module, "SLICE", 16)
    sizes: list[int] = []

    class Spy(Method):
        name = "spy"

        def wrap(self, model: Any, ctx: Any) -> Any:
            model.lm_head.register_forward_hook(lambda m, x, y: sizes.append(y.numel() // y.shape[-1]))
            return model

    watch = Watch()
    train(tmp_path, tiny_model, Spy(), watch, steps=1)
    assert len(sizes) > 3
    assert max(sizes) <= 16 < watch.batches[0].ids.numel() / 4


def test_what_stands_in_the_padding_does_not_matter(tmp_path: Path, tiny_model: Path) -> None:
    """A batch's loss is the mean over the tokens of its rows, each run alone and unpadded."""
    from transformers import AutoModelForCausalLM

    watch = Watch()
    done = train(tmp_path, tiny_model, watch, SFT(), steps=1, rows=make_rows(4))
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    batch = watch.batches[0]
    assert len(set(batch.lengths.tolist())) > 1
    total, count = 0.0, 0
    for ids, targets, n in zip(batch.ids, batch.targets, batch.lengths, strict=True):
        logits = model(input_ids=ids[None, :n]).logits[0]
        total += float(F.cross_entropy(logits, targets[:n], ignore_index=-100, reduction="sum").detach())
        count += int((targets != -100).sum())
    assert done.losses[0] == pytest.approx(total / count, abs=1e-5)


# --- selection and weights ------------------------------------------------------------------------------------------
class EveryOther(Method):
    """Keeps the rows at even places of what is offered."""

    name, pool = "every-other", 4

    def pick(self, tok: Any, ctx: Any) -> Tensor:
        return torch.arange(tok.R).remainder(2).eq(0).float()


def test_what_pick_drops_is_refilled_and_not_billed(tmp_path: Path, tiny_model: Path) -> None:
    watch = Watch()
    done = train(tmp_path, tiny_model, EveryOther(), watch, steps=2)
    offered = [row for rows in watch.rows[:2] for row in rows]
    trained = [q.row for q in watch.batches[0].seqs]
    assert trained == offered[::2]
    assert len(trained) == 4
    lengths = sum(int(b.lengths.sum()) for b in watch.batches)
    assert done.result.cost["trained_tokens"] == lengths
    assert done.result.cost["extra_forward_tokens"] == {}  # this pick reads nothing, so nothing was run


def test_a_pick_that_reads_the_model_is_billed(tmp_path: Path, tiny_model: Path) -> None:
    class ByLoss(EveryOther):
        def pick(self, tok: Any, ctx: Any) -> Tensor:
            assert not tok.logp.requires_grad
            return (tok.row_mean(tok.logp) > -100).float()

    cost = train(tmp_path, tiny_model, ByLoss(), steps=2).result.cost
    assert cost["extra_forward_tokens"] == {"live": cost["trained_tokens"]}


def test_a_pick_that_keeps_nothing_is_named(tmp_path: Path, tiny_model: Path) -> None:
    class Nobody(EveryOther):
        def pick(self, tok: Any, ctx: Any) -> Tensor:
            return torch.zeros(tok.R)

    with pytest.raises(HarnessError, match="`every-other` kept none of"):
        train(tmp_path, tiny_model, Nobody())


def test_with_pick_the_token_budget_is_met_by_what_was_trained(tmp_path: Path, tiny_model: Path) -> None:
    done = train(tmp_path, tiny_model, EveryOther(), budget=Budget(tokens=600))
    sizes = [b["tokens"] - a["tokens"] for a, b in zip(done.curve, done.curve[1:], strict=False)]
    assert 600 <= done.curve[-1]["tokens"] < 600 + max(sizes)


def test_tokens_of_weight_zero_carry_no_loss_and_do_not_count(tmp_path: Path, tiny_model: Path) -> None:
    class FirstOnly(Method):
        name = "first-only"

        def token_weight(self, tok: Any, ctx: Any) -> Tensor:
            assert not tok.logp.requires_grad
            return torch.cat([torch.ones(1), (tok.row[1:] != tok.row[:-1]).float()])

    done = train(tmp_path / "a", tiny_model, FirstOnly(), steps=1, rows=make_rows(4))
    assert done.result.cost["loss_tokens"] == 4

    class ByHand(Method):
        name = "by-hand"

        def loss(self, tok: Any, ctx: Any) -> Term:
            first = torch.cat([torch.ones(1), (tok.row[1:] != tok.row[:-1]).float()])
            return Term(-tok.logp * first, first)

    assert train(tmp_path / "b", tiny_model, ByHand(), steps=1, rows=make_rows(4)).losses == done.losses


def test_weights_that_a_loss_ignores_are_refused(tmp_path: Path, tiny_model: Path) -> None:
    class Half(Method):
        name = "half"

        def token_weight(self, tok: Any, ctx: Any) -> Tensor:
            return torch.full((len(tok.row),), 0.5)

    class Own(Method):
        name = "own"

        def loss(self, tok: Any, ctx: Any) -> Term:
            return Term(-tok.logp)

    with pytest.raises(Refused, match="`own` computes its own mean and ignores the token weights"):
        train(tmp_path, tiny_model, Half(), Own())


# --- budget, errors, divergence -------------------------------------------------------------------------------------
def test_the_token_budget_is_overrun_by_less_than_a_step_and_the_schedule_ends_with_it(
    tmp_path: Path, tiny_model: Path
) -> None:
    done = train(tmp_path, tiny_model, budget=Budget(tokens=1500))
    before, last = done.curve[-2], done.curve[-1]
    assert before["tokens"] < 1500 <= last["tokens"]
    assert done.curve[-1]["lr"] < done.curve[len(done.curve) // 2]["lr"] / 2
    cost = done.result.cost
    assert cost["trained_tokens"] == last["tokens"] > cost["loss_tokens"] > 0
    assert cost["flops"] > 0
    assert cost["trainable_parameters"] == sum(p.numel() for p in _parameters(tiny_model))
    assert set(cost["seconds"]) >= {"open", "forward", "backward", "optimizer", "save"}
    assert all(size > 0 for size in cost["peak_bytes"].values())


def _parameters(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder).parameters()


def test_few_rows_are_repeated_until_the_budget_is_spent(tmp_path: Path, tiny_model: Path) -> None:
    watch = Watch()
    train(tmp_path, tiny_model, watch, SFT(), rows=make_rows(3), steps=5)
    assert all(sorted(q.row for q in b.seqs) == ["r0", "r1", "r2"] for b in watch.batches)


def test_an_empty_data_set_is_an_error_that_names_the_file(tmp_path: Path, tiny_model: Path) -> None:
    with pytest.raises(HarnessError, match="the data set is empty") as caught:
        train(tmp_path / "w", tiny_model, rows=[])
    assert caught.value.where.endswith("w.train.jsonl")


def test_a_row_longer_than_the_models_context_is_named(tmp_path: Path, tiny_model: Path) -> None:
    long = {"id": "long", "text": "x" * 5000}
    with pytest.raises(HarnessError, match="the longest row allowed is 4096") as caught:
        train(tmp_path, tiny_model, rows=[long], max_length=10_000)
    assert "row long" in caught.value.where


def test_a_loss_that_is_no_number_ends_as_diverged_with_its_curve(tmp_path: Path, tiny_model: Path) -> None:
    class Explodes(Method):
        name = "explodes"

        def loss(self, tok: Any, ctx: Any) -> Tensor:
            return -tok.logp * (float("nan") if ctx.step == 2 else 1.0)

    done = train(tmp_path, tiny_model, Explodes(), steps=5)
    assert done.result.status == "diverged"
    assert done.result.summary["diverged"] == "the loss is not finite at step 3"
    assert [line["step"] for line in done.curve] == [1, 2, 3]
    assert done.curve[2]["loss"] is None
    assert not (tmp_path / "artifact").exists()


def test_a_gradient_that_is_no_number_ends_as_diverged(tmp_path: Path, tiny_model: Path) -> None:
    class Breaks(Method):
        name = "breaks"

        def after_backward(self, model: Any, ctx: Any) -> None:
            model.lm_head.weight.grad[0, 0] = math.inf

    done = train(tmp_path, tiny_model, Breaks())
    assert done.result.summary["diverged"] == "the gradient is not finite at step 1"


def test_a_service_that_is_not_there_is_refused_in_one_sentence(tmp_path: Path, tiny_model: Path) -> None:
    class Asks(Method):
        name = "asks"

        def loss(self, tok: Any, ctx: Any) -> Any:
            return ctx.judge("good?")

    with pytest.raises(Refused, match=r"`ctx\.judge` needs a service"):
        train(tmp_path, tiny_model, Asks())


class Outside(Method):
    """A method of another package."""

    name = "outside"

    def loss(self, tok: Any, ctx: Any) -> Tensor:
        return -2 * tok.logp


def test_the_adapter_runs_a_method_of_another_package_by_name_and_reports(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    point = EntryPoint(name="outside", value="tests.test_training_loop:Outside", group=methods.GROUP)
    offer_methods(monkeypatch, point)
    rows, seen = write_rows(tmp_path / "rows.jsonl", make_rows()), []
    settings = TrainSettings(budget=Budget(steps=2), batch_size=4, precision="fp32", lr=1e-3)
    task = TrainTask(model=tiny_model, stack=(("outside", {}),), rows={"train": rows}, settings=settings)
    work = tmp_path / "work"
    work.mkdir()
    result = make("native").train(task, work, [], lambda done, total, note: seen.append((done, total)))
    assert result.status == "ok"
    assert seen == [(1.0, 2.0), (2.0, 2.0)]
    assert result.summary["first_loss"] == pytest.approx(2 * train(tmp_path / "sft", tiny_model).losses[0], abs=1e-5)


def test_a_model_folder_that_is_none_is_a_clear_error(tmp_path: Path, tiny_model: Path) -> None:
    broken = shutil.copytree(tiny_model, tmp_path / "broken")
    (broken / "model.safetensors").unlink()
    with pytest.raises(HarnessError, match="cannot be opened as a causal language model") as caught:
        train(tmp_path / "w", broken)
    assert caught.value.where == str(broken)
