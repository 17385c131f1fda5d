"""Tuning in parts: the block of the matrix, the split, the space, the sampler, the held-out loss, and every refusal."""

from __future__ import annotations

import importlib.metadata
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness import methods
from harness.data.split import hold_out
from harness.errors import HarnessError, MissingExtra, Problems, Refused
from harness.matrix import Budget, Matrix, MethodEntry, TrainSettings, TuneSettings, load_matrix
from harness.matrix.cells import Cell
from harness.methods.base import Method
from harness.planning import sampling
from harness.planning.plan import Plan, Where, make_plan
from harness.planning.sampling import Search
from harness.planning.tuning import RATE, Dimension, knob_is_whole, rebuilt, space, with_parameters
from tests.training import make_pairs, make_rows, train

HEAD = """\
models: {{tiny: {model}}}
data: {{sums: {{source: "make:word_problems", rows: 40}}}}
train: {{data: sums, budget: {{steps: 2}}, lr: 1e-3}}
suites: {{math: {{limit: 4, tasks: [made_word_problems]}}}}
engine: {{name: hf, max_model_len: 4096}}
seeds: 2
"""
Read = Callable[[str], Matrix]
PlanOf = Callable[[str], Plan]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    def read(text: str) -> Matrix:
        file = tmp_path / "matrix.yaml"
        file.write_text(HEAD.format(model="some/model") + text)
        return load_matrix(file)

    return read


@pytest.fixture
def plan_of(tmp_path: Path, tiny_model: Path) -> PlanOf:
    def plan_of(text: str) -> Plan:
        file = tmp_path / "matrix.yaml"
        file.write_text(HEAD.format(model=tiny_model) + text)
        return make_plan(load_matrix(file), Where())

    return plan_of


def problem(work: Callable[[], object]) -> str:
    with pytest.raises(Problems) as caught:
        work()
    (found,) = caught.value.problems
    return str(found)


# --- the matrix ---------------------------------------------------------------------------------------------------
def test_a_tuned_row_stands_beside_the_default_one_of_every_method_that_trains(read: Read) -> None:
    matrix = read("methods: {base: {}, lora: {}, sft: {}}\ntune: {trials: 4}\nseeds: 1\n".replace("seeds: 1\n", ""))
    assert list(matrix.methods) == ["base", "lora", "lora+tuned", "sft", "sft+tuned"]
    assert matrix.methods["lora"].tune is None
    assert matrix.methods["lora+tuned"].stack == matrix.methods["lora"].stack
    assert [c.name for c in matrix.cells(only=["lora*"])] == [
        "tiny.lora.s0",
        "tiny.lora.s1",
        "tiny.lora+tuned.s0",
        "tiny.lora+tuned.s1",
    ]


def test_methods_are_chosen_by_name_or_pattern_and_grids_are_left_alone(read: Read) -> None:
    methods = "methods: {lora: {}, dft: {}, lora+dft: {}, sizes: {stack: [lora], grid: {lora.r: [4, 8]}}}\n"
    assert [m for m in read(methods + "tune: {trials: 2, methods: ['lora*']}").methods if m.endswith("+tuned")] == [
        "lora+tuned",
        "lora+dft+tuned",
    ]
    assert sum(m.endswith("+tuned") for m in read(methods + "tune: {trials: 2}").methods) == 3
    text = problem(lambda: read(methods + "tune: {trials: 2, methods: [lorra]}"))
    assert "`lorra` is no method here that trains from the model and is no grid" in text
    assert 'did you mean "lora"?' in text
    assert "matrix.yaml:8" in text
    assert "is no grid" in problem(lambda: read(methods + "tune: {trials: 2, methods: [sizes]}"))
    assert "nothing to tune" in problem(lambda: read("methods: {base: {}}\ntune: {trials: 2}"))


def test_what_starts_from_another_method_is_left_alone(read: Read) -> None:
    matrix = read("methods: {sft: {}, next: {stack: [dft], start: sft}}\ntune: {trials: 2}")
    assert list(matrix.methods) == ["sft", "sft+tuned", "sft>next"]


def test_a_rule_that_leaves_a_method_out_leaves_its_tuned_row_out_too(read: Read) -> None:
    text = "methods: {lora: {}, sft: {}}\ntune: {trials: 2}\nexclude: [{method: lora}, {method: sft+tuned}]"
    assert {c.method for c in read(text).cells()} == {"sft"}


def test_a_label_that_a_tuned_row_needs_is_refused(read: Read) -> None:
    text = "methods: {lora: {}, lora+tuned: {stack: [lora]}}\ntune: {trials: 2, methods: [lora]}"
    assert "`lora+tuned` is the row of `lora` after its tuning" in problem(lambda: read(text))


@pytest.mark.parametrize("block", ["{trials: 1}", "{trials: 4, holdout: 0.9}", "{trials: 4, sampler: luck}", "{}"])
def test_what_makes_no_search_is_refused(read: Read, block: str) -> None:
    with pytest.raises(Problems):
        read(f"methods: {{sft: {{}}}}\ntune: {block}")


# --- the plan -----------------------------------------------------------------------------------------------------
def test_a_search_is_one_step_for_all_seeds_and_its_key_stands_for_the_parameters(plan_of: PlanOf) -> None:
    plan = plan_of("methods: {lora: {}}\ntune: {trials: 4}")
    cells = {c.name: c for c in plan.cells}
    first, second = cells["tiny.lora+tuned.s0"], cells["tiny.lora+tuned.s1"]
    assert first.tune is not None
    assert first.tune == second.tune
    assert first.tune.identity["search"]["space"]["lora.r"] == {
        "low": 4,
        "high": 128,
        "default": 16,
        "whole": True,
        "log": True,
    }
    assert first.train[0].identity["tune"] == first.tune.key
    assert ("tune", first.tune.key) in first.train[0].needs
    assert first.train[0].key != cells["tiny.lora.s0"].train[0].key
    assert first.data == cells["tiny.lora.s0"].data
    assert cells["tiny.lora.s0"].tune is None


CHANGES = (
    *("tune.trials=5", "tune.seed=1", "tune.holdout=0.2", "tune.rows=3", "tune.lr_span=3", "tune.sampler=random"),
    *("train.lr=2e-3", "train.budget.steps=3", "data.sums.rows=30", "methods.lora.stack=[{lora: {r: 8}}]"),
)


@pytest.mark.parametrize("change", CHANGES)
def test_everything_that_matters_is_in_the_key_of_a_search(plan_of: PlanOf, tmp_path: Path, change: str) -> None:
    plan = plan_of("methods: {lora: {stack: [lora]}}\ntune: {trials: 4}")
    other = make_plan(load_matrix(tmp_path / "matrix.yaml", overrides=[change]), Where())
    (key,), (changed,) = ({c.tune.key for c in p.cells if c.tune} for p in (plan, other))
    assert key != changed


def test_the_version_of_optuna_is_in_the_key_and_without_optuna_a_plan_says_what_to_install(
    plan_of: PlanOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sampling.identity("tpe", 8) == {
        "name": "tpe",
        "optuna": importlib.metadata.version("optuna"),
        "startup": 4,
    }

    def absent(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(sampling, "version", absent)
    with pytest.raises(MissingExtra, match="optuna"):
        sampling.identity("random", 4)
    assert "pip install '.[tune]'" in problem(lambda: plan_of("methods: {lora: {}}\ntune: {trials: 4}"))


def test_curation_of_a_tuned_cell_waits_for_the_search_and_others_share_their_rows(
    plan_of: PlanOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(methods.load("otr"), "curate", lambda self, rows, ctx: rows)
    default, tuned = (
        next(c for c in plan_of("methods: {otr: {}}\ntune: {trials: 4}").cells if c.cell.method == name)
        for name in ("otr", "otr+tuned")
    )
    assert default.data is not None and tuned.data is not None and tuned.tune is not None
    assert default.data.key != tuned.data.key
    assert tuned.data.needs == (("tune", tuned.tune.key),)


def test_a_command_is_tuned_only_if_it_is_told_the_learning_rate(plan_of: PlanOf) -> None:
    line = "train --model {model} --data {data} --output {output}"
    text = "methods: {{other: {{trainer: {{command: '{}'}}}}}}\ntune: {{trials: 4}}"
    assert "{lr}" in problem(lambda: plan_of(text.format(line)))
    cell = plan_of(text.format(line + " --lr {lr}")).cells[-1]
    assert cell.tune is not None
    assert list(cell.tune.identity["search"]["space"]) == [RATE]


# --- the space ----------------------------------------------------------------------------------------------------
def entry(**params: Mapping[str, Any]) -> MethodEntry:
    return MethodEntry("x", tuple((n, dict(p)) for n, p in params.items()), TrainSettings(lr=1e-3), "d", "native")


def space_of(**params: Mapping[str, Any]) -> dict[str, Dimension]:
    made = entry(**params)
    return space(made, methods.build(made.stack), TuneSettings(trials=4))


def test_a_space_is_the_learning_rate_and_the_knobs_of_every_member() -> None:
    assert space_of(dft={}) == {RATE: Dimension(1e-4, 1e-2, 1e-3, whole=False, log=True)}
    found = space_of(lora={}, sstoken={})
    assert list(found) == [RATE, "lora.r", "lora.alpha", "sstoken.rho", "sstoken.gamma"]
    assert found["lora.r"] == Dimension(4, 128, 16, whole=True, log=True)
    assert found["lora.alpha"] == Dimension(4, 256, 32.0, whole=False, log=True)
    assert found["sstoken.gamma"] == Dimension(0.0, 1.0, 0.5, whole=False, log=False)


def test_a_value_of_the_matrix_outside_the_range_widens_it() -> None:
    found = space_of(lora={"r": 2})["lora.r"]
    assert (found.low, found.high, found.default) == (2, 128, 2)


def test_what_answers_by_its_own_rule_trains_nothing_or_starts_nowhere_is_refused() -> None:
    class Speaks(Method):
        name = "speaks"

        def respond(self, model: Any, request: Any, ctx: Any) -> Any:
            return ""

    class Still(Method):
        name = "still"

        def stages(self, ctx: Any) -> list[Any]:
            return []

    nowhere = SimpleNamespace(name="odd", params=SimpleNamespace(p=None), knobs={"p": (0, 1)})
    tune = TuneSettings(trials=2)
    with pytest.raises(Refused, match="`speaks` answers by a rule of its own"):
        space(entry(sft={}), [Speaks()], tune)
    with pytest.raises(Refused, match="trains nothing"):
        space(entry(sft={}), [Still()], tune)
    odd = type("Odd", (Method,), {"knobs": nowhere.knobs, "name": "odd"})()
    odd.params = nowhere.params
    with pytest.raises(Refused, match="nowhere to start: it is None"):
        space(entry(sft={}), [odd], tune)


@pytest.mark.parametrize("name", methods.names())
def test_the_knobs_of_every_method_are_ranges_of_its_parameters_around_their_defaults(name: str) -> None:
    kind = methods.load(name)
    for knob, (low, high) in kind.knobs.items():
        field = kind.Params.model_fields[knob]
        default = field.get_default()
        assert isinstance(default, int | float) and not isinstance(default, bool), knob
        assert low < high, knob
        assert low <= default <= high, f"{knob}: {default} is not in its range"
        if knob_is_whole(kind, knob):
            assert low == int(low) and high == int(high), knob
    for value in (0, 1):  # bounds of the parameters are checked by making the method with the ends of all ranges
        ends = {k: int(r[value]) if knob_is_whole(kind, k) else r[value] for k, r in kind.knobs.items()}
        (member,) = methods.build([(name, ends)])
        assert [s.name for s in member.stages(None)] == [s.name for s in kind().stages(None)]


def test_a_point_becomes_parameters_and_settings() -> None:
    e = entry(lora={"dropout": 0.1}, dft={})
    cell = Cell("c", "m", "x", 0, e.stack, e.train, "d", "native")
    made = with_parameters(cell, {RATE: 2e-3, "lora.r": 5})
    assert made.stack == (("lora", {"dropout": 0.1, "r": 5}), ("dft", {}))
    assert made.train.lr == 2e-3
    assert cell.train.lr == 1e-3
    stack, stages = rebuilt(made, methods.build(cell.stack)[0].stages(None))
    assert stack[0].params.model_dump()["r"] == 5
    assert [s.name for s in stages] == ["train"]
    with pytest.raises(Refused, match="other stages"):
        rebuilt(made, ())


# --- the sampler --------------------------------------------------------------------------------------------------
SPACE = {"a": Dimension(1e-4, 1e-2, 1e-3, whole=False, log=True), "b": Dimension(4, 128, 16, whole=True, log=True)}


def walk(search: Search, n: int, best: float = 3e-3) -> list[dict[str, Any]]:
    """Points of a search in which the third diverges and the fourth fails."""
    points = []
    for i in range(n):
        points.append(search.ask())
        outcome: Any = {2: "diverged", 3: "failed"}.get(i, "ok")
        search.tell(outcome, abs(points[-1]["a"] - best) if outcome == "ok" else None)
    return points


@pytest.mark.parametrize("name", ["tpe", "random"])
def test_a_search_begins_with_the_default_stays_in_range_and_repeats_itself(name: str) -> None:
    points = walk(Search(SPACE, name, 0, 12), 12)
    assert points[0] == {"a": 1e-3, "b": 16}
    assert all(1e-4 <= p["a"] <= 1e-2 and 4 <= p["b"] <= 128 and isinstance(p["b"], int) for p in points)
    assert len({p["a"] for p in points}) == 12
    assert walk(Search(SPACE, name, 0, 12), 12) == points
    assert walk(Search(SPACE, name, 1, 12), 12) != points


def test_tpe_uses_what_it_was_told_after_its_random_points_and_random_does_not() -> None:
    low, high = (walk(Search(SPACE, "tpe", 0, 12), 12, best) for best in (1e-4, 1e-2))
    assert sampling.startup(12) == 6
    assert low[:6] == high[:6]
    assert low[8:] != high[8:]
    assert walk(Search(SPACE, "random", 0, 12), 12, 1e-4) == walk(Search(SPACE, "random", 0, 12), 12, 1e-2)


# --- the split ----------------------------------------------------------------------------------------------------
def ids(rows: list[dict[str, Any]]) -> set[str]:
    return {row["id"] for row in rows}


def test_a_split_depends_on_the_text_and_the_seed_alone() -> None:
    rows = make_rows(50)
    kept, held = hold_out(rows, share=0.2, most=200, seed=0)
    assert (len(kept), len(held)) == (40, 10)
    assert not ids(kept) & ids(held)
    shuffled = [{**row, "note": "new"} for row in random.Random(1).sample(rows, 50)]
    assert ids(hold_out(shuffled, share=0.2, most=200, seed=0)[1]) == ids(held)
    assert ids(hold_out(rows, share=0.2, most=200, seed=1)[1]) != ids(held)
    assert len(hold_out(rows, share=0.2, most=3, seed=0)[1]) == 3


def test_rows_that_ask_the_same_are_never_parted() -> None:
    rows = make_rows(20)
    copies = []
    for row in rows:
        user, answer = row["messages"]
        twin = [{**user, "content": f"  {user['content'].upper()}\n"}, {**answer, "content": "another"}]
        copies.append({"id": row["id"] + "b", "messages": twin})
    kept, held = hold_out([*rows, *copies], share=0.2, most=200, seed=0)
    assert len(held) == 8
    assert not {i.removesuffix("b") for i in ids(kept)} & {i.removesuffix("b") for i in ids(held)}


def test_one_question_cannot_be_split() -> None:
    rows = [{**row, "messages": make_rows(1)[0]["messages"]} for row in make_rows(5)]
    with pytest.raises(HarnessError, match="all rows ask the same"):
        hold_out(rows, share=0.2, most=200, seed=0)
    kept, held = hold_out([*rows, {**make_rows(2)[1], "id": "other"}], share=0.01, most=200, seed=0)
    assert ids(held) == {"other"}
    assert len(kept) == 5


# --- the loss -----------------------------------------------------------------------------------------------------
SETTINGS = TrainSettings(budget=Budget(steps=3), precision="fp32", micro_batch=3)


def by_hand(model: Any, folder: Path, rows: list[dict[str, Any]]) -> float:
    """The mean loss of the answers' tokens, one row at a time, by transformers' own logits."""
    import torch
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    losses = []
    for row in rows:
        asked = tokenizer.apply_chat_template(row["messages"][:-1], tokenize=False, add_generation_prompt=True)
        said = row["messages"][-1]["content"] + "<|im_end|>"
        prompt, answer = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (asked, said))
        with torch.no_grad():
            logits = model(torch.tensor([[*prompt, *answer]])).logits[0, len(prompt) - 1 : -1].float()
        losses += torch.nn.functional.cross_entropy(logits, torch.tensor(answer), reduction="none").tolist()
    return sum(losses) / len(losses)


@pytest.mark.parametrize("stack", [("sft",), ("lora",), ("dft",), ("prompt",), ("adapters",)])
def test_the_loss_is_that_of_what_was_left_and_the_same_for_every_method(
    tmp_path: Path, tiny_model: Path, stack: tuple[str, ...]
) -> None:
    from transformers import AutoModelForCausalLM

    from harness.engines.unmerged import attach
    from harness.training.held_out import held_out_loss

    members = methods.build([(name, {}) for name in stack])
    artifact = train(tmp_path / "work", tiny_model, *members, lr=1e-2).work / "artifact"
    rows = make_rows(40)[30:]
    found = held_out_loss(tiny_model, artifact, members, rows, SETTINGS)
    adapter = (artifact / "adapter_config.json").exists()
    model = AutoModelForCausalLM.from_pretrained(tiny_model if adapter else artifact, dtype="float32")
    served = attach(model, artifact) if adapter else model
    assert found.loss == pytest.approx(by_hand(served.eval(), tiny_model, rows), rel=1e-4)
    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype="float32").eval()
    assert found.loss < by_hand(base, tiny_model, rows) - 0.01
    assert found.tokens > 0


def test_a_method_of_pairs_is_compared_on_the_better_answers(tmp_path: Path, tiny_model: Path) -> None:
    from transformers import AutoModelForCausalLM

    from harness.training.held_out import held_out_loss

    dpo = methods.build([("dpo", {})])
    artifact = train(tmp_path / "work", tiny_model, *dpo, rows=make_pairs(8)).work / "artifact"
    rows = make_pairs(12)[8::2]  # those of one exchange
    found = held_out_loss(tiny_model, artifact, dpo, rows, SETTINGS)
    model = AutoModelForCausalLM.from_pretrained(artifact, dtype="float32").eval()
    assert found.loss == pytest.approx(by_hand(model, tiny_model, rows), rel=1e-4)
