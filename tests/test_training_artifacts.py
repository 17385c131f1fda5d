"""What training leaves on disk, and that it is what was trained."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from harness.errors import HarnessError
from harness.methods import build
from harness.methods.base import Method, Stage
from harness.methods.lora import LoRA
from harness.methods.sft import SFT
from harness.training.adapters import TrainTask
from harness.training.stage import run_stage
from tests.training import Watch, make_rows, train

IDS = torch.arange(5, 25)[None]


def open_model(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def run(work: Path, model: Path, *stack: Method) -> Path:
    """A stack that has no rows to train on."""
    task = TrainTask(model=model, stack=tuple((m.name, {}) for m in stack), rows={})
    assert run_stage(task, stack, work, [], lambda done, total, note: None).status == "ok"
    return work


def logits(model: Any) -> Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits


class Logits(Method):
    """Keeps the live model's logits as they are at the end of the stage."""

    name = "logits"

    def after_stage(self, model: Any, ctx: Any) -> None:
        self.seen = logits(model)


# --- full -----------------------------------------------------------------------------------------------------------
def test_sft_leaves_a_bfloat16_folder_that_holds_what_was_trained(tmp_path: Path, tiny_model: Path) -> None:
    from safetensors.torch import load_file

    watch = Watch()
    done = train(tmp_path, tiny_model, SFT(), watch)
    folder = done.work / "artifact"
    body = json.loads((folder / "artifact.json").read_text())
    assert (body["kind"], body["method"]) == ("full", ["sft"])
    saved = load_file(folder / "model.safetensors")
    assert {t.dtype for t in saved.values()} == {torch.bfloat16}
    assert all(torch.equal(t, watch.final[n].bfloat16()) for n, t in saved.items())
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        assert (folder / name).read_bytes() == (tiny_model / name).read_bytes()
    assert done.result.cost["artifact_bytes"] == sum(p.stat().st_size for p in folder.iterdir())


def test_fp32_weights_move_where_bfloat16_weights_round_updates_away(tmp_path: Path, tiny_model: Path) -> None:
    """20 AdamW steps at lr 5e-5: at least 90 % of our weights change; of pure bf16 weights, on the same gradients, not.

    The start weights are scaled to the size that trained models have (0.1 and more); bf16 keeps 8 bits.
    """

    class AsTrained(Method):
        name = "as-trained"

        def wrap(self, model: Any, ctx: Any) -> Any:
            with torch.no_grad():
                for p in model.parameters():
                    p.copy_((p * 8).bfloat16())
            return model

        def after_stage(self, model: Any, ctx: Any) -> None:
            moved = sum(int((p != ctx.start[n]).sum()) for n, p in model.named_parameters())
            total = sum(p.numel() for n, p in model.named_parameters())
            self.share = moved / total
            self.start = dict(ctx.start)

    method, watch = AsTrained(), Watch()
    train(tmp_path, tiny_model, method, watch, steps=20, lr=5e-5, precision="bf16")
    assert method.share >= 0.9

    low = {n: p.bfloat16().requires_grad_() for n, p in method.start.items()}
    optimizer = torch.optim.AdamW(low.values(), lr=5e-5, weight_decay=0.0)
    for gradients in watch.gradients:
        for name, p in low.items():
            p.grad = gradients[name].bfloat16()
        optimizer.step()
    moved = sum(int((p.float() != method.start[n]).sum()) for n, p in low.items())
    assert moved / sum(p.numel() for p in low.values()) < 0.9


# --- adapter --------------------------------------------------------------------------------------------------------
def test_lora_starts_from_the_base_exactly(tmp_path: Path, tiny_model: Path) -> None:
    class First(Method):
        name = "first"

        def token_weight(self, tok: Any, ctx: Any) -> None:
            if ctx.step == 0:
                self.live, self.base = tok.logp, ctx.forward(tok.batch.seqs, model="base").logp

    first = First()
    train(tmp_path, tiny_model, LoRA(), first, steps=1)
    assert torch.equal(first.live, first.base)


def test_peft_loads_the_adapter_and_gives_the_trained_logits(tmp_path: Path, tiny_model: Path) -> None:
    from peft import PeftModel

    seen = Logits()
    folder = train(tmp_path, tiny_model, *build((("lora", {"r": 4}), ("dft", {}))), seen, lr=1e-2).work / "artifact"
    assert json.loads((folder / "artifact.json").read_text())["kind"] == "adapter"
    assert not list(folder.glob("model*.safetensors"))
    adapted = PeftModel.from_pretrained(open_model(tiny_model), folder)
    assert (logits(adapted) - seen.seen).abs().max() < 1e-5
    assert (logits(adapted) - logits(open_model(tiny_model))).abs().max() > 1e-3
    assert (logits(adapted.merge_and_unload()) - seen.seen).abs().max() < 1e-5


def test_lora_trains_only_its_own_parameters_and_not_the_head(tmp_path: Path, tiny_model: Path) -> None:
    watch = Watch()
    done = train(tmp_path, tiny_model, LoRA(r=2), watch)
    assert watch.gradients[0]
    assert all("lora_" in name and "lm_head" not in name for name in watch.gradients[0])
    assert done.result.cost["trainable_parameters"] == sum(g.numel() for g in watch.gradients[0].values())


def test_the_adapter_folder_is_the_same_for_every_process(tmp_path: Path, tiny_model: Path) -> None:
    folders = [train(tmp_path / n, tiny_model, LoRA(r=2)).work / "artifact" for n in "ab"]
    for name in ("adapter_config.json", "adapter_model.safetensors", "artifact.json"):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()
    config = json.loads((folders[0] / "adapter_config.json").read_text())
    assert config["target_modules"] == sorted(config["target_modules"])
    assert config["base_model_name_or_path"] is None


def test_a_wrong_target_module_is_a_clear_error(tmp_path: Path, tiny_model: Path) -> None:
    with pytest.raises(HarnessError, match="no layer of this model is named"):
        train(tmp_path, tiny_model, LoRA(target_modules=("query",)))


class Scale(Method):
    """A parameter of its own beside the base, folded into the weights at the end."""

    name = "scale"

    def wrap(self, model: Any, ctx: Any) -> Any:
        model.model.norm.gain = torch.nn.Parameter(torch.zeros(model.config.hidden_size))
        self.hook = model.model.norm.register_forward_hook(lambda m, x, y: y * (1 + m.gain))
        return model

    def unwrap(self, model: Any, ctx: Any) -> Any:
        self.hook.remove()
        norm = model.model.norm
        with torch.no_grad():
            norm.weight *= 1 + norm.gain
        del norm.gain
        return model


def test_a_stack_whose_other_member_must_fold_leaves_merged_full_weights(tmp_path: Path, tiny_model: Path) -> None:
    seen, watch = Logits(), Watch()
    folder = train(tmp_path, tiny_model, LoRA(r=4), Scale(), seen, watch, lr=1e-2).work / "artifact"
    assert any(n.endswith("norm.gain") for n in watch.gradients[0])
    assert not any("base_layer" in n for n in watch.gradients[0])  # frozen: lora freezes the base
    assert json.loads((folder / "artifact.json").read_text())["kind"] == "full"
    assert (logits(open_model(folder)) - seen.seen).abs().max() < 0.05  # saved in bfloat16


def test_merged_equals_unmerged(tiny_model: Path) -> None:
    torch.manual_seed(0)
    method, model = LoRA(r=4), open_model(tiny_model)
    method.wrap(model, None)  # type: ignore[arg-type]
    for name, p in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(p, std=0.1)
    before = logits(model)
    names = {n for n, _ in open_model(tiny_model).named_parameters()}
    merged = method.unwrap(model, None)  # type: ignore[arg-type]
    assert (logits(merged) - before).abs().max() < 1e-5
    assert {n for n, _ in merged.named_parameters()} == names


# --- stages, chains, no training ------------------------------------------------------------------------------------
class TwoStages(Method):
    """Trains the first layer, then everything from there; the second stage reads what the first one kept."""

    name = "two-stages"

    def stages(self, ctx: Any) -> list[Stage]:
        return [Stage("low", share=0.5), Stage("all", init="low", ref="low", settings={"lr": 1e-4})]

    def train_only(self, names: Any, ctx: Any) -> Any:
        return [n for n in names if "layers.0." in n] if ctx.stage.name == "low" else names

    def after_stage(self, model: Any, ctx: Any) -> None:
        if ctx.stage.name == "low":
            ctx.memory["norm"] = float(model.model.norm.weight.norm())
        else:
            self.recalled = ctx.memory["norm"]
        self.final = {n: p.detach().clone() for n, p in model.named_parameters()}
        self.start = {n: p.clone() for n, p in ctx.start.items()}


def test_a_later_stage_starts_from_the_earlier_one_as_it_stood(tmp_path: Path, tiny_model: Path) -> None:
    one, two = TwoStages(), TwoStages()
    first = train(tmp_path / "1", tiny_model, one, steps=6)
    assert json.loads((first.work / "artifact" / "artifact.json").read_text())["kind"] == "stage"
    assert len(first.losses) == 2  # share 0.5 of 1.5
    base = open_model(tiny_model)
    moved = {n for n, p in base.named_parameters() if not torch.equal(p, one.final[n])}
    assert moved
    assert all("layers.0." in n for n in moved)
    second = train(tmp_path / "2", tiny_model, two, steps=6, stage=1, done={"low": first.work / "artifact"})
    assert all(torch.equal(one.final[n], p) for n, p in two.start.items())
    assert two.recalled == pytest.approx(float(base.model.norm.weight.detach().norm()))
    assert second.curve[0]["lr"] < 1e-3
    assert (second.work / "artifact" / "model.safetensors").exists()


def test_the_reference_of_a_stage_is_its_earlier_stage(tmp_path: Path, tiny_model: Path) -> None:
    class Compare(TwoStages):
        def token_weight(self, tok: Any, ctx: Any) -> None:
            if ctx.stage.name == "all" and ctx.step == 0:
                self.gap = float((tok.logp - tok.ref.logp).abs().max())

    first = train(tmp_path / "1", tiny_model, Compare(), steps=6)
    method = Compare()
    second = train(tmp_path / "2", tiny_model, method, steps=6, stage=1, done={"low": first.work / "artifact"})
    assert method.gap == 0.0
    assert second.result.cost["extra_forward_tokens"]["low"] > 0


def test_a_run_can_start_from_another_runs_artifact(tmp_path: Path, tiny_model: Path) -> None:
    for name, stack in (("full", (SFT(),)), ("adapter", (LoRA(r=4),))):
        seen, start = Logits(), Watch()
        folder = train(tmp_path / name, tiny_model, *copy.deepcopy(stack), seen, lr=1e-2).work / "artifact"

        class Begin(Method):
            name = "begin"

            def wrap(self, model: Any, ctx: Any) -> Any:
                self.seen = logits(model)
                return model

        begin = Begin()
        train(tmp_path / f"{name}-on", tiny_model, begin, start, init=folder, steps=1)
        assert (begin.seen - seen.seen).abs().max() < 0.05


def test_a_stack_without_stages_leaves_what_its_members_made(tmp_path: Path, tiny_model: Path) -> None:
    class Edit(Method):
        name = "edit"

        def stages(self, ctx: Any) -> list[Stage]:
            return []

        def wrap(self, model: Any, ctx: Any) -> Any:
            with torch.no_grad():
                model.model.norm.weight *= 2
            return model

    done = run(tmp_path, tiny_model, Edit())
    edited = open_model(done / "artifact")
    assert torch.equal(edited.model.norm.weight, 2 * open_model(tiny_model).model.norm.weight)


def test_nothing_left_to_train_is_an_error(tmp_path: Path, tiny_model: Path) -> None:
    class Frozen(Method):
        name = "frozen"
        freeze = True

    with pytest.raises(HarnessError, match="no parameter is left to train") as caught:
        train(tmp_path, tiny_model, Frozen(), rows=make_rows(4))
    assert "frozen" in caught.value.why


def test_optimiser_options_by_parameter(tmp_path: Path, tiny_model: Path) -> None:
    class SlowNorms(Method):
        name = "slow-norms"

        def train_only(self, names: Any, ctx: Any) -> Any:
            return {n: {"lr": 0.0} if "norm" in n else {} for n in names}

    watch = Watch()
    train(tmp_path, tiny_model, SlowNorms(), watch)
    base = dict(open_model(tiny_model).named_parameters())
    assert {"norm" in n for n, p in watch.final.items() if torch.equal(p, base[n])} == {True}


def test_kept_weights_end_the_stage(tmp_path: Path, tiny_model: Path) -> None:
    class KeepSecond(Method):
        name = "keep-second"

        def after_step(self, model: Any, ctx: Any) -> None:
            if ctx.step == 2:
                ctx.keep()

    watch, two = Watch(), Watch()
    train(tmp_path / "a", tiny_model, KeepSecond(), watch, steps=5, schedule="constant", warmup=0.0)
    train(tmp_path / "b", tiny_model, two, SFT(), steps=2, schedule="constant", warmup=0.0)
    assert all(torch.equal(p, two.final[n]) for n, p in watch.final.items())


def test_side_files_are_saved_with_the_artifact(tmp_path: Path, tiny_model: Path) -> None:
    class Saves(Method):
        name = "saves"

        def after_stage(self, model: Any, ctx: Any) -> None:
            ctx.save("terms", {"a": torch.ones(2)})

    folder = train(tmp_path, tiny_model, Saves(), steps=1).work / "artifact"
    assert torch.load(folder / "terms.pt", weights_only=True)["a"].tolist() == [1.0, 1.0]
