"""The site of a board without a browser: what is written, what it may claim, and what is refused."""

from __future__ import annotations

import itertools
import json
import math
import re
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.boards.site import ASSETS, About, write_site
from harness.boards.site.samples import LONGEST, _Items
from harness.errors import HarnessError
from harness.results.frame import CellView, Cost, Frame, TaskView
from harness.results.items import Samples
from tests.boards_made import made_frame


def loaded(file: Path) -> Any:
    """The data of a script file, which is one call with JSON in it."""
    text = file.read_text(encoding="ascii")
    assert "<" not in text
    called = re.fullmatch(r"Harness\.(?:board|shard)\((.*)\);\n", text, re.DOTALL)
    assert called is not None
    return json.loads(f"[{called[1]}]")[-1]


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def verdicts(body: Mapping[str, Any], method: str) -> set[str]:
    rows = [row for row in body["rows"] if row["method"] == method and row["level"] == "method"]
    return {entry["d"]["verdict"] for row in rows for entry in row["entries"]}


def test_a_row_of_several_groups_a_seed_has_a_place_like_any_other(tmp_path: Path) -> None:
    frame = made_frame(["m"], ["base", "sft", "algebra", "counting"], seeds=2, tasks=2, items=300)
    grouped = {"algebra", "counting"}
    cells = [
        replace(c, view=replace(c.view, group_of="custom")) if c.view.method in grouped else c for c in frame.cells
    ]
    write_site(About("a", "A"), Frame(tuple(cells)), tmp_path)
    body = loaded(tmp_path / "data" / "board.js")
    rows = [row["method"] if row["level"] == "method" else "" for row in body["rows"]]
    assert all(body["places"][scope]["places"][rows.index("custom")] for scope in ("", "math", "code"))


def test_the_same_results_give_the_same_bytes_and_an_earlier_site_goes_entirely(tmp_path: Path) -> None:
    frame = made_frame(["m"], ["base", "sft", "lora"], tasks=3)
    write_site(About("a", "A"), frame, tmp_path / "one")
    write_site(About("b", "B"), made_frame(["m"], ["base", "sft", "lora", "dft"], tasks=5), tmp_path / "two")
    write_site(About("a", "A"), frame, tmp_path / "two")
    assert files(tmp_path / "one") == files(tmp_path / "two")


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(HarnessError, match="something else than a site"):
        write_site(About("a", "A"), made_frame(["m"], ["base"]), tmp_path)
    assert list(files(tmp_path)) == ["thesis.tex"]


def test_one_seed_is_never_a_finding_and_several_are_where_the_difference_is_clear(tmp_path: Path) -> None:
    for seeds in (1, 3):
        frame = made_frame(["m"], ["base", "sft", "dft"], seeds=seeds, tasks=2, items=300)
        write_site(About("a", "A"), frame, tmp_path / str(seeds))
    one, three = (loaded(tmp_path / seeds / "data" / "board.js") for seeds in ("1", "3"))
    assert verdicts(one, "dft") == {"one seed"} and verdicts(three, "dft") == {"better"}
    assert any("items only" in note for note in one["notes"])
    assert any("4 of them rest on several seeds" in note for note in three["notes"])
    assert not any("Tiers" in note for note in made_notes_without_places(tmp_path))


def made_notes_without_places(folder: Path) -> list[str]:
    write_site(About("a", "A"), made_frame(["m"], ["sft"], tasks=1), folder / "alone")
    body = loaded(folder / "alone" / "data" / "board.js")
    assert body["places"] == {"math": {"reason": "no model has two rows with all tasks and their spread"}}
    return list(body["notes"])


def test_tiers_come_with_rank_intervals_and_leave_out_what_is_not_finished(tmp_path: Path) -> None:
    frame = made_frame(["m"], ["base", "sft", "lora", "dft"], seeds=3, tasks=2, items=300)
    last = frame.cells[-1]
    missing = replace(last.results[0], state="missing", reason="not run yet", value=None, samples=None)
    cells = (*frame.cells[:-1], replace(last, results=(missing, *last.results[1:])))
    write_site(About("a", "A"), Frame(cells), tmp_path)
    body = loaded(tmp_path / "data" / "board.js")
    rows = [row["method"] if row["level"] == "method" else "" for row in body["rows"]]
    overall = body["places"][""]["places"]
    assert overall[rows.index("base")][0] > overall[rows.index("dft")][0] == 1  # its two finished seeds take part
    assert overall[rows.index("dft")][1:] == [1, 1] and overall[rows.index("dft") + 1] is None


def test_what_cells_share_stands_once_and_long_texts_are_cut(tmp_path: Path) -> None:
    def read(cell: str, task: TaskView) -> Iterator[Mapping[str, Any]]:
        for n in range(3):
            own = "another prompt" if (cell, n) == ("m.sft.s0", 2) else f"prompt {n}"
            scores = {task.primary: float(n > 0)}
            output = "x" * (LONGEST + 7) if n == 0 else ""
            yield {"doc": n, "hash": f"{n:016x}", "scores": scores, "target": n, "prompt": own, "output": output}

    write_site(About("a", "A"), made_frame(["m"], ["base", "sft"], tasks=1), tmp_path, read=read)
    folder = tmp_path / "data" / "samples" / "0"
    items, base, sft = (loaded(folder / name) for name in ("items.js", "0.js", "1.js"))
    assert items == {
        "item": [f"{n:016x}" for n in range(3)],
        "target": ["0", "1", "2"],
        "prompt": ["prompt 0", "prompt 1", "prompt 2"],
    }
    assert base["score"] == [0, 1, 1] and "prompt" not in base and sft["prompt"] == [None, None, "another prompt"]
    assert base["output"][0].endswith("x … (7 more characters)") and len(base["output"][0]) < LONGEST + 50


def test_without_samples_the_scores_by_item_are_shown(tmp_path: Path) -> None:
    write_site(About("a", "A"), made_frame(["m"], ["base", "sft"], tasks=1, items=5), tmp_path)
    body = loaded(tmp_path / "data" / "samples" / "0" / "1.js")
    assert list(body) == ["score"] and set(body["score"]) <= {0, 1} and len(body["score"]) == 5


def test_a_cost_that_no_row_has_gets_no_column(tmp_path: Path) -> None:
    frame = made_frame(["m"], ["base", "sft"])
    write_site(About("a", "A"), Frame(tuple(replace(cell, cost=Cost()) for cell in frame.cells)), tmp_path)
    assert loaded(tmp_path / "data" / "board.js")["costs"] == []


@pytest.mark.parametrize("address", ["javascript:alert(1)", "data:text/html,x", "file:///etc/passwd", " //x"])
def test_a_link_that_is_neither_relative_nor_http_is_refused(address: str) -> None:
    with pytest.raises(HarnessError, match="an address that a page may not have"):
        About("a", "A", links=(("protocol", address),))


def test_links_to_files_beside_the_site_and_to_the_web_are_taken() -> None:
    for address in (
        "../board.csv",
        "board.md",
        "./x/y",
        "https://example.org/a?b=c:d",
        "entries/a.tar.gz",
        "#/reading",
    ):
        About("a", "A", links=(("there", address),))


def test_a_score_that_is_no_number_is_a_gap_on_the_page() -> None:
    samples = Samples(("a", "b", "c"), array("d", [0.5, float("nan"), 1.0]))
    assert _Items().add_scores(samples) == {"score": [0.5, None, 1]}


def test_the_pages_name_no_address_outside_and_never_write_html() -> None:
    for file in sorted(ASSETS.iterdir()):
        text = file.read_text(encoding="utf-8")
        outside = set(re.findall(r"https?://[^\s\"'`)]+", text)) - {"http://www.w3.org/2000/svg"}
        assert not outside, (file.name, outside)
        for word in ("innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval(", "Function(", "@import"):
            assert word not in text, (file.name, word)


@pytest.mark.slow
def test_the_command_makes_the_site_of_a_run_with_what_was_sent_and_said(site_of_a_run: Path) -> None:
    body = loaded(site_of_a_run / "data" / "board.js")
    assert (body["title"], body["reproduce"]) == ("Mine", "harness run small.yaml")
    assert "1 cells of this run have not been run yet." in body["notes"]
    column = str(next(at for at, c in enumerate(body["columns"]) if c["task"] == "made_word_problems"))
    assert body["sampled"][column] == [0, 1]
    items, sft = (loaded(site_of_a_run / "data" / "samples" / column / name) for name in ("items.js", "1.js"))
    assert len(items["prompt"]) == 12 and items["prompt"][0].startswith("[") and any(sft["output"])


def test_of_a_long_training_few_points_are_kept_the_last_one_always_and_no_number_becomes_a_gap(tmp_path: Path) -> None:
    def logged(view: CellView) -> Iterator[tuple[int, Mapping[str, float]]]:
        last = 1001 if view.method == "sft" else 3
        for step in range(1, last + 1):
            values = {"norm": 1.23456789, "tokens": 5.0, "loss": math.inf if step == 2 else 1 / step}
            yield step, values if view.method == "sft" else {"loss": values["loss"]}

    frame = made_frame(["m"], ["base", "sft", "dft"], tasks=1, items=5)
    write_site(About("a", "A"), frame, tmp_path, curves=logged)
    assert loaded(tmp_path / "data" / "board.js")["logged"] == ["loss", "norm"]
    loss, norm = (loaded(tmp_path / "data" / "training" / f"{n}.js") for n in (0, 1))
    assert loss["2"] == {"x": [1, 2, 3], "y": [1.0, None, 0.3333]} and set(loss) == {"1", "2"}
    steps = loss["1"]["x"]
    assert len(steps) <= 200 and steps[-1] == 1001 and len({b - a for a, b in itertools.pairwise(steps)}) == 1
    assert set(norm["1"]["y"]) == {1.235} and set(norm) == {"1"}
    write_site(About("a", "A"), frame, tmp_path)
    assert loaded(tmp_path / "data" / "board.js")["logged"] == [] and not (tmp_path / "data" / "training").exists()
