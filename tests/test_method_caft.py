"""`caft`: heads that look further ahead, what they teach the trunk, and that nothing of them is left."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from harness.errors import HarnessError, Refused
from harness.methods.base import Method, Stage
from harness.methods.caft import CAFT
from harness.methods.dft import DFT
from harness.methods.hft import HFT
from harness.methods.lora import LoRA
from harness.methods.lt_sft import LTSFT
from harness.methods.sft import SFT
from harness.training.adapters import make
from harness.training.opening import open_base, open_tokenizer
from tests.training import Done, Watch, train


def tune(work: Path, model: Path, done: dict[str, Path], *more: Method, steps: int = 4, **options: Any) -> Done:
    """The second stage; `before` members stand before `caft`."""
    before = options.pop("before", ())
    settings = {k: options.pop(k) for k in ("micro_batch", "earlier", "checkpoint_seconds") if k in options}
    method = CAFT(**{"heads_share": 1.0, "tune_share": 1.0, **options})
    return train(work, model, *before, method, *more, steps=2 * steps, stage=1, done=done, **settings)


class Watched(CAFT):
    """Lets somebody watch where the heads are alone."""

    def __init__(self, watch: Watch, **params: Any) -> None:
        super().__init__(**{"heads_share": 1.0, "tune_share": 1.0, **params})
        self.watch = watch

    def stages(self, ctx: Any) -> list[Stage]:
        return [replace(s, run=(*s.run, self.watch)) if s.alone else s for s in super().stages(ctx)]


def base_weights(folder: Path) -> dict[str, Tensor]:
    return {n: p.detach() for n, p in open_base(folder).named_parameters()}


def state(done: dict[str, Path], name: str = "heads") -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(done[name] / "state.safetensors")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> dict[str, Path]:
    """Heads that have learned something."""
    work = tmp_path_factory.mktemp("caft") / "heads"
    done = train(work, tiny_model, CAFT(heads_share=1.0, tune_share=1.0, heads_lr=1e-2), steps=10)
    return {"heads": done.work / "artifact"}


# --- identity -------------------------------------------------------------------------------------------------------
def test_without_weight_tuning_is_sft_bit_for_bit_over_twenty_steps(
    tmp_path: Path, tiny_model: Path, trained: dict[str, Path]
) -> None:
    mine, plain = Watch(), Watch()
    a = tune(tmp_path / "a", tiny_model, trained, mine, steps=20, alpha=0.0)
    b = train(tmp_path / "b", tiny_model, SFT(), plain, steps=20)
    assert a.curve == b.curve
    assert all(torch.equal(x[n], y[n]) for x, y in zip(mine.gradients, plain.gradients, strict=True) for n in y)
    assert all(torch.equal(p, mine.final[n]) for n, p in plain.final.items())
    assert mine.gradients[0].keys() == plain.gradients[0].keys()


# --- stages ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("options", [{}, {"head": "linear"}, {"own_unembedding": True}], ids=["layer", "linear", "own"])
def test_the_first_stage_trains_the_heads_and_nothing_else(
    tmp_path: Path, tiny_model: Path, options: dict[str, Any]
) -> None:
    watch, base = Watch(), base_weights(tiny_model)
    done = train(tmp_path, tiny_model, Watched(watch, **options), steps=6)
    heads = state({"heads": done.work / "artifact"})
    assert {n.split(".")[0] for n in heads} == ({"caft", "caft_out"} if "own_unembedding" in options else {"caft"})
    assert watch.final.keys() == base.keys() | heads.keys()
    assert all(torch.equal(watch.final[n], p) for n, p in base.items())
    assert all(g.keys() == heads.keys() for g in watch.gradients)
    for name, p in heads.items():
        _, _, part = name.split(".", 2)
        like = "model.embed_tokens.weight" if name.startswith("caft_out") else f"model.layers.0.{part}"
        start = base.get(like, torch.zeros_like(p))
        assert 0 < (p - start).abs().max() < 0.01
    assert len(done.losses) == 3
    for line in done.curve:
        assert line["loss"] == pytest.approx(sum(line[f"ahead{k}"] for k in (1, 2, 3, 4)))
    after = Watch()
    tune(tmp_path / "tune", tiny_model, {"heads": done.work / "artifact"}, after, steps=1, alpha=0.0, **options)
    assert all(torch.equal(after.final[n], p) for n, p in heads.items())


def test_tuning_leaves_frozen_heads_alone_and_their_losses_reach_the_trunk(
    tmp_path: Path, tiny_model: Path, trained: dict[str, Path]
) -> None:
    with_heads, without, free = Watch(), Watch(), Watch()
    tune(tmp_path / "a", tiny_model, trained, with_heads, alpha=1.0)
    tune(tmp_path / "b", tiny_model, trained, without, alpha=0.0)
    tune(tmp_path / "c", tiny_model, trained, free, alpha=1.0, tune_heads=True)
    heads = state(trained)
    assert all(torch.equal(with_heads.final[n], p) for n, p in heads.items())
    assert not any(torch.equal(free.final[n], p) for n, p in heads.items())
    trunk = "model.layers.0.mlp.up_proj.weight"
    assert (with_heads.gradients[0][trunk] - without.gradients[0][trunk]).abs().max() > 1e-4
    assert with_heads.gradients[0].keys() == without.gradients[0].keys() == set(base_weights(tiny_model))


def test_freezing_the_output_layer_is_for_models_of_untied_embeddings(
    tmp_path: Path, tiny_model: Path, trained: dict[str, Path]
) -> None:
    with pytest.raises(HarnessError, match="that freezes both"):
        tune(tmp_path / "a", tiny_model, trained, unembedding="freeze")
    model = open_base(tiny_model)
    model.config.tie_word_embeddings = False
    model.lm_head.weight = nn.Parameter(model.lm_head.weight.detach().clone())
    model.save_pretrained(tmp_path / "untied")
    open_tokenizer(tiny_model).save_pretrained(tmp_path / "untied")
    watch = Watch()
    tune(tmp_path / "b", tmp_path / "untied", trained, watch, unembedding="freeze")
    assert "lm_head.weight" not in watch.gradients[0] and "model.embed_tokens.weight" in watch.gradients[0]


# --- layout ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("stage", [0, 1], ids=["heads", "tune"])
def test_accumulation_cannot_change_the_answer(
    tmp_path: Path, tiny_model: Path, trained: dict[str, Path], stage: int
) -> None:
    runs = []
    for micro in (4, 2, 1):
        watch, work = Watch(), tmp_path / str(micro)
        if stage:
            done = tune(work, tiny_model, trained, watch, steps=2, alpha=0.5, micro_batch=micro)
        else:
            done = train(work, tiny_model, Watched(watch), steps=4, micro_batch=micro)
        runs.append((done.losses, watch.gradients))
    assert len(runs[0][1]) == 2
    for losses, gradients in runs[1:]:
        assert losses == pytest.approx(runs[0][0], abs=3e-6)
        for x, y, near in zip(gradients, runs[0][1], (1e-6, 1e-5), strict=True):  # Adam makes much of a small gradient
            assert x.keys() == y.keys()
            assert all(torch.allclose(g, y[n], rtol=0, atol=near) for n, g in x.items())


# --- what is saved --------------------------------------------------------------------------------------------------
def test_no_head_is_left_and_the_rest_is_the_trunk_as_it_was_trained(
    tmp_path: Path, tiny_model: Path, trained: dict[str, Path]
) -> None:
    from safetensors import safe_open

    watch = Watch()
    done = tune(tmp_path, tiny_model, trained, watch)
    folder = done.work / "artifact"
    keys = {}
    for name, path in (("mine", folder), ("base", tiny_model)):
        with safe_open(path / "model.safetensors", "pt") as file:
            keys[name] = set(file.keys())
    assert keys["mine"] == keys["base"]
    served, trunk = open_base(folder), open_base(tiny_model)
    trunk.load_state_dict({n: p.bfloat16() for n, p in watch.final.items() if not n.startswith("caft")}, strict=False)
    ids = torch.arange(5, 25)[None]
    assert torch.equal(served(input_ids=ids).logits, trunk(input_ids=ids).logits)
    assert not torch.allclose(served(input_ids=ids).logits, open_base(tiny_model)(input_ids=ids).logits, atol=1e-3)
    heads = torch.load(folder / "caft.pt", weights_only=True)
    assert heads.keys() == state(trained).keys()


# --- resume, stacks, refusals ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("stage", [0, 1], ids=["heads", "tune"])
def test_interrupted_and_continued(tmp_path: Path, tiny_model: Path, trained: dict[str, Path], stage: int) -> None:
    def run(name: str, watch: Watch, **settings: Any) -> Done:
        if stage:
            return tune(tmp_path / name, tiny_model, trained, watch, steps=5, tune_heads=True, alpha=0.5, **settings)
        return train(tmp_path / name, tiny_model, Watched(watch), steps=10, **settings)

    a, b = Watch(), Watch()
    whole = run("whole", a)
    with pytest.raises(KeyboardInterrupt):
        run("cut", Watch(3), checkpoint_seconds=1e-9)
    again = run("again", b, earlier=[tmp_path / "cut"])
    assert again.result.summary["resumed_at"] == 2
    assert again.curve == whole.curve
    assert all(torch.equal(p, a.final[n]) for n, p in b.final.items())


def test_beside_lora_the_heads_stay_plain_and_only_lora_trains(
    tmp_path: Path, tiny_model: Path, trained: dict[str, Path]
) -> None:
    watch = Watch()
    done = tune(tmp_path / "a", tiny_model, trained, watch, before=(LoRA(r=2),), alpha=0.5)
    assert watch.gradients[0] and all("lora_" in n and not n.startswith("caft") for n in watch.gradients[0])
    heads = {n: p for n, p in watch.final.items() if n.startswith("caft")}
    assert heads.keys() == state(trained).keys()
    assert all(torch.equal(p, state(trained)[n]) for n, p in heads.items())
    saved = open_base(done.work / "artifact")
    assert {n for n, _ in saved.named_parameters()} == base_weights(tiny_model).keys()
    with pytest.raises(Refused, match="`lora` stands after `caft`"):
        tune(tmp_path / "b", tiny_model, trained, LoRA(r=2))


def test_it_stacks_with_a_loss_and_with_a_half_of_the_parameters(
    tmp_path: Path, tiny_model: Path, trained: dict[str, Path]
) -> None:
    watch = Watch()
    make("native").check((HFT(), CAFT(), DFT()))
    done = tune(tmp_path, tiny_model, trained, DFT(), watch, before=(HFT(),), alpha=0.5)
    chosen = {n for n, on in torch.load(done.work / "artifact" / "hft.pt")[0]["trains"].items() if on}
    assert set(watch.gradients[0]) == chosen < set(base_weights(tiny_model))
    assert {"loss", "ahead1", "ahead4"} <= done.curve[0].keys()
    with pytest.raises(Refused, match="`caft` and `lt_sft` both change `stages`"):
        make("native").check((CAFT(), LTSFT()))


def test_a_second_stage_for_the_heads_is_there_if_asked(tmp_path: Path, tiny_model: Path) -> None:
    method = CAFT(adapt_share=0.2)
    make("native").check((method,))
    stages = method.stages(None)
    assert [(s.name, s.init, s.alone) for s in stages] == [
        ("heads", "base", True),
        ("adapt", "heads", True),
        ("tune", "adapt", False),
    ]
    done: dict[str, Path] = {}
    for number, stage in enumerate(stages):
        watch = Watch()
        run = train(tmp_path / stage.name, tiny_model, method, watch, steps=12, stage=number, done=dict(done))
        done[stage.name] = run.work / "artifact"
    heads = state(done, "adapt")
    first = state(done)
    assert not any(torch.equal(p, heads[n]) for n, p in first.items())
    assert all(torch.equal(watch.final[n], heads[n]) for n in first)
