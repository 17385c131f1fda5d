"""`hft`: which half trains, that the other half never moves, and draws anew within a stage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from harness.errors import HarnessError, Refused
from harness.methods import build
from harness.methods.base import check_stack
from harness.methods.dpo import DPO
from harness.methods.hft import HFT
from harness.methods.lora import LoRA
from harness.methods.mft import MFT
from harness.methods.sft import SFT
from harness.training.adapters import make
from tests.training import Done, Watch, make_pairs, train


class Plain(Watch):
    """Plain SGD, so that a step is the gradient."""

    def optimizer(self, groups: Any, ctx: Any) -> Any:
        return torch.optim.SGD(groups, lr=0.1)


class Follow(Watch):
    """Also keeps the weights and what the optimiser holds after each step."""

    def __init__(self, stop_after: int | None = None) -> None:
        super().__init__(stop_after)
        self.weights: list[dict[str, Tensor]] = []

    def after_step(self, model: Any, ctx: Any) -> None:
        self.weights.append({n: p.detach().clone() for n, p in model.named_parameters()})
        super().after_step(model, ctx)


def weights(folder: Path) -> dict[str, Tensor]:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return {n: p.detach() for n, p in model.named_parameters()}


def manifest(done: Done) -> dict[int, Any]:
    return torch.load(done.work / "artifact" / "hft.pt", weights_only=True)  # type: ignore[no-any-return]


def trains(done: Done, step: int = 0) -> set[str]:
    return {n for n, on in manifest(done)[step]["trains"].items() if on}


def llama(layers: int = 30, width: int = 576, kv: int = 192, ffn: int = 1536, vocab: int = 49152) -> dict[str, int]:
    """Sizes of the parameters of SmolLM2-135M, or of a model like it."""
    sizes = {"model.embed_tokens.weight": vocab * width}
    for i in range(layers):
        at = f"model.layers.{i}"
        sizes |= {
            f"{at}.self_attn.{x}_proj.weight": width * n for x, n in zip("qkvo", (width, kv, kv, width), strict=True)
        }
        sizes |= {f"{at}.mlp.{x}_proj.weight": width * ffn for x in ("gate", "up", "down")}
        sizes |= {f"{at}.{x}_layernorm.weight": width for x in ("input", "post_attention")}
    return {**sizes, "model.norm.weight": width}


def drawn(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- identity and gradients -----------------------------------------------------------------------------------------
def test_all_of_the_matrices_is_sft_bit_for_bit_over_twenty_steps(tmp_path: Path, tiny_model: Path) -> None:
    mine, plain = Watch(), Watch()
    a = train(tmp_path / "a", tiny_model, HFT(p=1.0), mine, steps=20)
    b = train(tmp_path / "b", tiny_model, SFT(), plain, steps=20)
    assert a.curve == b.curve
    assert all(torch.equal(x[n], y[n]) for x, y in zip(mine.gradients, plain.gradients, strict=True) for n in y)
    assert all(torch.equal(p, plain.final[n]) for n, p in mine.final.items())


def test_one_step_is_that_of_full_fine_tuning_on_the_half_and_nothing_elsewhere(
    tmp_path: Path, tiny_model: Path
) -> None:
    """Along the gradient of the chosen half of the layers the loss rises by its norm."""
    from transformers import AutoModelForCausalLM

    mine, plain, base = Plain(), Plain(), weights(tiny_model)
    done = train(tmp_path / "a", tiny_model, HFT(), mine, steps=1, clip=None)
    train(tmp_path / "b", tiny_model, SFT(), plain, steps=1, clip=None)
    chosen = trains(done)
    assert set(mine.gradients[0]) == chosen
    assert all(torch.allclose(g, plain.gradients[0][n], rtol=1e-6, atol=1e-9) for n, g in mine.gradients[0].items())
    assert all(torch.equal(p, base[n]) for n, p in mine.final.items() if n not in chosen)
    assert all(torch.allclose(mine.final[n], plain.final[n], rtol=1e-6, atol=1e-9) for n in chosen)

    assert done.curve[0]["norm"] == pytest.approx(float(torch.nn.utils.get_total_norm(mine.gradients[0].values())))
    inside = {n: g for n, g in mine.gradients[0].items() if ".layers." in n}  # torch gives a padding row no gradient
    norm = float(torch.nn.utils.get_total_norm(inside.values()))
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float64)
    batch = mine.batches[0]

    def loss_at(distance: float) -> float:
        for name, p in model.named_parameters():
            p.copy_(base[name].double() + distance * inside.get(name, torch.zeros(())).double() / norm)
        logits = model(input_ids=batch.ids).logits
        return float(torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch.targets.flatten()))

    with torch.no_grad():
        assert (loss_at(1e-3) - loss_at(-1e-3)) / 2e-3 == pytest.approx(norm, rel=1e-3)


def test_accumulation_cannot_change_the_answer(tmp_path: Path, tiny_model: Path) -> None:
    runs = []
    for micro in (4, 2, 1):
        watch = Watch()
        done = train(tmp_path / str(micro), tiny_model, HFT(every=2), watch, steps=4, micro_batch=micro)
        runs.append((done.losses, watch.gradients))
    for losses, gradients in runs[1:]:
        assert losses == pytest.approx(runs[0][0], abs=1e-6)
        for x, y in zip(gradients, runs[0][1], strict=True):
            assert x.keys() == y.keys()
            assert all(torch.allclose(g, y[n], rtol=0, atol=3e-6) for n, g in x.items())


# --- which half -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("layers", [30, 5])
def test_every_layer_trains_two_of_attention_and_one_norm_and_half_of_all_feed_forward(layers: int) -> None:
    sizes = llama(layers)
    chosen = HFT().choose(sizes, drawn())
    of = [[n for n in chosen if f".layers.{i}." in n] for i in range(layers)]
    assert [sum("self_attn" in n for n in names) for names in of] == [2] * layers
    assert [sum("norm" in n for n in names) for names in of] == [1] * layers
    feed_forward = sorted(sum("mlp" in n for n in names) for names in of)
    assert feed_forward == [1] * (layers // 2) + [2] * (layers - layers // 2)
    assert {"model.embed_tokens.weight", "model.norm.weight"} <= chosen
    assert "model.norm.weight" not in HFT(final_norm=False).choose(sizes, drawn())


def test_the_numbers_of_smollm2_135m() -> None:
    sizes = llama()
    layer = sum(s for n, s in sizes.items() if ".layers.0." in n)
    assert (layer, 30 * layer, sum(sizes.values())) == (3_540_096, 106_202_880, 134_515_008)
    for seed in range(3):
        chosen = HFT(balance="params").choose(sizes, drawn(seed))
        assert sum(sizes[n] for n in chosen if ".layers." in n) == 53_101_440
        total = sum(sizes[n] for n in chosen)
        assert total == 81_413_568
        assert total / sum(sizes.values()) == pytest.approx(0.6052, abs=5e-5)
        for i in range(30):
            names = {n.split(".")[4][0] for n in chosen if f".layers.{i}.self_attn" in n}
            assert len(names & set("qo")) == len(names & set("kv")) == 1
        free = HFT().choose(sizes, drawn(seed))
        attention = {n: s for n, s in sizes.items() if "self_attn" in n}
        assert 0.25 <= sum(attention[n] for n in free if n in attention) / sum(attention.values()) <= 0.75


@pytest.mark.parametrize("p", [0.4, 0.5, 0.6])
def test_other_strategies_and_shares(p: float) -> None:
    sizes = llama(10)
    inside = {n for n in sizes if ".layers." in n}
    layer = HFT(p=p, strategy="layer").choose(sizes, drawn()) & inside
    whole = {n.split(".")[2] for n in layer}
    assert len(whole) == round(10 * p) and layer == {n for n in inside if n.split(".")[2] in whole}
    assert len(HFT(p=p, strategy="model").choose(sizes, drawn()) & inside) == round(p * 90)
    mine = HFT(p=p).choose(sizes, drawn()) & inside
    for word, count in (("self_attn", 4), ("mlp", 3), ("norm", 2)):
        assert sum(word in n for n in mine) == round(count * 10 * p)
    assert HFT(p=1.0).choose(sizes, drawn()) == set(sizes)


def test_a_bias_goes_with_its_matrix_and_a_fused_matrix_trains_in_half_of_the_layers() -> None:
    sizes = {}
    for i in range(8):
        for name, size in (("attn.c_attn", 300), ("attn.c_proj", 100), ("mlp.c_fc", 400), ("mlp.c_proj", 400)):
            sizes |= {f"h.{i}.{name}.weight": size, f"h.{i}.{name}.bias": size // 100}
        sizes |= {f"h.{i}.{n}.{part}": 10 for n in ("ln_1", "ln_2") for part in ("weight", "bias")}
    for seed in range(4):
        chosen = HFT().choose(sizes, drawn(seed))
        assert {n.removesuffix(".bias") + ".weight" for n in chosen if n.endswith("bias")} == {
            n for n in chosen if n.endswith("weight")
        }
        assert sum(".attn.c_attn.weight" in n for n in chosen) == sum(".attn.c_proj.weight" in n for n in chosen) == 4
        assert sum(".mlp." in n and n.endswith("weight") for n in chosen) == 8


def test_a_seed_is_a_half_and_many_draws_reach_everything(tmp_path: Path, tiny_model: Path) -> None:
    sizes = llama(4)
    assert HFT().choose(sizes, drawn(1)) == HFT().choose(sizes, drawn(1)) != HFT().choose(sizes, drawn(2))
    assert set.union(*(HFT().choose(sizes, drawn(s)) for s in range(20))) == set(sizes)
    runs = {
        name: trains(train(tmp_path / name, tiny_model, HFT(draw=draw), steps=1, seed=seed))
        for name, draw, seed in (("a", 0, 0), ("b", 0, 0), ("c", 0, 1), ("d", 1, 0))
    }
    assert runs["a"] == runs["b"]
    assert runs["c"] != runs["a"] != runs["d"]


# --- the frozen half ------------------------------------------------------------------------------------------------
def test_the_frozen_half_never_moves_and_the_chosen_half_does_through_decay_clipping_and_resume(
    tmp_path: Path, tiny_model: Path
) -> None:
    class Adam(Watch):
        def optimizer(self, groups: Any, ctx: Any) -> Any:
            self.adam = torch.optim.AdamW(groups, fused=True)
            return self.adam

    options: dict[str, Any] = {"steps": 6, "weight_decay": 0.1, "clip": 0.1}
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "cut", tiny_model, HFT(), Watch(3), checkpoint_seconds=1e-9, **options)
    watch, base = Adam(), weights(tiny_model)
    done = train(tmp_path / "again", tiny_model, HFT(), watch, earlier=[tmp_path / "cut"], **options)
    assert done.result.summary["resumed_at"] == 2
    chosen = trains(done)
    assert {n for n, p in watch.final.items() if not torch.equal(p, base[n])} == chosen
    held = [p for group in watch.adam.param_groups for p in group["params"]]
    assert len(held) == len(watch.adam.state) == len(chosen)
    assert done.result.cost["trainable_parameters"] == sum(base[n].numel() for n in chosen)
    share = done.result.cost["trainable_parameters"] / sum(p.numel() for p in base.values())
    assert manifest(done)[0]["share"] == pytest.approx(share)
    saved = weights(done.work / "artifact")
    assert all(torch.equal(saved[n], p.bfloat16().float()) for n, p in base.items() if n not in chosen)


def test_reset_puts_back_the_half_that_is_not_chosen(tmp_path: Path, tiny_model: Path) -> None:
    class Before(Watch):
        def after_stage(self, model: Any, ctx: Any) -> None:
            if not self.final:
                super().after_stage(model, ctx)

    base, full, mine, plain = weights(tiny_model), Before(), Watch(), Watch()
    done = train(tmp_path / "a", tiny_model, full, HFT(reset=True), mine, steps=4)
    sft = train(tmp_path / "b", tiny_model, SFT(), plain, steps=4)
    assert done.losses == sft.losses
    assert all(torch.equal(p, plain.final[n]) for n, p in full.final.items())
    chosen = trains(done)
    assert all(torch.equal(p, (plain.final if n in chosen else base)[n]) for n, p in mine.final.items())
    whole = Watch()
    train(tmp_path / "c", tiny_model, HFT(reset=True, p=1.0), whole, steps=4)
    assert all(torch.equal(p, plain.final[n]) for n, p in whole.final.items())


# --- draws within a stage -------------------------------------------------------------------------------------------
def test_each_draw_trains_its_own_half_from_where_the_last_one_stood(tmp_path: Path, tiny_model: Path) -> None:
    watch = Follow()
    done = train(tmp_path, tiny_model, HFT(every=3), watch, steps=9, weight_decay=0.1)
    assert list(manifest(done)) == [0, 3, 6]
    halves = [trains(done, step) for step in (0, 3, 6)]
    assert halves[0] != halves[1] != halves[2]
    before = weights(tiny_model)
    for step, after in enumerate(watch.weights):
        assert {n for n, p in after.items() if not torch.equal(p, before[n])} == halves[step // 3]
        before = after
    saved = weights(done.work / "artifact")
    assert all(torch.equal(saved[n], p.bfloat16().float()) for n, p in before.items())


def test_a_parameter_that_is_chosen_again_starts_without_its_old_moments(tmp_path: Path, tiny_model: Path) -> None:
    """The first step of AdamW without a state moves every entry by the learning rate, whatever the gradient's size."""
    watch, lr = Follow(), 1e-3
    done = train(tmp_path, tiny_model, HFT(every=1), watch, steps=8, schedule="constant", warmup=0, clip=None)
    halves = [trains(done, step) for step in range(8)]
    seen = 0
    for t in range(2, 8):
        for name in (halves[t] & halves[t - 2]) - halves[t - 1]:
            gradient = watch.gradients[t][name]
            moved = (watch.weights[t][name] - watch.weights[t - 1][name])[gradient.abs() > 1e-5]
            assert torch.allclose(moved.abs(), torch.full_like(moved, lr), rtol=2e-3, atol=1e-7)
            seen += 1
    assert seen


@pytest.mark.parametrize(("every", "last"), [(0, 5), (2, 5), (4, 5), (4, 4)])
def test_interrupted_and_continued(tmp_path: Path, tiny_model: Path, every: int, last: int) -> None:
    """The last checkpoint is from the middle of a half's steps, or from between two halves."""
    a, b = Watch(), Watch()
    whole = train(tmp_path / "whole", tiny_model, HFT(every=every), a, steps=8)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "cut", tiny_model, HFT(every=every), Watch(last + 1), steps=8, checkpoint_seconds=1e-9)
    again = train(tmp_path / "again", tiny_model, HFT(every=every), b, steps=8, earlier=[tmp_path / "cut"])
    assert again.result.summary["resumed_at"] == last
    assert again.curve == whole.curve
    assert manifest(again) == manifest(whole)
    assert all(torch.equal(p, a.final[n]) for n, p in b.final.items())


def test_weights_kept_before_a_draw_are_all_there_after_it(tmp_path: Path, tiny_model: Path) -> None:
    class Keeper(Follow):
        def after_step(self, model: Any, ctx: Any) -> None:
            super().after_step(model, ctx)
            if ctx.step == 2:
                ctx.keep()

    watch = Keeper()
    train(tmp_path, tiny_model, HFT(every=2), watch, steps=6)
    assert all(torch.equal(p, watch.weights[1][n]) for n, p in watch.final.items())


# --- stacks and refusals --------------------------------------------------------------------------------------------
def test_with_masked_thought_the_half_is_trained_on_the_same_noise(tmp_path: Path, tiny_model: Path) -> None:
    noisy = MFT(p=0.4, warmup=0)
    make("native").check((HFT(), noisy))
    both, masked, half, neither, base = Watch(), Watch(), Watch(), Watch(), weights(tiny_model)
    done = train(tmp_path / "both", tiny_model, HFT(), noisy, both, steps=4)
    train(tmp_path / "masked", tiny_model, noisy, masked, steps=4)
    sft = train(tmp_path / "half", tiny_model, HFT(), half, steps=4)
    none = train(tmp_path / "none", tiny_model, HFT(), MFT(p=0.0), neither, steps=4)
    assert {n for n, p in both.final.items() if not torch.equal(p, base[n])} == trains(done) == trains(sft)
    assert all(torch.equal(a.ids, b.ids) for a, b in zip(both.batches, masked.batches, strict=True))
    assert not all(torch.equal(a.ids, b.ids) for a, b in zip(both.batches, half.batches, strict=True))
    assert none.curve == sft.curve
    assert all(torch.equal(p, half.final[n]) for n, p in neither.final.items())
    reset = Watch()
    again = train(tmp_path / "reset", tiny_model, HFT(reset=True), noisy, reset, steps=4)
    chosen = trains(again)
    assert all(torch.equal(p, (masked.final if n in chosen else base)[n]) for n, p in reset.final.items())


def test_it_stacks_with_a_preference_loss(tmp_path: Path, tiny_model: Path) -> None:
    watch, base = Watch(), weights(tiny_model)
    make("native").check((HFT(), DPO()))
    done = train(tmp_path, tiny_model, HFT(), DPO(), watch, rows=make_pairs(), lr=1e-2)
    assert {n for n, p in watch.final.items() if not torch.equal(p, base[n])} == trains(done)
    assert len(set(done.losses)) > 1


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(Refused, match="`hft` chooses among the base's weights, `lora` freezes them"):
        check_stack((LoRA(), HFT()))
    with pytest.raises(HarnessError, match="`reset` puts one half back"):
        build((("hft", {"reset": True, "every": 3}),))
    with pytest.raises(Refused, match="which the optimiser of `watch` cannot follow"):
        make("native").check((HFT(every=2), Plain()))
    make("native").check((HFT(every=2), SFT()))
    with pytest.raises(Refused, match="no numbered layers"):
        HFT().choose({"embed.weight": 4, "head.weight": 4}, drawn())
