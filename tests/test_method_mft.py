"""Masked thought: what the model reads changes, what it learns does not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from harness import methods
from harness.errors import HarnessError
from harness.methods.base import NO_TARGET
from harness.methods.lora import LoRA
from harness.methods.mft import MFT, mask_id
from harness.methods.sft import SFT
from harness.training import randomness
from harness.training.opening import open_tokenizer
from harness.training.sequences import Seq
from tests.training import Watch, make_rows, train

MASK = 0  # the tiny tokenizer's one special token without a use


class Clock:
    """A run at a step, as far as `collate` asks."""

    def __init__(self, step: int, steps: int, tokenizer: Any = None, seed: int = 0) -> None:
        self.step, self.progress, self.tokenizer, self.seed = step, step / steps, tokenizer, seed
        self.logged: dict[str, float] = {}

    def rng(self, purpose: str, row: str) -> torch.Generator:
        return randomness.generator(self.seed, purpose, self.step, row)

    def log(self, **values: float) -> None:
        self.logged |= values


def collate(method: MFT, seqs: Sequence[Seq], clock: Clock) -> list[Seq]:
    return method.collate(list(seqs), clock)  # type: ignore[arg-type]


def answer(q: Seq) -> list[bool]:
    return [False, *(t != NO_TARGET for t in q.targets[:-1])]


def long_seq(n: int, prompt: int = 10, **more: Any) -> Seq:
    ids = tuple(10 + i % 200 for i in range(n + prompt))
    return Seq(ids=ids, targets=(*[NO_TARGET] * (prompt - 1), *ids[prompt:], NO_TARGET), row="long", **more)


@pytest.fixture
def tokenizer(tiny_model: Path) -> Any:
    return open_tokenizer(tiny_model)


def test_p_zero_is_sft_bit_for_bit_over_twenty_steps(tmp_path: Path, tiny_model: Path) -> None:
    mine, plain = Watch(), Watch()
    a = train(tmp_path / "a", tiny_model, MFT(p=0), mine, steps=20)
    b = train(tmp_path / "b", tiny_model, SFT(), plain, steps=20)
    assert a.curve == b.curve
    assert all(torch.equal(x[n], y[n]) for x, y in zip(mine.gradients, plain.gradients, strict=True) for n in x)


def test_the_gradient_is_that_of_the_cross_entropy_of_the_original_answers(tmp_path: Path, tiny_model: Path) -> None:
    """Along the gradient the loss of the clean targets, read from the masked inputs, rises by its norm."""
    from transformers import AutoModelForCausalLM

    class Last(Watch):
        def after_backward(self, model: Any, ctx: Any) -> None:
            super().after_backward(model, ctx)
            self.before = {n: p.detach().clone() for n, p in model.named_parameters()}

    watch = Last()
    done = train(tmp_path, tiny_model, MFT(p=0.5, warmup=0), watch, steps=2)
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    model.load_state_dict(watch.before, strict=False)
    batch, gradient = watch.batches[1], watch.gradients[1]
    assert (batch.ids == MASK).sum() > 10
    norm = float(torch.nn.utils.get_total_norm(gradient.values()))
    keep = batch.targets != NO_TARGET

    def loss_at(distance: float) -> float:
        for name, p in model.named_parameters():
            p += distance * gradient[name] / norm
        logp = model(input_ids=batch.ids).logits.double().log_softmax(-1)
        for name, p in model.named_parameters():
            p -= distance * gradient[name] / norm
        return float(-logp[keep].gather(-1, batch.targets[keep][:, None]).mean())

    with torch.no_grad():
        assert loss_at(0.0) == pytest.approx(done.losses[1], abs=1e-5)
        assert (loss_at(1e-2) - loss_at(-1e-2)) / 2e-2 == pytest.approx(norm, rel=1e-2)


@pytest.mark.parametrize("noise", ["mask", "random"])
def test_layout_cannot_change_the_answer(tmp_path: Path, tiny_model: Path, noise: str) -> None:
    runs = []
    for micro in (4, 2, 1):
        watch, method = Watch(), MFT(p=0.5, noise=noise, drop_attention=noise == "random")
        runs.append(
            (train(tmp_path / str(micro), tiny_model, method, watch, micro_batch=micro).losses, watch.gradients)
        )
    for losses, gradients in runs[1:]:
        assert losses == pytest.approx(runs[0][0], abs=1e-6)
        assert all(
            torch.allclose(g, y[n], rtol=0, atol=3e-6)
            for x, y in zip(gradients, runs[0][1], strict=True)
            for n, g in x.items()
        )


def test_the_share_rises_as_the_paper_says() -> None:
    method = MFT(p=0.4, warmup=2 / 3)
    rates = [method.rate(step, step / 300) for step in (0, 100, 200, 201, 299)]
    assert rates == pytest.approx([0, 0.4 * 100 / 201, 0.4 * 200 / 201, 0.4, 0.4], abs=1e-9)
    assert [round(r, 4) for r in rates[1:3]] == [0.199, 0.398]


def test_a_run_logs_the_share_of_its_steps(tmp_path: Path, tiny_model: Path) -> None:
    done = train(tmp_path, tiny_model, MFT(p=0.4, warmup=0.5), steps=4)
    assert [line["mask_rate"] for line in done.curve] == pytest.approx([0, 0.4 / 3, 0.8 / 3, 0.4])


@pytest.mark.parametrize("noise", ["mask", "random"])
@pytest.mark.parametrize("p", [0.1, 0.4, 1.0])
def test_targets_and_prompts_stay_and_the_share_is_met(tokenizer: Any, noise: str, p: float) -> None:
    n, q = 100_000, long_seq(100_000)
    (made,) = collate(MFT(p=p, warmup=0, noise=noise), [q], Clock(5, 10, tokenizer))
    assert made.targets == q.targets
    assert made.ids[:10] == q.ids[:10]
    assert made.mask is None
    changed = sum(a != b for a, b in zip(made.ids, q.ids, strict=True))
    same = 0.0 if noise == "mask" else 1 / 256  # a random token may be the one that was there
    expected = p * (1 - same)
    assert abs(changed / n - expected) <= 3 * (expected * (1 - expected) / n) ** 0.5


def test_p_one_hides_every_answer_token_and_still_learns_them_all(tmp_path: Path, tiny_model: Path) -> None:
    watch, plain = Watch(), Watch()
    done = train(tmp_path / "a", tiny_model, MFT(p=1.0, warmup=0), watch, steps=3)
    train(tmp_path / "b", tiny_model, SFT(), plain, steps=3)
    assert all(loss > 0 for loss in done.losses)
    for masked, clean in zip(watch.batches[1:], plain.batches[1:], strict=True):
        assert torch.equal(masked.targets, clean.targets)
        assert torch.equal(masked.lengths, clean.lengths)
        read = torch.tensor([answer(q) + [False] * (clean.ids.shape[1] - len(q.ids)) for q in clean.seqs])
        assert torch.equal(masked.ids, torch.where(read, MASK, clean.ids))


def test_a_conversation_of_several_turns_is_hidden_only_where_it_is_learned(tmp_path: Path, tiny_model: Path) -> None:
    said = [("user", "one"), ("assistant", "two"), ("user", "three"), ("assistant", "four"), ("user", "five")]
    messages: list[dict[str, Any]] = [{"role": role, "content": text} for role, text in [*said, ("assistant", "six")]]
    messages[1]["weight"] = 0
    watch = Watch()
    train(tmp_path, tiny_model, MFT(p=1.0, warmup=0), watch, steps=2, rows=[{"id": "r", "messages": messages}])
    text = open_tokenizer(tiny_model).decode(watch.batches[1].ids[0])
    assert all(word in text for word in ("one", "two", "three", "five"))
    assert "four" not in text
    assert "six" not in text


def test_every_time_a_row_is_seen_it_is_masked_anew_and_the_same_for_the_same_seed(tokenizer: Any) -> None:
    method, q = MFT(p=0.4, warmup=0), long_seq(200)

    def at(step: int, seed: int = 0, **changes: Any) -> tuple[int, ...]:
        return collate(method, [q.but(**changes)], Clock(step, 10, tokenizer, seed))[0].ids

    assert at(1) == at(1)
    assert len({at(1), at(2), at(1, seed=1), at(1, row="other"), at(1, view="rejected")}) == 5


def test_random_noise_is_uniform_and_never_special_unless_it_may_be(tokenizer: Any) -> None:
    q = long_seq(100_000)
    for any_id, ids in ((False, range(4, 260)), (True, range(260))):
        (made,) = collate(MFT(p=1.0, warmup=0, noise="random", any_id=any_id), [q], Clock(1, 2, tokenizer))
        counts = torch.tensor(made.ids[10:]).bincount(minlength=260)[list(ids)]
        assert int(counts.sum()) == 100_000
        expected = 100_000 / len(ids)
        chi_squared = float(((counts - expected) ** 2 / expected).sum())
        assert abs(chi_squared - len(ids)) < 5 * (2 * len(ids)) ** 0.5


def test_hidden_tokens_stay_visible_to_attention_unless_dropped(tokenizer: Any) -> None:
    (made,) = collate(MFT(p=0.5, warmup=0, drop_attention=True), [long_seq(30)], Clock(1, 2, tokenizer))
    hidden = torch.tensor([i == MASK for i in made.ids])
    assert 5 < hidden.sum() < 25
    assert made.mask is not None
    assert torch.equal(made.mask, torch.ones(40, 40).tril().bool() & ~hidden)
    own = torch.eye(40, dtype=torch.bool)
    (kept,) = collate(MFT(p=0.5, warmup=0, drop_attention=True), [long_seq(30, mask=own)], Clock(1, 2, tokenizer))
    assert kept.mask is not None
    assert torch.equal(kept.mask, own & ~hidden)


def test_what_stands_in_a_dropped_place_is_read_by_no_other(tmp_path: Path, tiny_model: Path) -> None:
    """Positions that read their own clean token predict the same whatever the noise around them is."""

    class Keep(SFT):
        def loss(self, tok: Any, ctx: Any) -> Tensor:
            self.logp, self.ids = tok.logp.detach(), tok.batch.ids[tok.row, tok.at]
            return -tok.logp

    def run(noise: str, drop: bool) -> Keep:
        keep = Keep()
        method = MFT(p=0.6, warmup=0, noise=noise, drop_attention=drop)
        train(tmp_path / f"{noise}{drop}", tiny_model, method, keep, steps=2)
        return keep

    for drop in (True, False):
        mask, noisy = run("mask", drop), run("random", drop)
        clean = mask.ids != MASK
        assert 10 < clean.sum() < len(clean) - 10
        assert torch.allclose(mask.logp[clean], noisy.logp[clean], rtol=0, atol=1e-5) == drop
        assert not torch.allclose(mask.logp[~clean], noisy.logp[~clean], rtol=0, atol=1e-5)


class Named:
    """A tokenizer, as far as the choice of a mask token asks."""

    bos_token_id: int | None = 1
    eos_token_id: int | None = 2
    pad_token_id: int | None = None
    unk_token_id: int | None = 0
    mask_token_id: int | None = None
    chat_template = "<turn>{{ messages }}<end>"

    def __init__(self, *special: str, **roles: int) -> None:
        texts = ["<unk>", "<s>", "<end>", *special]
        self.added_tokens_decoder = {
            i: type("Token", (), {"special": True, "__str__": lambda _, t=t: t})() for i, t in enumerate(texts)
        }
        self.get_vocab = lambda: {t: i for i, t in enumerate([*texts, "word"])}
        for role, i in roles.items():
            setattr(self, role, i)


class OnlyRoles(Named):
    """Every special token begins, ends or marks a turn, and the end token fills and stands for the unknown."""

    pad_token_id = unk_token_id = mask_token_id = 2
    chat_template = "<s><unk>{{ messages }}<end>"


@pytest.mark.parametrize(
    ("tokenizer", "named", "expected"),
    [
        (Named("<turn>", "<repo>", "<file>"), None, 4),
        (Named("<turn>", "<repo>", "<|reserved_0|>"), None, 5),
        (Named("<turn>", "<mask>", "<|reserved_0|>", mask_token_id=4), None, 4),
        (Named("<turn>", "<repo>"), "word", 5),
        (Named("<turn>", "<pad>", pad_token_id=4), None, 4),
        (Named("<turn>"), None, 0),
    ],
)
def test_the_mask_is_a_token_that_nothing_else_uses(tokenizer: Any, named: str | None, expected: int) -> None:
    assert mask_id(tokenizer, named) == expected


@pytest.mark.parametrize("named", ["<end>", "nothing"])
def test_a_mask_that_is_none_or_ends_the_text_is_an_error_at_once(tmp_path: Path, tiny_model: Path, named: str) -> None:
    name = {"<end>": "<|im_end|>"}.get(named, named)
    with pytest.raises(HarnessError, match="is no token of this model, or its end token"):
        train(tmp_path, tiny_model, MFT(mask_token=name), steps=1)


def test_no_token_to_spare_is_an_error() -> None:
    with pytest.raises(HarnessError, match="finds no token of this model to spare"):
        mask_id(OnlyRoles(), None)


def test_interrupted_and_continued_gives_identical_losses(tmp_path: Path, tiny_model: Path) -> None:
    stack = (("mft", {"p": 0.4}), ("dft", {}))
    whole = train(tmp_path / "whole", tiny_model, *methods.build(stack), steps=6, seed=3)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "cut", tiny_model, *methods.build(stack), Watch(4), steps=6, seed=3, checkpoint_seconds=1e-9)
    again = train(
        tmp_path / "on", tiny_model, *methods.build(stack), Watch(), steps=6, seed=3, earlier=[tmp_path / "cut"]
    )
    assert again.result.summary["resumed_at"] == 3
    assert again.curve == whole.curve


def test_a_token_budget_is_met_and_the_share_follows_what_is_spent(tmp_path: Path, tiny_model: Path) -> None:
    from harness.matrix import Budget

    done = train(tmp_path, tiny_model, MFT(p=0.4), budget=Budget(tokens=1500))
    rates = [line["mask_rate"] for line in done.curve]
    assert done.curve[-2]["tokens"] < 1500 <= done.curve[-1]["tokens"]
    assert rates == sorted(rates)
    assert rates[0] == 0
    assert rates[-1] > 0.3


def test_it_stacks_with_adapters_and_with_the_weights_of_others(tmp_path: Path, tiny_model: Path) -> None:
    class Half(SFT):
        def token_weight(self, tok: Any, ctx: Any) -> Tensor:
            return torch.full((len(tok.row),), 0.5)

    watch = Watch()
    done = train(tmp_path, tiny_model, LoRA(r=2), MFT(p=0.5, warmup=0), Half(), watch, rows=make_rows(4))
    assert all("lora_" in name for name in watch.gradients[0])
    assert (watch.batches[-1].ids == MASK).any()
    assert (done.work / "artifact" / "adapter_config.json").exists()
