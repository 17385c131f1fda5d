"""What every engine must do, asked of every engine; and what the reference engine must do besides."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.engines import make, names
from harness.engines.base import Artifact, Engine, EngineSpec, Request, Response
from harness.engines.fake import FakeEngine
from harness.engines.prepared import prepare
from harness.engines.prompts import Prompts
from harness.errors import HarnessError, MissingExtra, StepFailed
from tests.engine_process import EngineProcess
from tests.tiny import make_tiny_model

SPEC = EngineSpec(dtype="float32", max_model_len=200, memory=0.25)
CHAT = Request(messages=({"role": "user", "content": "hello there"},), max_tokens=12)


def make_artifacts(folder: Path) -> dict[str, Artifact]:
    """A base, two sets of full weights, and two adapters of the base that do something."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = make_tiny_model(folder / "base", width=128)
    found = {"base": Artifact(base, "base")}
    for seed in (1, 2):
        path = folder / f"full{seed}"
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_pretrained(base)
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(torch.randn_like(weight), alpha=0.02)
        model.save_pretrained(path)
        (path / "artifact.json").write_text(json.dumps({"kind": "full"}))
        found[path.name] = Artifact(base, path.name, "full", path, path.name)
    config = LoraConfig(r=4, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM", init_lora_weights=False)
    for name in ("adapter", "adapter2"):
        get_peft_model(AutoModelForCausalLM.from_pretrained(base), config).save_pretrained(folder / name)
        found[name] = Artifact(base, name, "adapter", folder / name, name)
    return found


def add_biases(base: Path, folder: Path, size: float, where: str = "") -> None:
    """Write a model with biases of all its linear layers, random of that size in layers whose name has `where`."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(base, dtype="auto")
    for name, layer in model.model.named_modules():
        if isinstance(layer, torch.nn.Linear):
            values = size * torch.randn(layer.out_features) if where in name else torch.zeros(layer.out_features)
            layer.bias = torch.nn.Parameter(values.to(layer.weight.dtype))
    model.config.attention_bias = model.config.mlp_bias = True
    model.save_pretrained(folder)


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    return make_artifacts(tmp_path_factory.mktemp("artifacts"))


@pytest.fixture(scope="module", params=["fake", "hf", pytest.param("vllm", marks=pytest.mark.real)])
def engine(request: pytest.FixtureRequest, artifacts: dict[str, Artifact]) -> Iterator[Engine]:
    """An open engine of each kind, with the base active."""
    made: Engine = EngineProcess("vllm") if request.param == "vllm" else make(request.param)
    made.open(artifacts["base"].base, SPEC)
    made.activate(artifacts["base"])
    yield made
    made.close()


def answers(engine: Engine, requests: list[Request]) -> dict[str, Response]:
    given = {response.key: response for response in engine.generate(requests)}
    assert given.keys() == {request.key for request in requests}
    return given


def one(engine: Engine, request: Request) -> Response:
    return answers(engine, [request])[request.key]


def said(given: dict[str, Response]) -> dict[str, Any]:
    """What was answered; other requests in the batch may move a log-probability in its last places."""
    return {key: (response.text, response.tokens, response.finish) for key, response in given.items()}


def test_every_engine_is_known_by_name() -> None:
    assert {"vllm", "hf", "fake"} <= set(names())
    assert isinstance(make("fake"), FakeEngine)


def test_a_mistyped_engine_gets_the_nearest_name() -> None:
    with pytest.raises(HarnessError, match="vllm"):
        make("vlm")


def test_a_machine_without_vllm_is_told_how_to_install_it(
    artifacts: dict[str, Artifact], monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness.engines.vllm_start import start

    monkeypatch.setenv("TORCHDYNAMO_DISABLE", "1")
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(MissingExtra) as caught:
        start(artifacts["base"].base, SPEC, 200)
    assert "make setup" in caught.value.todo


def test_the_same_request_twice_gives_the_same_answer(engine: Engine) -> None:
    assert one(engine, CHAT) == one(engine, CHAT)


def test_sampling_depends_on_the_seed_and_on_nothing_else(engine: Engine) -> None:
    drawn = [CHAT.but(temperature=1.0, top_p=0.9, seed=seed) for seed in range(6)]
    together = answers(engine, drawn)
    backwards = answers(engine, drawn[::-1])
    alone = {request.key: one(engine, request) for request in drawn}
    assert said(together) == said(backwards) == said(alone)
    assert len(set(said(together).values())) > 3, "repeats that differ in their seeds alone are distinct"


def test_neighbours_in_a_batch_change_no_answer(engine: Engine) -> None:
    check_neighbours(engine)


def test_a_model_whose_layers_see_a_window_only_answers_the_same_in_a_batch(tmp_path: Path) -> None:
    import torch
    from transformers import MistralConfig, MistralForCausalLM

    base = make_tiny_model(tmp_path)
    config = json.loads((base / "config.json").read_text())
    config = {k: v for k, v in config.items() if k not in ("architectures", "model_type", "layer_types")}
    torch.manual_seed(1)
    MistralForCausalLM(MistralConfig(**config, sliding_window=8)).save_pretrained(base)
    engine = make("hf")
    engine.open(base, SPEC)
    engine.activate(Artifact(base, "windows"))
    check_neighbours(engine)


def check_neighbours(engine: Engine) -> None:
    """Requests with one beginning and ends of their own get the answers that each gets alone."""
    begins = "what all of them begin with, "
    asked = [
        Request(text=begins + own, max_tokens=n) for own, n in (("", 9), ("and one more", 2), ("at length " * 4, 5))
    ]
    alone = {request.key: one(engine, request) for request in asked}
    together = answers(engine, asked)
    assert said(together) == said(alone)
    for key, response in together.items():
        assert response.logprobs == pytest.approx(alone[key].logprobs, abs=1e-3)
    choose = [
        Request("choose", text=begins, choices=("a", "bc", "at length")),
        Request("choose", text="z", choices=("a", "b")),
    ]
    for request in choose:
        [response] = engine.loglikelihood([request])
        for choice, value in zip(request.choices, response.logprobs, strict=True):
            [single] = engine.loglikelihood([request.but(choices=(choice,))])
            assert single.logprobs == pytest.approx((value,), abs=1e-3)


def test_an_answer_stops_before_a_stop_string(engine: Engine) -> None:
    free = one(engine, CHAT)
    stop = free.text[3:5]
    cut = one(engine, CHAT.but(stop=("never said", stop)))
    assert cut.text == free.text[: free.text.index(stop)]
    assert cut.finish == "stop"


def test_an_answer_that_reaches_its_limit_says_so(engine: Engine) -> None:
    response = one(engine, CHAT.but(max_tokens=3))
    assert response.finish == "length"
    assert response.generated_tokens == 3
    assert response.prompt_tokens == engine.prompt_tokens(CHAT)


def test_an_answer_is_cut_where_the_context_ends(engine: Engine) -> None:
    request = Request(text="a " * 95, max_tokens=500)
    response = one(engine, request)
    assert response.prompt_tokens + response.generated_tokens <= SPEC.max_model_len
    assert response.finish in ("length", "stop")


@pytest.mark.parametrize("kind", ["generate", "choose"])
def test_a_prompt_that_does_not_fit_is_refused_before_any_answer(engine: Engine, kind: Any) -> None:
    short, long = (Request(kind, text=text, choices=("a", "b")) for text in ("short", "word " * 300))
    ask = engine.generate if kind == "generate" else engine.loglikelihood
    with pytest.raises(HarnessError, match="200") as caught:
        next(iter(ask([short, long])))
    assert "max_model_len" in caught.value.todo


def test_every_choice_gets_a_log_probability(engine: Engine) -> None:
    request = Request("choose", text="yes or no?", choices=(" y", " no", " perhaps"))
    [response] = engine.loglikelihood([request])
    assert response.key == request.key
    assert len(response.logprobs) == len(response.greedy) == 3
    assert all(value < 0 for value in response.logprobs)


def test_activation_changes_the_answers_and_changes_them_back(engine: Engine, artifacts: dict[str, Artifact]) -> None:
    requests = [CHAT, CHAT.but(prefix="So"), Request(text="once upon", max_tokens=12)]
    first = answers(engine, requests)
    seen = [first]
    for name in ("full1", "adapter", "full2"):
        record = engine.activate(artifacts[name])
        assert record.digest == artifacts[name].digest
        now = answers(engine, requests)
        assert now not in seen
        seen.append(now)
    engine.activate(artifacts["full1"])
    assert answers(engine, requests) == seen[1]
    engine.activate(artifacts["base"])
    assert answers(engine, requests) == first


def test_a_response_keeps_its_tokens_and_survives_its_json(engine: Engine) -> None:
    response = one(engine, CHAT)
    assert len(response.tokens) == len(response.logprobs) == response.generated_tokens > 0
    assert all(value <= 0 for value in response.logprobs)
    assert Response.from_json(json.loads(json.dumps(response.as_json()))) == response


def test_log_probabilities_are_those_of_a_plain_forward_pass(engine: Engine, artifacts: dict[str, Artifact]) -> None:
    if engine.name == "fake":
        pytest.skip("a fake has no model")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base = artifacts["base"].base
    model, tokenizer = AutoModelForCausalLM.from_pretrained(base), AutoTokenizer.from_pretrained(base)
    requests = [
        Request("choose", text="the answer is ", choices=("a", "bc", "long one")),
        Request("choose", text="one letter:", choices=("x", "y")),
        CHAT.but(kind="choose", prefix="It is", choices=(" so", " not")),
    ]
    given = {response.key: response for response in engine.loglikelihood(requests)}
    for request in requests:
        prompt = request.text + request.prefix
        if request.messages:
            turns = list(request.messages)
            prompt = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True) + request.prefix
        for choice, value in zip(request.choices, given[request.key].logprobs, strict=True):
            # a choice takes the prompt's trailing spaces along, as in lm-eval
            kept = len(tokenizer(prompt.rstrip())["input_ids"])
            ids = torch.tensor([tokenizer(prompt + choice)["input_ids"]])
            with torch.no_grad():
                table = model(ids).logits[0, :-1].log_softmax(-1)
            expected = table[kept - 1 :].gather(1, ids[0, kept:, None]).sum().item()
            assert value == pytest.approx(expected, abs=1e-3)


def test_the_log_probabilities_of_an_answer_are_those_of_its_tokens_without_temperature(
    engine: Engine, artifacts: dict[str, Artifact]
) -> None:
    if engine.name == "fake":
        pytest.skip("a fake has no model")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base = artifacts["base"].base
    model, tokenizer = AutoModelForCausalLM.from_pretrained(base), AutoTokenizer.from_pretrained(base)
    answer = one(engine, Request(text="one more", max_tokens=6, temperature=2.0, seed=3))
    prompt = tokenizer("one more")["input_ids"]
    with torch.no_grad():
        table = model(torch.tensor([[*prompt, *answer.tokens]])).logits[0].log_softmax(-1)
    expected = [float(table[len(prompt) - 1 + i, token]) for i, token in enumerate(answer.tokens)]
    assert answer.logprobs == pytest.approx(expected, abs=1e-3)


def test_greedy_says_what_greedy_decoding_would_have_said(engine: Engine) -> None:
    if engine.name == "fake":
        pytest.skip("a fake has no model")
    prompt = Request(text="the first letter is", max_tokens=1)
    said = one(engine, prompt).text
    rival = next(letter for letter in "abcdefgh" if letter != said)
    for choices in ((said, rival), (said, rival + rival)):  # one step, and in full
        [response] = engine.loglikelihood([Request("choose", text=prompt.text, choices=choices)])
        assert response.greedy == (True, False)


def test_a_merged_adapter_answers_as_the_unmerged_one(artifacts: dict[str, Artifact]) -> None:
    engine = make("hf")
    engine.open(artifacts["base"].base, SPEC)
    engine.activate(artifacts["adapter"])
    request = Request("choose", text="compare", choices=("a", "bcd"))
    [unmerged] = engine.loglikelihood([request])
    ready = prepare(artifacts["adapter"], "float32", [[5, 6, 7]], [8, 9])
    engine.activate(Artifact(artifacts["base"].base, "merged", "full", ready.folder))
    [same] = engine.loglikelihood([request])
    assert same.logprobs == pytest.approx(unmerged.logprobs, abs=1e-4)
    ready.discard()
    assert not ready.folder.exists()


def test_weights_that_do_not_fit_the_base_are_refused(artifacts: dict[str, Artifact], tmp_path: Path) -> None:
    other = make_tiny_model(tmp_path / "narrow", width=32)
    with pytest.raises(StepFailed, match="do not fit") as caught:
        prepare(replace(artifacts["full1"], path=other), "float32", [[5]], [6])
    assert "hf" in caught.value.todo


def test_an_artifact_may_have_tensors_that_its_base_has_not(artifacts: dict[str, Artifact], tmp_path: Path) -> None:
    from harness.engines.weights import structure

    base = artifacts["base"].base
    add_biases(base, tmp_path, 0.1)
    ready = prepare(Artifact(base, "x", "full", tmp_path), "float32", [[5]], [6])
    new = ready.structure.keys() - structure(base).keys()
    assert len(new) == 2 * 7 and all(name.endswith("_proj.bias") for name in new)


@pytest.mark.parametrize(
    ("bias", "dropped", "said"),
    [
        (True, "self_attn.o_proj.bias", "lack 2 tensors that their configuration builds"),
        (True, "bias", "lack 8 tensors that their configuration builds"),
        (True, "self_attn.o_proj.weight", "do not fit its base: 2 tensors"),
        (False, "nothing", "have 8 tensors that their configuration does not build"),
        (True, "cut", "have 1 tensors of other shapes than their configuration builds"),
    ],
)
def test_weights_that_are_not_what_their_own_configuration_builds_are_refused(
    artifacts: dict[str, Artifact], tmp_path: Path, bias: bool, dropped: str, said: str
) -> None:
    from safetensors.torch import load_file, save_file

    base, file = artifacts["base"].base, tmp_path / "model.safetensors"
    add_biases(base, tmp_path, 0.1)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "attention_bias": bias, "mlp_bias": False}))
    gone = (dropped, "gate_proj.bias", "up_proj.bias", "down_proj.bias")
    kept = {n: t for n, t in load_file(file).items() if not n.endswith(gone)}
    if dropped == "cut":
        kept["model.layers.0.self_attn.o_proj.bias"] = kept["model.layers.0.self_attn.o_proj.bias"][:-1].clone()
    save_file(kept, file, metadata={"format": "pt"})
    with pytest.raises(StepFailed, match=said) as caught:
        prepare(Artifact(base, "x", "full", tmp_path, "cell"), "float32", [[5]], [6])
    assert caught.value.kind == "user"
    assert "self_attn" in caught.value.why


def test_a_foreign_tokenizer_is_refused_whatever_the_weights(artifacts: dict[str, Artifact], tmp_path: Path) -> None:
    base = artifacts["base"].base
    add_biases(base, tmp_path, 0.1)
    (tmp_path / "tokenizer.json").write_text((base / "tokenizer.json").read_text() + " ")
    with pytest.raises(StepFailed, match="replaces the base's tokenizer"):
        prepare(Artifact(base, "x", "full", tmp_path), "float32", [[5]], [6])


def test_a_model_is_asked_for_biases_by_place_and_value(artifacts: dict[str, Artifact], tmp_path: Path) -> None:
    """A stand-in for vLLM's model, which joins q, k and v, here with another k in the second layer and no o."""
    import torch
    from safetensors.torch import load_file

    from harness.engines.vllm_held import not_held

    add_biases(artifacts["base"].base, tmp_path, 0.1)
    stored = load_file(tmp_path / "model.safetensors")
    model = torch.nn.Module()
    model.packed_modules_mapping = {"qkv_proj": ["q_proj", "k_proj", "v_proj"]}  # type: ignore[assignment]
    joined = {i: [stored[f"model.layers.{i}.self_attn.{x}_proj.bias"] for x in "qkv"] for i in (0, 1)}
    joined[1][1] = joined[1][1] + 0.01
    held = {f"model.layers.{i}.self_attn.qkv_proj.bias": torch.nn.Parameter(torch.cat(b)) for i, b in joined.items()}
    model.named_parameters = lambda: iter(held.items())  # type: ignore[assignment,method-assign,misc]
    names = [f"model.layers.{i}.self_attn.{x}_proj.bias" for i in (0, 1) for x in "qkvo"]
    homeless, other = not_held(model, tmp_path, names, "float32")
    assert homeless == [names[3], names[7]]
    assert other == names[4:7]
    assert not_held(model, tmp_path, names[:3], "float32") == ([], [])


def test_a_conversation_needs_a_chat_template(tiny_model_without_template: Path) -> None:
    prompts = Prompts(tiny_model_without_template, 100)
    with pytest.raises(HarnessError, match="chat template"):
        prompts.encode(CHAT)


def test_the_begin_token_is_written_once(tmp_path: Path) -> None:
    from tokenizers import processors
    from transformers import AutoTokenizer

    folder = make_tiny_model(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    single = processors.TemplateProcessing(single="<|im_start|> $A", special_tokens=[("<|im_start|>", 1)])
    tokenizer.backend_tokenizer.post_processor = single
    tokenizer.save_pretrained(folder)
    prompts = Prompts(folder, 100)
    assert tokenizer("x")["input_ids"][0] == 1  # this tokenizer does write one
    for request in (Request(text="x"), Request(text="<|im_start|>x"), CHAT):
        assert prompts.encode(request)[:2].count(1) == 1
    (context, choice), *_ = prompts.pairs(Request("choose", text="x", choices=("y",)))
    assert context[0] == 1 and len(context) == 2 and len(choice) == 1


def test_a_prefix_continues_the_assistants_turn(tiny_model: Path) -> None:
    prompts = Prompts(tiny_model, 100)
    text = prompts.tokenizer.decode(prompts.encode(CHAT.but(prefix="Sure:")))
    assert text.endswith("<|im_start|>assistant\nSure:")


def test_the_weight_of_a_message_is_not_shown_to_the_model(tiny_model: Path) -> None:
    prompts = Prompts(tiny_model, 100)
    marked = CHAT.but(messages=({"role": "user", "content": "hello there", "weight": 0},))
    assert prompts.encode(marked) == prompts.encode(CHAT)


def test_choices_are_cut_where_lm_eval_cuts_them(tiny_model: Path) -> None:
    pytest.importorskip("lm_eval")
    from lm_eval.api.model import TemplateLM

    prompts = Prompts(tiny_model, 100)

    class Plain(TemplateLM):
        backend = "causal"
        eot_token_id = 2

        def tok_encode(self, string: str, **_: Any) -> list[int]:
            return list(prompts.tokenizer(string)["input_ids"])

        def _loglikelihood_tokens(self, *_: Any, **__: Any) -> Any: ...
        def loglikelihood_rolling(self, *_: Any, **__: Any) -> Any: ...
        def generate_until(self, *_: Any, **__: Any) -> Any: ...

    for text, choice in (("a b", " c"), ("a b ", "c"), ("a\n\n", "b"), ("é", "ß")):
        [pair] = prompts.pairs(Request("choose", text=text, choices=(choice,)))
        assert pair == Plain()._encode_pair(text, choice)


def test_the_fake_fails_when_it_is_told_to(artifacts: dict[str, Artifact]) -> None:
    engine = FakeEngine(answer=lambda request, artifact: artifact.digest, fail_at=2)
    engine.open(artifacts["base"].base, SPEC)
    engine.activate(artifacts["full1"])
    given = engine.generate([CHAT, CHAT.but(seed=1)])
    assert next(given).text == "full1"
    with pytest.raises(StepFailed):
        next(given)
    assert [kind for kind, _ in engine.calls] == ["open", "activate", "generate"]
