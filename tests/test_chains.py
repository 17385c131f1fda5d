"""`start:` in a matrix: names, refusals, keys, cost, and a run in which cells begin from other cells."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from harness.errors import Problems
from harness.matrix import Matrix, load_matrix
from harness.methods.dpo import DPO
from harness.methods.sft import SFT
from harness.planning.lines import wanted, with_starts
from harness.planning.pending import pending
from harness.planning.plan import Plan, Where, make_plan
from harness.runs import RunView, load_run, view_of
from harness.store import Store
from tests.runs import harness
from tests.training import make_pairs, train

MATRIX = """
version: 1
name: small
models: {{tiny: {model}}}
data:
  sums: {{source: "make:word_problems", rows: 30}}
  more: {{source: "make:word_problems", rows: 20, seed: 1}}
train: {{data: sums, budget: {{steps: 2}}, batch_size: 2, lr: 1e-3}}
methods:
{methods}
suites: {{math: {{limit: 4, tasks: [made_word_problems]}}}}
engine: {{name: {engine}, max_model_len: 4096}}
"""
CHAINS = """
  dft: {start: sft, data: more}
  base: {}
  lora: {start: dft}
  sft: {}
  urial: {start: sft, stack: [{urial: {examples: 1, template: chat}}]}
  wild: {stack: [sft], train: {lr: 1e30, clip: null}}
  after: {stack: [dft], start: wild}
"""


def write(folder: Path, model: Path | str, methods: str, engine: str = "fake", extra: str = "") -> Path:
    file = folder / "small.yaml"
    file.write_text(MATRIX.format(model=model, methods=methods, engine=engine) + extra)
    return file


def labels(folder: Path, methods: str) -> list[str]:
    return list(load_matrix(write(folder, "some/model", methods)).methods)


def complaints(file: Path) -> list[str]:
    with pytest.raises(Problems) as caught:
        plan(load_matrix(file))
    return [str(problem).replace(f"{file}:", "") for problem in caught.value.problems]


def plan(matrix: Matrix, only: Sequence[str] = ()) -> Plan:
    return make_plan(matrix, Where(), only=only)


# --- names ----------------------------------------------------------------------------------------------------------
def test_names_show_every_start_in_whatever_order_the_entries_stand(tmp_path: Path) -> None:
    found = labels(tmp_path, "  c: {stack: [lora], start: b}\n  b: {stack: [dft], start: sft}\n  sft: {}\n")
    assert found == ["sft>b>c", "sft>b", "sft"]


def test_a_list_may_hold_a_method_with_and_without_a_start(tmp_path: Path) -> None:
    found = labels(
        tmp_path, "  - sft\n  - dft\n  - dft: {start: sft}\n  - lora: {start: sft>dft}\n  - sft: {start: sft}\n"
    )
    assert found == ["sft", "dft", "sft>dft", "sft>dft>lora", "sft>sft"]


def test_every_point_of_a_grid_starts_and_one_point_is_a_start(tmp_path: Path) -> None:
    methods = "  sft: {grid: {train.lr: [1e-3, 1e-4]}}\n  lora: {start: 'sft[lr=0.001]', grid: {lora.r: [2, 4]}}\n"
    assert labels(tmp_path, methods)[2:] == ["sft[lr=0.001]>lora[r=2]", "sft[lr=0.001]>lora[r=4]"]
    matrix = load_matrix(tmp_path / "small.yaml")
    assert [c.method for c in matrix.cells(["sft>lora"])] == ["sft[lr=0.001]>lora[r=2]", "sft[lr=0.001]>lora[r=4]"]
    assert len(matrix.cells(["sft"])) == 2


def test_an_untouched_start_is_none(tmp_path: Path) -> None:
    assert labels(tmp_path, "  base: {}\n  sft: {start: base}\n") == ["base", "sft"]


# --- refusals -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("methods", "said"),
    [
        (
            "  sft: {}\n  dft: {start: sftt}\n",
            ["11: `dft` starts from `sftt`, which is no method here", "did you mean"],
        ),
        ("  sft: {start: sft}\n", ["10: `sft` starts from itself"]),
        ("  a: {stack: [sft], start: b}\n  b: {stack: [dft], start: a}\n", ["10: methods start from", "a > b > a"]),
        ("  sft: {grid: {train.lr: [1e-3, 1e-4]}}\n  dft: {start: sft}\n", ["a grid of 2 methods", "`sft[lr=0.001]`"]),
        ("  base: {start: sft}\n  sft: {}\n", ["`base` is the untouched model, so its `start` would do nothing"]),
        (
            "  - sft\n  - lora\n  - dft: {start: sft}\n  - dft: {start: lora}\n  - otr: {start: dft}\n",
            ["of which there are 2", "write `sft>dft` or `lora>dft`"],
        ),
    ],
)
def test_a_wrong_start_is_one_problem_with_its_line(tmp_path: Path, methods: str, said: list[str]) -> None:
    (problem,) = complaints(write(tmp_path, "some/model", methods))
    assert all(part in problem for part in said), problem


@pytest.mark.parametrize(
    ("methods", "said"),
    [
        ("  urial: {}\n  sft: {start: urial}\n", "`urial` trains nothing, so it leaves no weights to start from"),
        (
            "  prefix: {}\n  sft: {start: prefix}\n",
            "what `prefix` leaves cannot be merged into weights, so nothing can",
        ),
        (
            "  sft: {}\n  prefix: {start: sft}\n",
            "what `prefix` leaves cannot be merged into weights, so it cannot start",
        ),
        (
            "  sft: {}\n  own: {start: sft, trainer: {command: 'true {model} {data} {output}'}}\n",
            "a trainer `command` begins from the model itself, not from `sft`",
        ),
    ],
)
def test_what_cannot_be_started_from_is_refused_before_anything_runs(
    tmp_path: Path, tiny_model: Path, methods: str, said: str
) -> None:
    (problem,) = complaints(write(tmp_path, tiny_model, methods, engine="hf"))
    assert said in problem


def test_what_only_one_engine_serves_binds_what_starts_from_it(tmp_path: Path, tiny_model: Path) -> None:
    methods = "  ends: {stack: [{leo: {untie: true}}]}\n  sft: {start: ends}\n"
    file = write(tmp_path, tiny_model, methods, engine="vllm")
    assert all("cannot be served by the engine `vllm`" in problem for problem in complaints(file))


# --- keys -----------------------------------------------------------------------------------------------------------
def test_a_key_contains_the_key_of_what_it_starts_from(tmp_path: Path, tiny_model: Path) -> None:
    whole = {c.cell.method: c for c in plan(load_matrix(write(tmp_path, tiny_model, CHAINS))).cells}
    sft, dft, lora = whole["sft"], whole["sft>dft"], whole["sft>dft>lora"]
    assert dft.train[-1].identity["start"] == sft.train[-1].key and "start" not in sft.train[-1].identity
    assert lora.trained == (*sft.train, *dft.train, *lora.train)
    assert ("train", dft.train[-1].key) in lora.train[-1].needs
    assert whole["sft>urial"].trained == sft.train and not whole["sft>urial"].train
    assert dft.tasks[0].overlap and dft.tasks[0].overlap.identity["data"] == [sft.data.key, dft.data.key]  # type: ignore[union-attr]
    other = load_matrix(tmp_path / "small.yaml", overrides=["methods.sft.train.weight_decay=0.1"])
    again = {c.cell.method: c for c in plan(other).cells}
    assert not {s.key for s in again["sft>dft>lora"].train} & {s.key for s in lora.train}
    view = view_of(plan(load_matrix(tmp_path / "small.yaml")))
    assert RunView.from_json(json.loads(json.dumps(view.as_json()))) == view


def test_a_choice_brings_the_training_it_starts_from_and_not_its_evaluation(tmp_path: Path, tiny_model: Path) -> None:
    chosen = plan(load_matrix(write(tmp_path, tiny_model, CHAINS)), ["sft>dft"])
    assert [c.cell.method for c in chosen.cells] == ["sft>dft"]
    todo = [(t.cell, t.what) for t in pending(chosen, Store(tmp_path / "store"))]
    assert todo[:4] == [
        ("tiny.sft.s0", "data"),
        ("tiny.sft.s0", "train"),
        ("tiny.sft>dft.s0", "data"),
        ("tiny.sft>dft.s0", "train"),
    ]
    assert {cell for cell, what in todo if "generate" in what or "score" in what} == {"tiny.sft>dft.s0"}


def test_starts_come_first_and_their_weights_are_wanted_until_the_last_has_begun(
    tmp_path: Path, tiny_model: Path
) -> None:
    cells = with_starts(plan(load_matrix(write(tmp_path, tiny_model, CHAINS)), ["*lora"]).cells)
    assert [c.cell.method for c in cells] == ["sft", "sft>dft", "sft>dft>lora"]
    store = Store(tmp_path / "store")
    assert all(wanted(c, cells, store) for c in cells)
    for step in cells[1].train:
        with store.claim("train", step.key, step.identity) as attempt:
            (attempt.work / "artifact").write_text("")
            attempt.publish()
    assert [wanted(c, cells, store) for c in cells] == [False, True, True]


# --- training -------------------------------------------------------------------------------------------------------
def test_the_base_of_a_chain_is_what_it_starts_from(tmp_path: Path, tiny_model: Path) -> None:
    """A preference loss begins at log 2 exactly where the live model is its reference."""
    start = train(tmp_path / "sft", tiny_model, SFT(), steps=6, lr=5e-3).work / "artifact"
    marked = json.loads((start / "tokenizer_config.json").read_text()) | {"mark": "of the start"}
    (start / "tokenizer_config.json").write_text(json.dumps(marked))
    chain = train(tmp_path / "dpo", tiny_model, DPO(), rows=make_pairs(), init=start, steps=2)
    alone = train(tmp_path / "alone", tiny_model, DPO(), rows=make_pairs(), steps=2)
    assert chain.losses[0] == pytest.approx(math.log(2), abs=1e-6)
    assert chain.losses[1] != alone.losses[1]
    kept = json.loads((chain.work / "artifact" / "tokenizer_config.json").read_text())
    assert kept["mark"] == "of the start"


# --- a run ----------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    folder = tmp_path_factory.mktemp("chains")
    harness(folder, "run", write(folder, tiny_model, CHAINS, extra="keep: none\n"), "--only", "sft>dft")
    weights = {p.name for p in (folder / "store").rglob("*.safetensors")}
    assert weights == {"model.safetensors"}, "what `sft` is to be asked later stays; what was asked goes"
    harness(folder, "run", "small.yaml")
    return folder


def test_every_row_is_there_and_a_diverged_start_says_so(finished: Path) -> None:
    body = json.loads((finished / "store" / "runs" / "small" / "table.json").read_text())
    rows = {row["method"]: row for row in body["rows"]}
    assert list(rows) == ["sft>dft", "base", "sft>dft>lora", "sft", "sft>urial", "wild", "wild>after"]
    assert {m: r["state"] for m, r in rows.items() if r["state"] != "ok"} == {
        "wild": "diverged",
        "wild>after": "diverged",
    }
    assert rows["wild>after"]["reason"].startswith("tiny.wild.s0, from which it starts: training diverged")
    tokens = {m: r["cost"]["trained_tokens"] for m, r in rows.items()}
    assert tokens["sft"] < tokens["sft>dft"] < tokens["sft>dft>lora"] and tokens["sft>urial"] == tokens["sft"]


def test_every_training_is_done_once_and_no_weights_are_left(finished: Path) -> None:
    store = Store(finished / "store")
    times = Counter(record.parent.parent.name for record in (finished / "store" / "train").rglob("record.json"))
    cells = plan(load_matrix(finished / "small.yaml")).cells
    again = next(c.train[-1].key for c in cells if c.cell.method == "sft>dft")
    assert len(times) == 4
    assert {key for key, n in times.items() if n > 1} == {again}, "the first run knew of nothing that starts from it"
    assert not list((finished / "store").rglob("*.safetensors"))
    assert json.loads(harness(finished, "plan", "small.yaml", "--json")[0])["steps"] == []
    view = load_run(store, "small")
    chain = next(c for c in view.cells if c.method == "sft>dft")
    assert set(view.keys()) >= {("data", data) for _, data in chain.started.values()}


def test_weights_of_a_start_are_made_again_when_they_are_needed(finished: Path) -> None:
    todo = json.loads(harness(finished, "plan", "small.yaml", "--set", "methods.dft.train.lr=1e-4", "--json")[0])[
        "steps"
    ]
    reasons = {s["cell"]: s["reason"] for s in todo if s["kind"] == "train"}
    assert reasons == {
        "tiny.sft.s0": "its weights were not kept and are needed again",
        "tiny.sft>dft.s0": "changed: settings.lr 0.001 -> 0.0001",
        "tiny.sft>dft>lora.s0": "upstream changed",
    }


def test_the_starts_of_others_are_no_unwanted_steps(finished: Path) -> None:
    before = Store(finished / "store")
    matrix = load_matrix(finished / "small.yaml")
    rest = replace(matrix, left_out=frozenset({("tiny", "sft")}))
    assert {("train", s.key) for s in plan(rest, ["sft>dft"]).cells[0].trained} <= {
        (s.kind, s.key) for s in plan(rest).steps().values()
    }
    assert all(before.find("train", s.key) for s in plan(rest, ["sft>dft"]).cells[0].trained)


def test_a_start_that_fails_is_tried_once_and_named_in_the_row(tmp_path: Path, tiny_model: Path) -> None:
    methods = "  short: {stack: [sft], train: {max_length: 2}}\n  heir: {stack: [dft], start: short}\n"
    harness(tmp_path, "run", write(tmp_path, tiny_model, methods), code=1)
    body = json.loads(harness(tmp_path, "status", "small.yaml", "--json")[0])
    cells = {c["cell"]: c for c in body["cells"]}
    assert cells["tiny.short>heir.s0"]["tasks"] == {"failed": 1}
    (reason,) = cells["tiny.short>heir.s0"]["reasons"]
    assert reason.startswith("tiny.short.s0, from which it starts: train failed")
    store = Store(tmp_path / "store")
    start = plan(load_matrix(tmp_path / "small.yaml")).cells[0].train[-1]
    assert [past.outcome for past in store.history("train", start.key)] == ["failed"]
    assert not (tmp_path / "store" / "generate").exists()
