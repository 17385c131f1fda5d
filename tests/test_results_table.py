"""What a table shows: numbers, states, footnotes, protocols and costs, from a real store to text."""

from __future__ import annotations

import csv
import io
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.digest import digest, key_of
from harness.errors import HarnessError
from harness.results.columns import make_columns
from harness.results.frame import CellView, TaskView, collect, items_identity, read_samples
from harness.results.items import by_metric, read_items, sums, write_items
from harness.results.table import Table, make_table
from harness.store import Store

TASKS = {
    "math": ("made_math", "exact_match", 100),
    "code": ("humaneval", "pass@1", 30),
    "tool_use": ("bfcl_simple", "acc", 40),
    "glue": ("made_cola", "mcc", 100),
    "glue2": ("made_sst2", "acc", 100),
    "alignment": ("made_ifeval", "strict", 20),
}
COST = {
    "trained_tokens": 15_000,
    "loss_tokens": 4_000,
    "seconds": {"open": 2.0, "forward": 20.0, "backward": 25.0, "optimizer": 5.0, "save": 1.0},
    "peak_bytes": {"backward": 2_100_000_000, "open": 600_000_000},
    "trainable_parameters": 134_515_008,
    "artifact_bytes": 269_060_552,
}


class World:
    """A store, and the cells that were planned over it."""

    def __init__(self, folder: Path) -> None:
        self.store, self.cells = Store(folder / "store"), list[CellView]()

    def publish(self, kind: str, identity: dict[str, Any], files: dict[str, str], **record: Any) -> None:
        with self.store.claim(kind, key_of(kind, identity), identity) as attempt:
            for name, text in files.items():
                (attempt.work / name).write_text(text)
            attempt.publish(**record)

    def fail(self, kind: str, identity: dict[str, Any], failure: str, message: str) -> None:
        self.store.claim(kind, key_of(kind, identity), identity).fail(failure, message)

    def cell(
        self, method: str, right: dict[str, float], *, seed: int | None = 0, model: str = "tiny", **how: Any
    ) -> None:
        """right: the share of correct items by suite; a suite that is left out has not been scored."""
        name, trained = f"{model}.{method}.s{seed}", method != "base"
        train = {"train": name}
        if trained and how.get("train", "ok") in ("ok", "diverged"):
            extra = {"diverged": "loss is nan at step 12"} if how.get("train") == "diverged" else {}
            self.publish("train", train, {"artifact.json": "{}"}, status=how.get("train", "ok"), cost=COST, extra=extra)
        if how.get("train") == "oom":
            self.fail("train", train, "oom", "out of memory at 9.1 GiB\nand more")
        views = []
        for suite, (task, metric, n) in TASKS.items():
            protocol = how.get("protocol", {}).get(suite, {"task": task, "limit": n})
            views.append(self._task(name, suite.rstrip("2"), task, metric, n, right.get(suite), protocol, how))
        keys = (key_of("train", train),) if trained else ()
        flags = how.get("flags", ())
        self.cells.append(CellView(name, model, method, seed if trained else None, flags, keys, tuple(views)))

    def _task(
        self,
        cell: str,
        suite: str,
        task: str,
        metric: str,
        n: int,
        share: float | None,
        protocol: dict[str, Any],
        how: dict[str, Any],
    ) -> TaskView:
        asked, scored = {"generate": cell, "task": task}, {"score": cell, "task": task, **protocol}
        if share is not None:
            self.publish(
                "generate",
                asked,
                {"responses.jsonl": ""},
                cost={"seconds": 2.5, "prompt_tokens": 9, "generated_tokens": 70},
                extra={"activation": how.get("activation", {})},
            )
            files = score_files(metric, n, share)
            self.publish("score", scored, files, extra={"truncated": how.get("truncated", {}).get(task, 0.0)})
        keys = (key_of("score", scored), digest(protocol)[:16])
        notes = ("made data",) if task.startswith("made") else ()
        return TaskView(
            suite, task, metric, True, *keys, key_of("generate", asked), protocol, 0.0, n, 164 if n == 30 else n, notes
        )

    def table(self, **options: Any) -> Table:
        return make_table(collect(self.cells, self.store), **options)


def score_files(metric: str, n: int, share: float) -> dict[str, str]:
    """samples.jsonl and metrics.json of a task of which the first `share` of the items are right."""
    right = [i < round(share * n) for i in range(n)]
    scores: list[Any] = [float(r) for r in right]
    value = sum(right) / n
    if metric == "mcc":
        from sklearn.metrics import matthews_corrcoef

        gold = [i % 2 for i in range(n)]
        scores = [[g, g if r else 1 - g] for g, r in zip(gold, right, strict=True)]
        value = float(matthews_corrcoef(gold, [p for _, p in scores]))
    lines = [json.dumps({"doc": i, "hash": f"d{i:03d}", "scores": {metric: s}}) for i, s in enumerate(scores)]
    metrics = {metric: {"value": value, "n": n}, "loose": {"value": 0.5, "n": n}}
    return {"samples.jsonl": "\n".join(lines) + "\n", "metrics.json": json.dumps(metrics)}


def shares(math: float, others: float = 0.3) -> dict[str, float]:
    return dict.fromkeys(TASKS, others) | {"math": math, "glue": 0.6}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def demo(world: World) -> World:
    """The shape of the demo: four methods, one seed, seven columns."""
    world.cell("base", shares(0.02))
    world.cell("sft", shares(0.31, 0.2))
    world.cell("lora", shares(0.22, 0.25), truncated={"made_math": 0.31})
    world.cell("lora+dft", shares(0.25, 0.25))
    return world


def entry(table: Table, row: int, label: str) -> Any:
    return table.rows[row].entries[[c.label for c in table.columns].index(label)]


def lines_of(text: str, start: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(f"| {start}")]


def test_a_small_table_reads_like_this(world: World) -> None:
    world.cell("base", {"math": 0.02, "alignment": 0.3})
    world.cell("sft", {"math": 0.31, "alignment": 0.3})
    text = world.table().markdown(width=90)
    assert text.startswith(
        """\
**Scores of tiny**

| method |       made_math†¹ | humaneval [30]†² | bfcl_simple† | glue mean† |
| ------ | ----------------: | ---------------: | -----------: | ---------: |
| n      |               100 |                – |            – |          – |
| base   |    2.0 [0.6, 7.0] |               –³ |           –³ |         –³ |
| sft    | 31.0 [22.8, 40.6] |               –³ |           –³ |         –³ |
"""
    )
    assert "- ¹ made data\n- ² a subset: 30 of 164 items\n- ³ not run yet\n" in text
    assert lines_of(text, "sft")[2].split("|")[2].strip() == "+29.0 [20.0, 38.0]"


def test_four_rows_and_seven_columns_fit_in_120_characters_with_the_headlines_together(demo: World) -> None:
    text = demo.table().markdown()
    assert max(map(len, text.splitlines())) <= 120
    header = lines_of(text, "method")[0]
    assert [c.strip(" ¹²³") for c in header.split("|")[2:-1]] == [
        "made_math†",
        "humaneval [30]†",
        "bfcl_simple†",
        "glue mean†",
        "made_ifeval†",
    ]


def test_the_headline_of_a_suite_is_its_only_task_or_the_mean_of_its_tasks(demo: World) -> None:
    table = demo.table()
    marked = [c.label for c in table.columns if c.headline]
    assert marked == ["made_math", "humaneval [30]", "bfcl_simple", "glue mean", "made_ifeval"]
    parts = [entry(table, 0, label).estimate.value for label in ("made_cola", "made_sst2")]
    assert entry(table, 0, "glue mean").estimate.value == pytest.approx(sum(parts) / 2)
    assert table.columns[3].of_tasks == ("made_cola", "made_sst2")


def test_every_number_has_an_interval_and_the_count_of_its_items(demo: World) -> None:
    for row in demo.table().rows:
        for e in row.entries:
            assert e.estimate.low < e.estimate.value < e.estimate.high and e.estimate.n >= 20


def test_a_difference_has_an_interval_and_says_that_it_covers_items_only(demo: World) -> None:
    table = demo.table()
    found = entry(table, 1, "made_math").difference
    assert found.value == pytest.approx(0.29) and found.low > 0
    assert all(e.difference is None for e in table.rows[0].entries)
    assert any("items only" in note for note in table.notes)


def test_failed_diverged_and_missing_cells_are_rows_without_numbers(world: World) -> None:
    world.cell("base", shares(0.1))
    world.cell("nan", {}, train="diverged")
    world.cell("big", {}, train="oom")
    world.cell("later", {}, train="none")
    table = world.table()
    assert [row.state for row in table.rows] == ["ok", "diverged", "failed", "missing"]
    assert all(e.estimate is None and e.difference is None for row in table.rows[1:] for e in row.entries)
    text = table.markdown()
    shown = [lines_of(text, name)[0].split("|")[2].strip() for name in ("nan", "big", "later")]
    assert shown == ["diverged³", "failed⁴", "–⁵"]
    assert "³ training diverged: loss is nan at step 12\n" in text
    assert "⁴ train failed: oom (out of memory at 9.1 GiB)\n" in text
    assert "⁵ not run yet\n" in text


def test_a_run_is_incomplete_while_something_failed_or_is_missing_but_not_for_a_divergence(world: World) -> None:
    world.cell("base", shares(0.1))
    world.cell("nan", {}, train="diverged")
    assert not collect(world.cells, world.store).incomplete
    world.cell("later", {"math": 0.1})
    frame = collect(world.cells, world.store)
    assert frame.incomplete
    assert (frame.cells[-1].state, frame.cells[-1].reason) == ("partial", "1 of 6 tasks done")


def test_a_step_that_was_interrupted_is_merely_not_done(world: World) -> None:
    world.fail("train", {"train": "tiny.sft.s0"}, "interrupted", "")
    world.cell("sft", {}, train="none")
    assert {(r.state, r.reason) for r in collect(world.cells, world.store).cells[0].results} == {
        ("missing", "interrupted")
    }


def test_a_cell_whose_data_alone_are_prepared_has_not_been_run(world: World) -> None:
    world.publish("data", {"data": "sums"}, {"rows.jsonl": "{}"})
    world.cell("sft", {}, train="none")
    cells = [replace(cell, data=key_of("data", {"data": "sums"})) for cell in world.cells]
    assert {(r.state, r.reason) for r in collect(cells, world.store).cells[0].results} == {("missing", "not run yet")}


def test_a_failed_generation_or_scoring_is_the_failure_of_that_task_alone(world: World) -> None:
    world.fail("generate", {"generate": "tiny.base.s0", "task": "humaneval"}, "killed", "ended by signal 9")
    world.fail("score", {"score": "tiny.base.s0", "task": "made_ifeval", "limit": 20}, "bug", "")
    world.cell("base", {"math": 0.5})
    table = world.table()
    assert entry(table, 0, "humaneval [30]").reason == "generate failed: killed (ended by signal 9)"
    assert entry(table, 0, "made_ifeval").reason == "score failed: bug"
    assert entry(table, 0, "made_math").state == "ok"


def test_several_seeds_give_a_row_for_the_method_and_one_for_each_cell(world: World) -> None:
    world.cell("base", shares(0.1))
    for seed, share in enumerate((0.2, 0.3, 0.4)):
        world.cell("sft", shares(share), seed=seed)
    table = world.table()
    assert [(row.level, row.seeds) for row in table.rows] == [
        ("method", ()),
        ("method", (0, 1, 2)),
        ("cell", (0,)),
        ("cell", (1,)),
        ("cell", (2,)),
    ]
    found = entry(table, 1, "made_math").estimate
    assert found.value == pytest.approx(0.3) and found.seeds == 3
    assert (
        found.high - found.low > entry(table, 3, "made_math").estimate.high - entry(table, 3, "made_math").estimate.low
    )
    text = table.markdown()
    assert lines_of(text, "sft (3 seeds)") and lines_of(text, "sft s1")
    assert "items and training seeds" in text and "items only" not in text


def test_the_mean_of_the_seeds_that_are_there_says_which_are_not(world: World) -> None:
    world.cell("base", shares(0.1))
    world.cell("sft", shares(0.2), seed=0)
    world.cell("sft", {}, seed=1, train="diverged")
    found = entry(world.table(), 1, "made_math")
    assert found.estimate.value == pytest.approx(0.2)
    assert "mean of 1 of 2 seeds; the others: training diverged: loss is nan at step 12" in found.notes


def test_differences_are_to_the_baseline_of_the_same_model(world: World) -> None:
    for model, share in (("tiny", 0.1), ("small", 0.5)):
        world.cell("base", shares(share), model=model)
        world.cell("sft", shares(0.6), model=model)
    table = world.table()
    found = [entry(table, row, "made_math").difference.value for row in (1, 3)]
    assert found == pytest.approx([0.5, 0.1])
    assert "| model | method |" in table.markdown()


def test_without_its_baseline_a_table_says_so(world: World) -> None:
    world.cell("sft", shares(0.6))
    table = world.table(baseline="base")
    assert table.baseline is None and any("the baseline base is not in this table" in n for n in table.notes)


def test_two_protocols_are_two_columns_with_the_field_that_differs(world: World) -> None:
    world.cell("base", shares(0.1))
    world.cell("sft", shares(0.3), protocol={"math": {"task": "made_math", "limit": 50}})
    table = world.table()
    first, second = (c for c in table.columns if c.task == "made_math")
    assert first.label != second.label and any("limit 100 -> 50" in note for note in second.notes)
    assert entry(table, 1, first.label).estimate is None and entry(table, 0, second.label).estimate is None
    assert entry(table, 1, second.label).difference is None


def test_a_suite_mean_never_mixes_protocols(world: World) -> None:
    world.cell("base", shares(0.1))
    world.cell("sft", shares(0.3), protocol={"glue2": {"task": "made_sst2", "limit": 50}})
    table = world.table()
    means = [i for i, c in enumerate(table.columns) if c.metric == "mean"]
    assert [[row.entries[i].estimate is not None for i in means] for row in table.rows] == [
        [True, False],
        [False, True],
    ]


def test_strict_refuses_two_protocols(world: World) -> None:
    world.cell("base", shares(0.1))
    world.cell("sft", shares(0.3), protocol={"math": {"task": "made_math", "limit": 50}})
    with pytest.raises(HarnessError, match="made_math") as error:
        world.table(strict=True)
    assert "limit 100 -> 50" in error.value.why


def test_many_cut_answers_are_marked_with_their_share(demo: World) -> None:
    table = demo.table()
    assert "answers cut by the token limit in made_math: lora 31 %" in entry(table, 2, "made_math").notes
    assert entry(table, 1, "made_math").notes == ()


def test_flags_and_notes_of_cells_and_of_the_plan_are_footnotes(world: World) -> None:
    world.cell("base", shares(0.1))
    world.cell("tta", shares(0.1), flags=("transductive",))
    text = world.table(notes=["gsm8k needs a mirror, so made_math was taken"]).markdown()
    assert "- ¹ transductive\n" in text and lines_of(text, "tta¹")
    assert "- gsm8k needs a mirror, so made_math was taken\n" in text


def test_a_row_says_how_its_weights_were_served_where_that_was_not_as_usual(world: World) -> None:
    world.cell("base", shares(0.1))
    world.cell("sft", shares(0.1), activation={"way": "restart", "canary": {"verdict": "fresh"}})
    world.cell("lora", shares(0.1), activation={"way": "merge+reload", "canary": {"no_op": True}})
    base, sft, lora = (row.notes for row in world.table().rows)
    assert base == ()
    assert "too small for the canary" in sft[0]
    assert "changed nothing" in lora[0]


def test_costs_add_up_over_steps_and_an_untrained_row_has_no_training_cost(demo: World) -> None:
    base, sft = (row.cost for row in demo.table().rows[:2])
    assert (base.trained_tokens, base.train_seconds, base.generate_seconds) == (None, None, 15.0)
    assert (sft.trained_tokens, sft.train_seconds, sft.tokens_per_second) == (15_000, 53.0, 300.0)
    assert (sft.peak_bytes, sft.generated_tokens) == (2_100_000_000, 420)
    line = lines_of(demo.table().markdown(), "sft")[-1]
    shown = [cell.strip() for cell in line.split("|")[2:-1]]
    assert shown == ["15k", "53.0 s", "300", "2.1 GB", "135M", "269 MB", "15.0 s", "420"]


def test_curation_and_rollouts_are_in_the_cost_of_a_row(demo: World) -> None:
    curated = {"rollout": {"prompt_tokens": 900, "generated_tokens": 100}, "seconds": {"curate": 7.0, "engine": 3.0}}
    demo.publish("data", {"data": "curated"}, {}, cost={**curated, "trained_tokens": 0, "flops": None})
    cells = [replace(c, data=key_of("data", {"data": "curated"})) if c.method == "sft" else c for c in demo.cells]
    table = make_table(collect(cells, demo.store))
    sft = table.rows[1].cost
    assert (sft.trained_tokens, sft.sampled_tokens, sft.train_seconds) == (15_000, 1_000, 63.0)
    assert (sft.tokens_per_second, sft.train_phases["curate"]) == (300.0, 7.0)
    lines = table.markdown().splitlines()
    (head,) = (line for line in lines if "sampled tokens" in line)
    assert [cell.strip() for cell in lines_of(table.markdown(), "sft")[-2].split("|")[2:4]] == ["15k", "1k"], head


def test_the_same_store_gives_the_same_bytes(demo: World) -> None:
    again = World.__new__(World)
    again.store, again.cells = Store(demo.store.root), demo.cells
    for form in ("markdown", "csv", "csv_long", "json"):
        assert getattr(demo.table(), form)() == getattr(again.table(), form)()


def test_json_reads_back_with_its_schema_and_every_number(demo: World) -> None:
    table = demo.table()
    body = json.loads(table.json())
    assert (body["schema"], body["version"], body["baseline"]) == ("harness-table", 1, "base")
    assert [row["method"] for row in body["rows"]] == ["base", "sft", "lora", "lora+dft"]
    found = body["rows"][1]["entries"]["made_math"]
    assert found["estimate"]["value"] == 0.31 and found["estimate"]["n"] == 100
    assert found["difference"]["low"] > 0 and found["others"] == {"loose": 0.5}
    assert body["rows"][1]["cost"]["train_phases"] == COST["seconds"]


def test_the_long_csv_has_a_line_for_every_row_column_and_metric(demo: World) -> None:
    lines = list(csv.DictReader(io.StringIO(demo.table().csv_long())))
    primary = [line for line in lines if line["primary"] == "true"]
    assert len(primary) == 4 * 7 and len(lines) == 4 * (7 + 6)
    found = next(line for line in primary if (line["method"], line["task"]) == ("sft", "made_math"))
    assert (float(found["value"]), found["n"], found["headline"], found["state"]) == (0.31, "100", "true", "ok")
    assert float(found["difference_value"]) == pytest.approx(0.29)


def test_the_wide_csv_has_a_line_for_every_row_and_empty_fields_where_nothing_is_known(world: World) -> None:
    world.cell("base", shares(0.1))
    world.cell("nan", {}, train="diverged")
    base, nan = csv.DictReader(io.StringIO(world.table().csv()))
    assert (base["made_math"], base["made_math n"], base["trained_tokens"]) == ("0.1", "100", "")
    assert (nan["made_math"], nan["made_math state"], nan["trained_tokens"]) == ("", "diverged", "15000")


def test_hostile_names_stay_text(world: World) -> None:
    world.cell("base", shares(0.1), model="=1+1|<script>*x*")
    text = world.table().markdown()
    assert "<script>" not in text and "\\|" in text and "\\*x\\*" in text
    assert next(csv.DictReader(io.StringIO(world.table().csv())))["model"] == "'=1+1|<script>*x*"


@pytest.mark.parametrize(
    "name",
    [" =1+1", "\n=1+1", "\t=1", "\r=1", "\t1", "\u200b+1", "\ufeff-1", "＝1", "＋1", "－1", "＠SUM(1)", " ﹦1", "@x"],
)
def test_what_a_spreadsheet_might_run_is_text_whatever_stands_before_it(world: World, name: str) -> None:
    world.cell("base", shares(0.1), model=name)
    for text in (world.table().csv(), world.table().csv_long()):
        assert next(csv.DictReader(io.StringIO(text, newline="")))["model"] == "'" + name.replace("\r", "\n")


def test_names_that_are_no_formulas_stay_as_they_are_in_csv(world: World) -> None:
    for model in (" tiny-1=x", "in\r=two\r\nlines"):
        world.cell("base", shares(0.1), model=model)
    found = [line["model"] for line in csv.DictReader(io.StringIO(world.table().csv(), newline=""))]
    assert found == [" tiny-1=x", "in\n=two\nlines"]


@pytest.mark.parametrize("width", [80, 120])
def test_on_a_terminal_the_table_keeps_its_width_and_all_its_numbers(demo: World, width: int) -> None:
    from rich.console import Console

    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(demo.table().terminal(width=width))
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= width
    assert "31.0" in text and "[22.8, 40.6]" in text and "+29.0" in text


def test_a_scorer_without_the_primary_metric_is_an_error_that_names_what_there_is(world: World) -> None:
    world.cell("base", {"math": 0.5})
    cell = world.cells[0]
    renamed = [TaskView(**{**vars(t), "primary": "exact"}) for t in cell.scores[:1]]
    with pytest.raises(HarnessError, match="no metric 'exact'") as error:
        collect([CellView(**{**vars(cell), "scores": tuple(renamed)})], world.store)
    assert "exact_match" in error.value.why


def test_a_document_that_occurs_twice_counts_twice(tmp_path: Path) -> None:
    file = tmp_path / "samples.jsonl"
    file.write_text(
        "".join(json.dumps({"doc": i, "hash": "same", "scores": {"acc": float(i)}}) + "\n" for i in range(3))
    )
    found = by_metric(read_samples(file))["acc"]
    assert found.items == ("same", "same#2", "same#3") and list(found.values or ()) == [0, 1, 2]


def view(task: str, suite: str = "glue", **more: Any) -> TaskView:
    at = {"primary": "acc", "headline": True, "key": task, "protocol": f"protocol of {task}"}
    return TaskView(suite, task, **{**at, **more})


def test_a_named_mean_is_shown_where_all_its_parts_were_measured() -> None:
    means = (("GLUE mirror-3", 3), ("pair", 2))
    parts = [view("cola", means=means), view("sst2", means=means), view("rte", means=means[:1])]
    whole = make_columns(parts, False)
    assert [(c.label, c.headline) for c in whole if c.of_tasks] == [("GLUE mirror-3", True), ("pair", False)]
    assert next(c for c in whole if c.label == "pair").of_tasks == ("cola", "sst2")
    assert [c.label for c in make_columns(parts[:2], False) if c.of_tasks] == ["pair"]
    assert [c.label for c in make_columns([parts[0], parts[2]], False) if c.of_tasks] == ["glue mean"]


def test_metrics_shown_beside_the_primary_one_have_columns_of_their_own() -> None:
    beside = view("gsm8k", "math", primary="exact_match,flexible", label="gsm8k flexible", headline=False)
    columns = make_columns([view("gsm8k", "math", primary="exact_match,strict", label="gsm8k"), beside], False)
    assert [(c.label, c.metric, c.headline) for c in columns] == [
        ("gsm8k", "exact_match,strict", True),
        ("gsm8k flexible", "exact_match,flexible", False),
    ]


def test_a_table_reads_the_same_from_the_columnar_file_as_from_the_scores(demo: World, tmp_path: Path) -> None:
    before = demo.table().json()
    for cell in demo.cells:
        keys = [t.key for t in cell.scores]
        records = {key: demo.store.find("score", key) for key in keys}
        identity = items_identity(keys)
        with demo.store.claim("items", key_of("items", identity), identity) as attempt:
            lines = {key: read_samples(r.file("samples.jsonl")) for key, r in records.items() if r}
            write_items(attempt.work / "items.parquet", lines)
            tasks = {
                key: {
                    "metrics": json.loads(r.file("metrics.json").read_text()),
                    "truncated": r.extra.get("truncated"),
                    "too_long": 0,
                }
                for key, r in records.items()
                if r
            }
            attempt.publish(extra={"tasks": tasks})
    for folder in (demo.store.root / "score").iterdir():
        shutil.rmtree(folder)
    assert demo.table().json() == before


def test_the_sums_of_a_score_step_give_mean_and_variance_by_item_and_by_cluster() -> None:
    scores = [(1.0, "a"), (0.0, "a"), (1.0, "b"), (1.0, "b"), (0.0, "c")]
    samples = [{"hash": str(i), "scores": {"acc": s, "mcc": [0, 1]}, "cluster": c} for i, (s, c) in enumerate(scores)]
    assert sums(samples) == {"acc": {"n": 5, "sum": 3.0, "squares": 3.0, "clusters": 3, "cluster_squares": 5.0}}
    alone = [{k: v for k, v in s.items() if k != "cluster"} for s in samples]
    assert sums(alone)["acc"]["clusters"] == 5


def test_clusters_are_read_alike_from_the_samples_of_a_score_step_and_from_the_columnar_file(tmp_path: Path) -> None:
    scores = {"acc": 1.0, "mcc": [0, 1]}
    samples = [{"hash": h, "scores": scores, "cluster": c} for h, c in (("b", "x"), ("a", "x"), ("c", ""))]
    write_items(tmp_path / "items.parquet", {"k": samples, "plain": [{"hash": "a", "scores": scores}]})
    read = read_items(tmp_path / "items.parquet")
    assert {metric: read["k", metric] for metric in scores} == by_metric(samples)
    assert read["k", "acc"].clusters == read["k", "mcc"].clusters == ("x", "x", "")
    assert read["plain", "acc"].clusters is None


def know(world: World, place: int, items: list[str]) -> None:
    """As if these items of the cell's made_math occurred in its training data."""
    found = {"hits": items}
    lines = [json.dumps({"item": h, "question": {"rules": ["13-gram"], "row": "0"}, "answer": None}) for h in items]
    lines.append(json.dumps({"item": "d099", "question": None, "answer": {"rules": ["exact"], "row": "1"}}))
    world.publish("overlap", found, {"hits.jsonl": "\n".join(lines) + "\n"})
    cell, key = world.cells[place], key_of("overlap", found)
    seen = [replace(t, overlap=key) if t.task == "made_math" else t for t in cell.scores]
    world.cells[place] = replace(cell, scores=tuple(seen))


def test_items_that_occur_in_the_training_data_are_counted_and_left_out_beside_the_score(demo: World) -> None:
    know(demo, 1, [f"d{i:03d}" for i in range(40)])
    table = demo.table()
    (note,) = [n for n in entry(table, 1, "made_math").notes if "training" in n]
    assert note == (
        "overlap above 1 %: 40 of 100 items share text with the training data (13-gram: 40); "
        "without them 0.0 [0.0, 6.0]"
    )
    assert not any("training" in n for n in entry(table, 2, "made_math").notes)


def test_a_score_that_known_items_hardly_move_is_not_repeated(world: World) -> None:
    world.cell("base", shares(0.3))
    world.cell("sft", shares(0.0))
    know(world, 1, ["d000"])
    (note,) = [n for n in entry(world.table(), 1, "made_math").notes if "training" in n]
    assert note == (
        "1 of 100 items share text with the training data (13-gram: 1); "
        "without them score and interval change by at most 0.1"
    )


def test_a_table_of_many_tasks_has_one_line_a_task(demo: World) -> None:
    text = demo.table().markdown_by_task()
    header = next(line for line in text.splitlines() if line.startswith("| suite"))
    assert "base" in header and "sft seconds" in header
    (line,) = [line for line in text.splitlines() if "| made_math" in line]
    cells = [cell.strip() for cell in line.split("|")]
    assert cells[5].startswith("2.0 [0.6, 7.0]") and cells[8].startswith("31.0 [22.8, 40.6]")
    assert cells[12] == "31", "the share of lora's answers that was cut"
    assert sum(line.startswith("| ") for line in text.splitlines()) == 2 + len(demo.table().columns)
