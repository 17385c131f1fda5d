"""`lofit`: heads chosen by learned scales, offsets learned for them, and a bias that does the same."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from harness.errors import Refused
from harness.methods.base import Method, Stage, Term
from harness.methods.dft import DFT
from harness.methods.facts import ModelFacts
from harness.methods.lofit import SERVED, LoFiT
from harness.methods.lora import LoRA
from harness.methods.sft import SFT
from tests.training import Done, Watch, make_rows, train

IDS = torch.arange(5, 25)[None]
HEADS, LAYERS, WIDTH = 4, 2, 8


def open_model(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def logits(model: Any) -> Tensor:
    with torch.no_grad():
        out: Tensor = model(input_ids=IDS).logits
    return out


def wrapped(model: Any, stage: str, **options: Any) -> tuple[LoFiT, Any]:
    """Wrapped by hand, outside a run."""
    method, saved = LoFiT(**options), {}
    ctx = SimpleNamespace(stage=Stage(stage), stack=(method,), memory={}, model=model, saved=saved)
    ctx.save = saved.__setitem__
    method.wrap(model, ctx)  # type: ignore[arg-type]
    return method, ctx


def edits(model: Any) -> list[Any]:
    return [b.self_attn.o_proj.lofit for b in model.model.layers if hasattr(b.self_attn.o_proj, "lofit")]


class See(Method):
    """Keeps what the model says at the end, without dropout, before and after everything is unwrapped. It stands first
    in a stack, so its `unwrap` is the see."""

    name = "see"

    def after_stage(self, model: Any, ctx: Any) -> None:
        active = [m for m in model.modules() if m.training]
        model.eval()
        self.hooked = logits(model)
        for module in active:
            module.training = True

    def unwrap(self, model: Any, ctx: Any) -> Any:
        self.baked = logits(model)
        return model


@pytest.fixture(scope="module")
def scales(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Done:
    """A first stage that ended."""
    return train(tmp_path_factory.mktemp("scales") / "run", tiny_model, LoFiT(fraction=0.4), steps=6)


def after(scales: Done) -> dict[str, Any]:
    return {"stage": 1, "done": {"scales": scales.work / "artifact"}}


# --- identity -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("stage", ["scales", "offsets"])
def test_edits_of_zero_are_the_base_bit_for_bit_and_the_start_is_near_it(tiny_model: Path, stage: str) -> None:
    base = logits(open_model(tiny_model))
    zero, started = open_model(tiny_model), open_model(tiny_model)
    every = tuple((layer, head) for layer in range(LAYERS) for head in range(HEADS))
    wrapped(zero, stage, std=0.0, heads=every)
    assert torch.equal(logits(zero), base)
    torch.manual_seed(0)
    wrapped(started, stage, heads=every)
    assert 0 < float((logits(started) - base).abs().max()) < 1e-2


def test_the_first_loss_from_zero_is_that_of_sft(tmp_path: Path, tiny_model: Path) -> None:
    sft = train(tmp_path / "sft", tiny_model, SFT(), steps=1)
    assert train(tmp_path / "one", tiny_model, LoFiT(std=0.0, l1=0.0), steps=2).losses[0] == sft.losses[0]


# --- gradients and layout -------------------------------------------------------------------------------------------
@pytest.mark.parametrize("stage", ["scales", "offsets"])
def test_the_gradient_is_what_differences_give(tiny_model: Path, stage: str) -> None:
    model = open_model(tiny_model).double().requires_grad_(False)
    wrapped(model, stage, std=0.1, heads=((0, 1), (1, 0), (1, 3)))
    for e in edits(model):
        e.data = e.data.double()

    def loss() -> Tensor:
        return F.cross_entropy(model(input_ids=IDS).logits[0, :-1], IDS[0, 1:])

    loss().backward()
    norm = float(torch.nn.utils.get_total_norm([e.grad for e in edits(model)]))
    values = []
    with torch.no_grad():
        for step in (1e-2, -1e-2):
            for e in edits(model):
                e += step * e.grad / norm
            values.append(float(loss()))
            for e in edits(model):
                e -= step * e.grad / norm
    assert (values[0] - values[1]) / 2e-2 == pytest.approx(norm, rel=1e-3)


def test_accumulation_cannot_change_the_answer(tmp_path: Path, tiny_model: Path, scales: Done) -> None:
    for name, options in (("scales", {}), ("offsets", after(scales))):
        runs = {}
        for micro in (4, 2, 1):
            watch, work = Watch(), tmp_path / f"{name}{micro}"
            run = train(work, tiny_model, LoFiT(fraction=0.4), watch, steps=4, micro_batch=micro, **options)
            runs[micro] = run.losses, watch.gradients[0]
        for micro in (2, 1):
            assert runs[micro][0] == pytest.approx(runs[4][0], abs=1e-5)
            assert all(torch.allclose(g, runs[4][1][n], rtol=0, atol=1e-6) for n, g in runs[micro][1].items())


# --- closed form ----------------------------------------------------------------------------------------------------
def small(kind: str = "llama", **changes: Any) -> Any:
    """One random layer or two of an architecture."""
    import transformers

    size = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    size |= {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "pad_token_id": 0, **changes}
    config = transformers.AutoConfig.for_model(kind, **size)
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(config).float().eval()


def test_the_worked_example_of_a_bias() -> None:
    """W_o = [[1, 0, 2, 0], [0, 1, 0, -1]], an offset (0.5, -1) on head 1: bias (1, 1)."""
    model = small(hidden_size=2, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1, head_dim=2)
    o = model.model.layers[0].self_attn.o_proj
    o.weight.data = torch.tensor([[1.0, 0, 2, 0], [0, 1, 0, -1]])
    method, ctx = wrapped(model, "offsets", heads=((0, 1),))
    o.lofit.data = torch.tensor([[0.5, -1.0]])
    method.unwrap(model, ctx)
    assert o.bias.tolist() == [1.0, 1.0]
    assert ctx.saved["lofit"]["heads"].tolist() == [[0, 1]]
    assert ctx.saved["lofit"]["offsets"].tolist() == [[0.5, -1.0]]
    assert {n for n, _ in o.named_parameters()} == {"weight", "bias"}


def test_a_scale_of_one_doubles_a_head_and_of_minus_one_removes_it(tiny_model: Path) -> None:
    o = open_model(tiny_model).model.layers[0].self_attn.o_proj
    z, seen = torch.randn(2, 3, o.in_features), []
    model = SimpleNamespace(
        config=SimpleNamespace(model_type="llama", num_attention_heads=HEADS),
        model=SimpleNamespace(layers=[SimpleNamespace(self_attn=SimpleNamespace(o_proj=o))]),
    )
    wrapped(model, "scales", std=0.0)
    o.register_forward_pre_hook(lambda m, inputs: seen.append(inputs[0]))
    for scale, factor in ((1.0, 2.0), (-1.0, 0.0)):
        with torch.no_grad():
            o.lofit.zero_()
            o.lofit[2] = scale
            o(z)
        want = z.view(2, 3, HEADS, WIDTH).clone()
        want[:, :, 2] *= factor
        assert torch.equal(seen[-1], want.view_as(z))


def test_the_penalty_is_on_all_scales_and_in_the_first_stage_only(tiny_model: Path) -> None:
    model = open_model(tiny_model)
    method, ctx = wrapped(model, "scales", l1=0.5)
    with torch.no_grad():
        for e in edits(model):
            e.fill_(-0.25)
    term = method.auxiliary(None, ctx)["l1"]  # type: ignore[arg-type]
    assert term.scale * float(term.value.detach()) == 0.5 * 0.25 * LAYERS * HEADS * WIDTH
    ctx.stage = Stage("offsets")
    assert method.auxiliary(None, ctx) == {}  # type: ignore[arg-type]


# --- training -------------------------------------------------------------------------------------------------------
def test_only_the_edits_train_and_the_base_stays(tmp_path: Path, tiny_model: Path, scales: Done) -> None:
    watch = Watch()
    done = train(tmp_path / "run", tiny_model, LoFiT(fraction=0.4), watch, steps=6, **after(scales))
    heads = round(0.4 * LAYERS * HEADS)
    assert scales.result.cost["trainable_parameters"] == LAYERS * HEADS * WIDTH
    assert done.result.cost["trainable_parameters"] == heads * WIDTH
    assert all(n.endswith("lofit") for n in watch.gradients[0])
    base = dict(open_model(tiny_model).named_parameters())
    assert all(torch.equal(p, watch.final[n]) for n, p in base.items())
    assert {"l1", "loss"} <= set(scales.curve[0])
    assert "l1" not in done.curve[0]
    chosen = torch.load(scales.work / "artifact" / "memory.pt", weights_only=True)["lofit"]
    assert chosen["scores"].shape == (LAYERS, HEADS)
    best = sorted(chosen["scores"].flatten().argsort(descending=True)[:heads].tolist())
    assert chosen["heads"] == [list(divmod(i, HEADS)) for i in best]


def test_rates_are_its_own_and_nothing_decays(tmp_path: Path, tiny_model: Path) -> None:
    class Adam(Method):
        name = "adam"

        def optimizer(self, groups: Any, ctx: Any) -> Any:
            self.groups = groups
            return torch.optim.AdamW(groups)

    adam = Adam()
    train(tmp_path, tiny_model, LoRA(r=2), LoFiT(scale_lr=0.02), adam, steps=2, lr=1e-4, weight_decay=0.1)
    options = {(len(g["params"]), g["initial_lr"], g["weight_decay"]) for g in adam.groups}
    assert (LAYERS, 0.02, 0.0) in options
    assert {(lr, decay) for _, lr, decay in options} == {(0.02, 0.0), (1e-4, 0.1)}


def test_the_choice_is_the_same_for_a_seed_and_another_for_another(
    tmp_path: Path, tiny_model: Path, scales: Done
) -> None:
    again = train(tmp_path / "again", tiny_model, LoFiT(fraction=0.4), steps=6)
    a, b = (torch.load(d.work / "artifact" / "memory.pt")["lofit"] for d in (scales, again))
    assert a["heads"] == b["heads"]
    assert torch.equal(a["scores"], b["scores"])
    other = train(tmp_path / "other", tiny_model, LoFiT(fraction=0.4), steps=6, seed=1)
    assert not torch.equal(a["scores"], torch.load(other.work / "artifact" / "memory.pt")["lofit"]["scores"])


def test_a_head_that_alone_reaches_the_output_is_chosen(tmp_path: Path, tiny_model: Path) -> None:
    class Cut(Method):
        """Every head but one is cut from its output layer."""

        name = "cut"

        def wrap(self, model: Any, ctx: Any) -> Any:
            with torch.no_grad():
                for layer, block in enumerate(model.model.layers):
                    kept = torch.zeros(HEADS)
                    kept[2] = 20.0 * (layer == 1)
                    block.self_attn.o_proj.weight *= kept.repeat_interleave(WIDTH)
            return model

    done = train(tmp_path, tiny_model, Cut(), LoFiT(fraction=0.1, l1=5e-3), steps=24)
    assert torch.load(done.work / "artifact" / "memory.pt")["lofit"]["heads"] == [[1, 2]]


def test_controls_take_their_heads_without_a_first_stage(tmp_path: Path, tiny_model: Path) -> None:
    assert [s.name for s in LoFiT().stages(None)] == ["scales", "offsets"]
    chosen = []
    for name, options, seed in (
        ("a", {"select": "random", "fraction": 0.4}, 0),
        ("b", {"select": "random", "fraction": 0.4}, 0),
        ("c", {"select": "random", "fraction": 0.4}, 1),
        ("d", {"heads": ((1, 3), (0, 2))}, 0),
    ):
        method = LoFiT(**options)  # type: ignore[arg-type]
        assert [s.name for s in method.stages(None)] == ["offsets"]
        done = train(tmp_path / name, tiny_model, method, steps=1, seed=seed)
        chosen.append(torch.load(done.work / "artifact" / "lofit.pt")["heads"].tolist())
    assert chosen[0] == chosen[1] != chosen[2]
    assert [len(c) for c in chosen] == [3, 3, 3, 2]
    assert chosen[3] == [[0, 2], [1, 3]]


class DPO(Method):
    """arXiv 2305.18290, against the frozen base."""

    name, needs = "pairs", frozenset({"ref", "pairs"})

    def loss(self, tok: Any, ctx: Any) -> Term:
        gain = tok.logp - tok.ref.logp
        return Term(-F.logsigmoid(0.5 * (tok.view("chosen").row_sum(gain) - tok.view("rejected").row_sum(gain))))


def test_on_pairs_it_starts_at_log_two(tmp_path: Path, tiny_model: Path) -> None:
    no = {"role": "assistant", "content": "no"}
    rows = [{"id": r["id"], "chosen": r["messages"], "rejected": [r["messages"][0], no]} for r in make_rows(8)]
    zero, near = (
        train(tmp_path / f"{std}", tiny_model, DPO(), LoFiT(std=std, l1=0.0), rows=rows, steps=2).losses[0]
        for std in (0.0, 1e-3)
    )
    assert zero == pytest.approx(math.log(2), abs=1e-6)
    assert near == pytest.approx(math.log(2), abs=1e-2)


# --- serving --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", SERVED)
def test_the_bias_does_what_the_hooks_do_and_the_folder_opens(tmp_path: Path, kind: str) -> None:
    from transformers import AutoModelForCausalLM

    model = small(kind)
    method, ctx = wrapped(model, "offsets", std=0.5, heads=((0, 0), (0, 3), (1, 2)))
    hooked = logits(model)
    baked = method.unwrap(model, ctx)
    assert (logits(baked) - hooked).abs().max() < 1e-5
    assert (logits(small(kind)) - hooked).abs().max() > 1e-3
    baked.save_pretrained(tmp_path)
    opened, info = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert (logits(opened.eval()) - hooked).abs().max() < 1e-5


def test_biases_that_were_there_are_kept() -> None:
    model = small(attention_bias=True)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name.endswith("bias"):
                p.normal_()
    method, ctx = wrapped(model, "offsets", std=0.5, heads=((1, 1),))
    hooked = logits(model)
    assert (logits(method.unwrap(model, ctx)) - hooked).abs().max() < 1e-5


def test_the_artifact_is_a_plain_folder_whose_logits_are_those_of_the_hooks(
    tmp_path: Path, tiny_model: Path, scales: Done
) -> None:
    from harness.engines.base import Artifact
    from harness.engines.hf import load
    from harness.engines.weights import check_fit, structure

    see = See()
    folder = train(tmp_path, tiny_model, see, LoFiT(fraction=0.4), steps=6, **after(scales)).work / "artifact"
    assert (see.baked - see.hooked).abs().max() < 1e-5
    assert json.loads((folder / "artifact.json").read_text())["kind"] == "full"
    assert json.loads((folder / "config.json").read_text())["attention_bias"] is True
    model: Any = load(folder, "float32")
    assert (logits(model) - see.hooked).abs().max() < 0.05  # saved in bfloat16
    check_fit(Artifact(tiny_model, "0", "full", folder), folder)
    side = torch.load(folder / "lofit.pt", weights_only=True)
    edited = {layer for layer, _ in side["heads"].tolist()}
    for layer, block in enumerate(model.model.layers):
        attention = block.self_attn
        assert not any(p.bias.any() for p in (attention.q_proj, attention.k_proj, attention.v_proj))
        assert bool(attention.o_proj.bias.any()) is (layer in edited)
    names = {n for n, _ in model.named_parameters()}
    new = names - {n for n, _ in open_model(tiny_model).named_parameters()}
    assert {n.split("self_attn.")[1] for n in new} == {f"{x}_proj.bias" for x in "qkvo"}
    assert new == structure(folder).keys() - structure(tiny_model).keys()  # what an engine must have room for


def test_generation_with_a_cache_is_that_without(tiny_model: Path) -> None:
    model = open_model(tiny_model)
    wrapped(model, "offsets", std=0.5, heads=((0, 1), (1, 2)))
    options: dict[str, Any] = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    mask = torch.ones_like(IDS)
    with_cache, without = (model.generate(IDS, attention_mask=mask, use_cache=on, **options) for on in (True, False))
    assert with_cache.tolist() == without.tolist()


# --- resume, stacks, refusals ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("stage", [0, 1])
def test_interrupted_and_continued(tmp_path: Path, tiny_model: Path, scales: Done, stage: int) -> None:
    options: dict[str, Any] = {"steps": 10, **(after(scales) if stage else {})}
    whole = train(tmp_path / "whole", tiny_model, LoFiT(fraction=0.4), **options)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "cut", tiny_model, LoFiT(fraction=0.4), Watch(4), checkpoint_seconds=1e-9, **options)
    again = train(tmp_path / "again", tiny_model, LoFiT(fraction=0.4), earlier=[tmp_path / "cut"], **options)
    assert again.result.summary["resumed_at"] == 3
    assert again.curve == whole.curve


def test_after_an_adapter_and_with_an_objective_the_unwrapped_model_is_the_wrapped_one(
    tmp_path: Path, tiny_model: Path
) -> None:
    def stack() -> tuple[Method, ...]:
        return LoRA(r=2, dropout=0.1), LoFiT(fraction=0.4), DFT()

    first = train(tmp_path / "1", tiny_model, *stack(), steps=6, lr=1e-2)
    watch, see = Watch(), See()
    train(tmp_path / "2", tiny_model, see, *stack(), watch, steps=6, lr=1e-2, **after(first))
    kinds = {n.rsplit(".", 1)[1] if n.endswith("lofit") else "lora" for n in watch.gradients[0]}
    assert kinds == {"lofit", "lora"}
    assert (see.baked - see.hooked).abs().max() < 1e-5


def test_a_member_that_would_replace_its_layers_is_refused() -> None:
    stack = LoFiT(), LoRA()
    with pytest.raises(Refused, match="`lora` stands after `lofit`") as caught:
        stack[0].check(ModelFacts("tiny", kind="llama"), stack)
    assert "put `lofit` after `lora`" in str(caught.value)


@pytest.mark.parametrize("kind", ["qwen2", "qwen3", "mistral", "gemma"])
def test_an_architecture_that_cannot_serve_the_bias_is_refused(kind: str) -> None:
    with pytest.raises(Refused, match=f"`{kind}` models have no place for it"):
        LoFiT().check(ModelFacts("tiny", kind=kind), ())


def test_a_head_that_the_model_does_not_have_is_refused(tmp_path: Path, tiny_model: Path) -> None:
    with pytest.raises(Refused, match=r"`heads` of `lofit` names the head \(2, 0\)") as caught:
        train(tmp_path, tiny_model, LoFiT(heads=((2, 0),)))
    assert "(0, 0) to (1, 3)" in str(caught.value)
