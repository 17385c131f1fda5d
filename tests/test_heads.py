"""Trained heads: every family learns a made rule, the same way each time, and a run takes them from matrix to table."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr

from harness.data.models import find_model, materialise
from harness.errors import HarnessError, Problems
from harness.evaluation.suite_file import Recipe
from harness.matrix import load_matrix
from harness.planning.plan import Where, make_plan
from harness.training.heads import Head, Texts, apply_head, open_head, train_head
from tests.runs import harness
from tests.tiny import make_tiny_encoder, make_tiny_model

FAMILIES = ("bert", "electra", "deberta-v2", "llama")
GOOD, BAD = ("good", "fine", "great"), ("bad", "poor", "dull")
RECIPE = Recipe(train="all", epochs=6, batch_size=16, lr=5e-3, warmup=0.1, weight_decay=0.01, max_length=32, seed=0)


def praise(n: int, seed: int) -> tuple[list[Texts], list[float]]:
    """Sentences that praise (1) or not (0)."""
    rng = random.Random(seed)
    rows: list[Texts] = []
    labels = []
    for _ in range(n):
        labels.append(float(rng.randrange(2)))
        very = ["very"] * rng.randrange(3)
        words = ["the", rng.choice(("film", "play", "cast")), "was", *very, rng.choice(GOOD if labels[-1] else BAD)]
        rows.append((" ".join(words),))
    return rows, labels


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny model of each family, by its name."""
    top = tmp_path_factory.mktemp("families")
    found = {f: make_tiny_encoder(top / f, f, named=f != "deberta-v2") for f in FAMILIES if f != "llama"}
    return {**found, "llama": make_tiny_model(top / "llama", context=4096)}


def trained(folder: Path, rows: list[Texts], labels: list[float], outputs: int = 2, recipe: Recipe = RECIPE) -> Head:
    head = open_head(folder, folder, encoder=find_model(str(folder)).encoder, outputs=outputs, recipe=recipe)
    train_head(head, rows, labels, recipe, lambda done, total, note: None)
    return head


def said(head: Head, rows: list[Texts]) -> list[tuple[float, ...]]:
    return [values for _, _, values in sorted(apply_head(head, rows), key=lambda found: found[0])]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_rule_is_learnt_and_learnt_the_same_way_again(folders: dict[str, Path], family: str) -> None:
    rows, labels = praise(160, 0)
    unseen, truth = praise(60, 1)
    first, second = (said(trained(folders[family], rows, labels), unseen) for _ in range(2))
    assert first == second
    assert [float(values[1] > values[0]) for values in first] == truth
    assert np.exp(first).sum(axis=1) == pytest.approx(1.0)
    other = said(trained(folders[family], rows, labels, recipe=RECIPE.model_copy(update={"seed": 1})), unseen)
    assert other != first


@pytest.mark.parametrize("family", FAMILIES)
def test_a_regression_says_values(folders: dict[str, Path], family: str) -> None:
    rows = [(f"the film {'very ' * (i % 6)}good",) for i in range(96)]
    labels = [float(i % 6) for i in range(96)]
    recipe = RECIPE.model_copy(update={"epochs": 15})
    values = said(trained(folders[family], rows, labels, outputs=1, recipe=recipe), rows)
    assert pearsonr(labels, [v for (v,) in values])[0] > 0.9


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_the_order_of_a_pair_counts(folders: dict[str, Path], family: str) -> None:
    rng = random.Random(0)
    labels = [float(rng.randrange(2)) for _ in range(320)]
    rows: list[Texts] = []
    for label in labels:
        good, bad = rng.choice(GOOD), rng.choice(BAD)
        rows.append((f"was {good}", f"is {bad}") if label else (f"was {bad}", f"is {good}"))
    recipe = RECIPE.model_copy(update={"epochs": 8, "lr": 4e-3})
    values = said(trained(folders[family], rows[:256], labels[:256], recipe=recipe), rows[256:])
    assert np.mean([float(b > a) == label for (a, b), label in zip(values, labels[256:], strict=True)]) > 0.95


def test_an_encoder_is_told_which_sentence_a_token_is_of(folders: dict[str, Path]) -> None:
    head = open_head(folders["bert"], folders["bert"], encoder=True, outputs=2, recipe=RECIPE)
    (row,) = head.encode([("a film", "a play")])
    assert row.kinds == [0, 0, 0, 0, 1, 1, 1] and row.ids[:1] == [2] and row.ids.count(3) == 2
    head = open_head(folders["llama"], folders["llama"], encoder=False, outputs=2, recipe=RECIPE)
    (row,) = head.encode([("a film", "a play")])
    assert head.tokenizer.decode(row.ids) == "a film\na play<|im_end|>"
    (long,) = head.encode([("very " * 100,)])
    assert len(long.ids) == head.limit and long.ids[-1] == row.ids[-1] != head.model.config.pad_token_id


def test_the_head_alone_may_be_trained(folders: dict[str, Path]) -> None:
    rows, labels = praise(64, 0)
    recipe = RECIPE.model_copy(update={"train": "head"})
    before = open_head(folders["llama"], folders["llama"], encoder=False, outputs=2, recipe=recipe).model.state_dict()
    after = trained(folders["llama"], rows, labels, recipe=recipe).model.state_dict()
    moved = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert moved == {"score.weight"}


@pytest.mark.parametrize("family", FAMILIES)
def test_padding_and_company_change_no_answer(folders: dict[str, Path], family: str) -> None:
    rows, labels = praise(40, 0)
    head = trained(folders[family], rows, labels)
    together = said(head, [*rows, ("the " * 25,)])[:40]
    alone = [said(head, [row])[0] for row in rows]
    assert np.asarray(together) == pytest.approx(np.asarray(alone), abs=1e-5)


def test_long_rows_are_cut_and_counted(folders: dict[str, Path]) -> None:
    rows, labels = praise(30, 0)
    head = trained(folders["bert"], [*rows, ("very " * 100,), ("very " * 100,)], [*labels, 0.0, 1.0])
    assert head.cut == 2 and len(head.encode([("very " * 100,)])[0].ids) == 32
    wide = RECIPE.model_copy(update={"max_length": 500})
    assert open_head(folders["bert"], folders["bert"], encoder=True, outputs=2, recipe=wide).limit == 64


def test_a_model_that_lacks_weights_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    make_tiny_encoder(tmp_path, "bert")
    weights = load_file(tmp_path / "model.safetensors")
    kept = {name: value for name, value in weights.items() if "layer.1" not in name}
    save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(HarnessError, match="lack weights"):
        open_head(tmp_path, tmp_path, encoder=True, outputs=2, recipe=RECIPE)


# --- in a matrix --------------------------------------------------------------------------------------------------
TASK = """\
task: {name}
output_type: multiple_choice
test_split: test
target_delimiter: ""
doc_to_text: sentence
doc_to_target: label
doc_to_choice: ["bad", "good"]
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
"""
SUITE = """\
name: heads
tasks:
  praise:
    version: 1
    file: praise.yaml
    data: [{source: "file:test.jsonl"}]
    head:
      data: [{source: "file:train.jsonl"}]
      columns: [sentence]
      label: label
      recipe: {train: all, epochs: 6, batch_size: 16, lr: 5e-3, warmup: 0.1, weight_decay: 0.0, max_length: 64, seed: 0}
    regime: head
    chat: false
    metric: acc
    chance: 0.5
    licence: none
"""
MATRIX = """\
version: 1
name: heads
models: {{tiny: {model}}}
data: {{sums: {{source: "make:word_problems", rows: 8}}}}
train: {{data: sums, budget: {{steps: 1}}, batch_size: 2, lr: 1e-3}}
methods: {methods}
suites: {suites}
engine: {{name: fake, max_model_len: 4096}}
"""


def write_files(folder: Path, model: Path, methods: str, suites: str = "{heads.yaml: {}}") -> Path:
    for name, seed, n in (("train", 0, 160), ("test", 1, 40)):
        rows, labels = praise(n, seed)
        lines = (json.dumps({"sentence": s, "label": int(v)}) for (s,), v in zip(rows, labels, strict=True))
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "praise.yaml").write_text(TASK.format(name="praise"))
    (folder / "heads.yaml").write_text(SUITE.replace("file:", f"file:{folder}/").replace(f"file:{folder}/ ", "file: "))
    matrix = folder / "matrix.yaml"
    suites = suites.replace("heads.yaml", str(folder / "heads.yaml"))
    matrix.write_text(MATRIX.format(model=model, methods=methods, suites=suites))
    return matrix


def entries(folder: Path) -> dict[str, float]:
    body = json.loads((folder / "store" / "runs" / "heads" / "table.json").read_text())
    return {row["method"]: next(iter(row["entries"].values()))["estimate"]["value"] for row in body["rows"]}


def test_a_run_trains_a_head_on_every_artifact(tmp_path: Path, folders: dict[str, Path]) -> None:
    matrix = write_files(tmp_path, folders["llama"], "[base, sft, lora]")
    table, _ = harness(tmp_path, "run", matrix)
    assert "praise" in table
    assert entries(tmp_path) == {"base": 1.0, "sft": 1.0, "lora": 1.0}
    records = [json.loads(p.read_text()) for p in (tmp_path / "store" / "generate").rglob("record.json")]
    said = {p.read_text() for p in (tmp_path / "store" / "generate").rglob("responses.jsonl")}
    assert len(records) == len(said) == 3, "two artifacts got the same head"
    assert all(r["cost"]["trained_tokens"] > 0 and r["extra"]["steps"] == 60 for r in records)
    assert json.loads(harness(tmp_path, "plan", matrix, "--json")[0])["steps"] == []
    other = ("--set", "engine.name=hf", "--set", "engine.dtype=float32")
    assert json.loads(harness(tmp_path, "plan", matrix, *other, "--json")[0])["steps"] == []
    suite = tmp_path / "heads.yaml"
    suite.write_text(suite.read_text().replace("seed: 0", "seed: 1"))
    kinds = {s["kind"] for s in json.loads(harness(tmp_path, "plan", matrix, "--only", "base", "--json")[0])["steps"]}
    assert {"generate", "score"} <= kinds and "train" not in kinds


def test_an_encoder_runs_with_heads_alone(tmp_path: Path, folders: dict[str, Path]) -> None:
    matrix = write_files(tmp_path, folders["deberta-v2"], "[base]")
    harness(tmp_path, "run", matrix)
    assert entries(tmp_path) == {"base": 1.0}


def test_an_encoder_is_refused_for_all_else(tmp_path: Path, folders: dict[str, Path]) -> None:
    suites = "{heads.yaml: {}, math: {tasks: [made_word_problems], limit: 2}, glue: {tasks: [made_sentiment]}}"
    matrix = write_files(tmp_path, folders["electra"], "[base, sft]", suites)
    with pytest.raises(Problems) as error:
        make_plan(load_matrix(matrix), Where())
    text = str(error.value)
    assert "model `tiny` is an encoder" in text and "`made_word_problems`, `made_sentiment`" in text
    assert "method `sft` cannot be used on model `tiny`" in text and "matrix.yaml:6" in text
    assert len(error.value.problems) == 2
    assert "chat template" not in text


def test_a_label_without_an_output_is_a_failure_with_its_reason(tmp_path: Path, folders: dict[str, Path]) -> None:
    matrix = write_files(tmp_path, folders["bert"], "[base]")
    with (tmp_path / "train.jsonl").open("a") as rows:
        rows.write(json.dumps({"sentence": "the film", "label": 2}) + "\n")
    _, err = harness(tmp_path, "run", matrix, code=1)
    assert "should be a whole number below 2" in err and "`label` is 2" in err


@pytest.mark.parametrize(
    ("config", "encoder"),
    [
        ({"architectures": ["BertForMaskedLM"], "model_type": "bert"}, True),
        ({"architectures": ["BertModel"], "model_type": "bert"}, True),
        ({"architectures": ["BertLMHeadModel"], "model_type": "bert", "is_decoder": True}, False),
        ({"architectures": ["ElectraForPreTraining"], "model_type": "electra"}, True),
        ({"model_type": "deberta-v2"}, True),
        ({"architectures": ["LlamaForCausalLM"], "model_type": "llama"}, False),
        ({"architectures": ["LlamaModel"], "model_type": "llama"}, False),
        ({"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2"}, False),
        ({"model_type": "llama"}, False),
    ],
)
def test_encoders_are_told_by_their_configuration(tmp_path: Path, config: dict[str, object], encoder: bool) -> None:
    from harness.data.checkpoint import is_encoder

    (tmp_path / "config.json").write_text(json.dumps(config))
    assert is_encoder(tmp_path) == encoder


def test_an_encoder_is_used_in_place(folders: dict[str, Path], tmp_path: Path) -> None:
    model = find_model(str(folders["bert"]))
    assert model.encoder and materialise(model, tmp_path) == folders["bert"].resolve()
