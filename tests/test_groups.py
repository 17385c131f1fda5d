"""`groups:` in a matrix: labels, keys, refusals, tables, and a run that trains a model a group."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.errors import HarnessError, Problems
from harness.matrix import load_matrix
from harness.planning.plan import Plan, Where, make_plan
from harness.runs import cell_views, load_run
from harness.store import Store
from tests.runs import harness

MATRIX = """
version: 1
name: small
models: {{tiny: {model}}}
data:
  sums: {{source: "file:{data}"}}
train: {{data: sums, budget: {{steps: 2}}, batch_size: 2, lr: 1e-3}}
methods:
{methods}
seeds: {seeds}
suites: {{math: {{limit: 4, tasks: [made_word_problems]}}}}
engine: {{name: fake, max_model_len: 4096}}
"""
PLAIN = "  base: {}\n  sft: {}\n"
GROUPED = PLAIN + "  custom: {stack: [sft], groups: topic}\n"


def write(
    folder: Path, model: Path | str, methods: str, *, topics: dict[object, int] | None = None, seeds: int = 1
) -> Path:
    rows = [
        {"question": f"How much is {n} and {n}?", "answer": str(2 * n), "topic": topic, "kind": [1], "word": "x"}
        for topic, many in (topics or {"sums": 30, "big sums": 25}).items()
        for n in range(many)
    ]
    data = folder / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    file = folder / "small.yaml"
    file.write_text(MATRIX.format(model=model, data=data, methods=methods, seeds=seeds))
    return file


def plan(file: Path, *only: str) -> Plan:
    return make_plan(load_matrix(file), Where(), only=only)


def complaint(file: Path, *only: str) -> str:
    with pytest.raises(HarnessError) as caught:
        plan(file, *only)
    return str(caught.value)


# --- plan -----------------------------------------------------------------------------------------------------------
def test_a_cell_for_every_value_of_the_column_the_largest_group_first(tmp_path: Path, tiny_model: Path) -> None:
    found = plan(write(tmp_path, tiny_model, GROUPED, topics={"big sums": 25, "sums": 30}))
    names = ["tiny.base", "tiny.sft.s0", "tiny.custom[topic=sums].s0", "tiny.custom[topic=big-sums].s0"]
    assert [cell.name for cell in found.cells] == names
    assert len({cell.data.key for cell in found.cells if cell.data}) == 3  # all rows, and each group's


def test_the_keys_of_other_cells_are_what_they_are_without_a_grouped_method(tmp_path: Path, tiny_model: Path) -> None:
    plain = plan(write(tmp_path, tiny_model, PLAIN)).steps()
    assert plain.keys() < plan(write(tmp_path, tiny_model, GROUPED)).steps().keys()


def test_only_takes_the_label_the_label_of_a_group_and_a_pattern(tmp_path: Path, tiny_model: Path) -> None:
    file = write(tmp_path, tiny_model, GROUPED)
    assert len(plan(file, "custom").cells) == len(plan(file, "custom*").cells) == 2
    (one,) = plan(file, "custom[topic=sums]").cells
    assert one.cell.group and one.cell.group.value == "sums"


def test_values_in_their_order_and_a_group_that_starts_from_another_method(tmp_path: Path, tiny_model: Path) -> None:
    entry = "  custom: {stack: [sft], start: sft, groups: {column: topic, values: [big sums]}}\n"
    found = plan(write(tmp_path, tiny_model, PLAIN + entry), "sft>custom")
    assert [cell.name for cell in found.cells] == ["tiny.sft>custom[topic=big-sums].s0"]
    assert found.cells[0].start and found.cells[0].start.name == "tiny.sft.s0"


def test_excluded_with_its_label(tmp_path: Path, tiny_model: Path) -> None:
    file = write(tmp_path, tiny_model, GROUPED)
    file.write_text(file.read_text() + "exclude: [{method: custom}]\n")
    assert [cell.name for cell in plan(file).cells] == ["tiny.base", "tiny.sft.s0"]


def test_names_that_would_be_alike_as_files_stay_apart(tmp_path: Path, tiny_model: Path) -> None:
    entry = "  custom: {stack: [sft], groups: topic}\n"
    file = write(tmp_path, tiny_model, entry, topics={"a/b": 20, "A b": 20, "c": 20, "": 20})
    names = [cell.cell.method for cell in plan(file).cells]
    assert len({name.lower() for name in names}) == 4 and "custom[topic=c]" in names
    assert not any(set(name) & set("/ ") or "=]" in name for name in names)


@pytest.mark.parametrize(
    ("groups", "topics", "said"),
    [
        ("topics", None, ["no such column", "topic"]),
        ("kind", None, ["not every row belongs to one", "values"]),
        ("topic", {"sums": 30, "few": 3}, ["'few' has only 3 row(s)", "`min_rows` is 20"]),
        ("topic", {str(n): 20 for n in range(21)}, ["too many", "21 values", "20 groups"]),
        ("{column: topic, values: [summs]}", None, ["no row has 'summs'", "sums"]),
        ("{column: topic, values: [sums, sums]}", None, ["stands twice"]),
        ("{column: topic, min_rows: 26}", None, ["'big sums' has only 25"]),
    ],
)
def test_refused_with_the_reason(
    tmp_path: Path, tiny_model: Path, groups: str, topics: dict[object, int] | None, said: list[str]
) -> None:
    file = write(tmp_path, tiny_model, PLAIN + f"  custom: {{stack: [sft], groups: {groups}}}\n", topics=topics)
    found = complaint(file)
    assert all(part in found for part in (*said, "small.yaml:"))
    assert len(plan(file, "sft").cells) == 1  # it is no matter of other methods


@pytest.mark.parametrize(
    ("methods", "extra", "said"),
    [
        (GROUPED + "  lora: {start: custom}\n", "", "starts from `custom`, which leaves one artifact a `topic`"),
        (GROUPED, "tune: {trials: 2, methods: [custom]}\n", "`custom` has `groups`"),
        (GROUPED, "baseline: custom\n", "the baseline `custom` has `groups`"),
        ("  base: {groups: topic}\n", "", "its `groups` would do nothing"),
    ],
)
def test_what_needs_one_artifact_takes_no_groups(tmp_path: Path, methods: str, extra: str, said: str) -> None:
    file = write(tmp_path, "some/model", methods)
    file.write_text(file.read_text() + extra)
    with pytest.raises(Problems) as caught:
        load_matrix(file)
    assert said in str(caught.value)


def test_a_search_of_all_methods_leaves_grouped_ones_out(tmp_path: Path) -> None:
    file = write(tmp_path, "some/model", GROUPED)
    file.write_text(file.read_text() + "tune: {trials: 2}\n")
    assert list(load_matrix(file).methods) == ["base", "sft", "sft+tuned", "custom"]


def test_rows_are_divided_after_they_are_sampled(tmp_path: Path, tiny_model: Path) -> None:
    file = write(tmp_path, tiny_model, "  custom: {stack: [sft], groups: {column: topic, min_rows: 1}}\n")
    text = file.read_text()
    file.write_text(text.replace('rows.jsonl"}', 'rows.jsonl", rows: 20}'))
    from harness.data.sources import rows
    from harness.planning.groups import source_of

    found = plan(file)
    shares = [rows(source_of(found.sources["sums"], cell.cell)) for cell in found.cells]
    assert sum(map(len, shares)) == 20
    assert [{row["topic"] for row in share} for share in shares] in ([{"sums"}, {"big sums"}], [{"big sums"}, {"sums"}])


# --- run ------------------------------------------------------------------------------------------------------------
def test_a_run_trains_every_group_on_its_rows_and_the_table_has_one_row(tmp_path: Path, tiny_model: Path) -> None:
    file = write(tmp_path, tiny_model, GROUPED)
    out, _ = harness(tmp_path, "run", file, "--store", "s", "--only", "base", "--only", "custom")
    assert "custom (2 groups)" in out and "custom[topic" not in out.split("Cost")[0]
    found, store = plan(file), Store(tmp_path / "s")
    for cell in found.cells[2:]:
        assert cell.data and cell.cell.group
        record = store.find("data", cell.data.key)
        assert record
        rows = [json.loads(line) for line in (record.path / "rows" / "train.jsonl").read_text().splitlines()]
        assert {row["topic"] for row in rows} == {cell.cell.group.value}
    each, _ = harness(tmp_path, "table", file, "--store", "s", "--rows", "all", "--format", "csv")
    assert "custom[topic=sums]" in each and "custom[topic=big-sums]" in each
    again, _ = harness(tmp_path, "plan", file, "--store", "s", "--only", "custom")
    assert " new" not in again  # nothing is done twice
    assert [v.row for v in cell_views(found)] == ["base", "sft", "custom", "custom"]
    assert {v.group_of for v in load_run(store, "small").cells} == {"", "custom"}


def test_the_groups_of_a_seed_are_one_result_and_seeds_stay_seeds(tmp_path: Path) -> None:
    from dataclasses import replace

    from tests.test_results_table import TASKS, World

    made = World(tmp_path)
    made.cell("base", dict.fromkeys(TASKS, 0.3))
    for seed in range(2):
        for group, share in (("a", 0.2), ("b", 0.6)):
            made.cell(f"own[topic={group}]", dict.fromkeys(TASKS, share), seed=seed)
    made.cells = [replace(c, group_of="own") if c.method.startswith("own") else c for c in made.cells]
    row = next(r for r in made.table(rows="methods").rows if r.method == "own")
    assert (row.groups, row.seeds, len(row.cells)) == (2, (0, 1), 4)
    first = row.entries[0]
    assert first.estimate is not None
    assert first.estimate.value == pytest.approx(0.4)
    assert first.estimate.seeds == 2
    one = made.table(rows="all").rows
    assert [r.entries[0].estimate.value for r in one if r.level == "cell" and r.entries[0].estimate] == [
        pytest.approx(x) for x in (0.2, 0.6, 0.2, 0.6)
    ]


def test_one_seed_of_several_groups_is_no_finding(tmp_path: Path) -> None:
    from dataclasses import replace

    from tests.test_results_table import TASKS, World

    made = World(tmp_path)
    made.cell("base", dict.fromkeys(TASKS, 0.1))
    for group in "abc":
        made.cell(f"own[topic={group}]", dict.fromkeys(TASKS, 0.9))
    made.cells = [replace(c, group_of="own") if c.method.startswith("own") else c for c in made.cells]
    row = next(r for r in made.table(rows="methods").rows if r.method == "own")
    shown = [e.finding.verdict for e in row.entries if e.finding]
    assert shown
    assert set(shown) == {"items only"}
