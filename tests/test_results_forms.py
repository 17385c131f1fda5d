"""The forms of a table: findings marked, tiers listed, LaTeX, HTML and Parquet, hostile names as text in each."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from harness.errors import HarnessError
from harness.results.frame import collect
from harness.results.latex import escape
from harness.results.parquet import write_samples
from tests.test_results_table import TASKS, World

HOSTILE = "<script>alert(1)</script>_50%$x^2$|`a`"


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A baseline, a method that is better at math by far, and one that is as good; three seeds each."""
    made = World(tmp_path)
    made.cell("base", dict.fromkeys(TASKS, 0.3))
    for seed in range(3):
        made.cell("up", dict.fromkeys(TASKS, 0.3) | {"math": 0.7}, seed=seed)
        made.cell("same", dict.fromkeys(TASKS, 0.3), seed=seed)
    return made


def test_a_real_difference_is_marked_and_an_undecided_one_is_not(world: World) -> None:
    text = world.table(rows="methods").markdown(width=300)
    lines = text[text.index("**Difference to base**") :].splitlines()
    up = next(line for line in lines if line.startswith("| up"))
    same = next(line for line in lines if line.startswith("| same"))
    assert "▲" in up.split("|")[2]
    assert "▲" not in same
    assert "▼" not in same
    assert "▲ better, ▼ worse: significant after correction" in text


def test_the_smallest_difference_that_could_be_found_stands_under_the_differences(world: World) -> None:
    table = world.table(rows="methods")
    widest = max(row.entries[0].difference.mde or 0 for row in table.rows if row.entries[0].difference)
    [line] = [x for x in table.markdown(width=300).splitlines() if x.startswith("| detectable")]
    assert line.split("|")[2].strip() == f"{100 * widest:.1f}"


def test_rows_are_methods_cells_or_both(world: World) -> None:
    levels = {rows: [(r.level, r.method) for r in world.table(rows=rows).rows] for rows in ("methods", "cells", "all")}
    assert levels["methods"] == [("method", "base"), ("method", "up"), ("method", "same")]
    assert levels["cells"] == [("method", "base"), *[("cell", "up")] * 3, *[("cell", "same")] * 3]
    assert len(levels["all"]) == 9


def test_tiers_are_listed_best_first(world: World) -> None:
    text = world.table(rows="methods", ranked=True).markdown()
    part = text[text.index("**Tiers by made\\_math") if "made\\_math" in text else text.index("**Tiers by made_math") :]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in part.splitlines()[4:7]]
    assert rows[0][:3] == ["1", "1", "up (3 seeds)"]
    assert {row[0] for row in rows[1:]} == {"2"}
    assert {row[1] for row in rows[1:]} == {"2 to 3"}


def test_without_being_asked_for_there_are_no_tiers(world: World) -> None:
    table = world.table(rows="methods")
    assert all(entry.place is None for row in table.rows for entry in row.entries)
    assert "Tiers" not in table.markdown()


def test_latex_is_bold_for_the_top_tier_and_only_where_there_is_more_than_one(world: World) -> None:
    text = world.table(rows="methods", ranked=True).latex()
    [up] = [line for line in text.splitlines() if line.startswith("up")]
    cells = up.split(" & ")
    assert cells[1].startswith("\\textbf{70.0}")
    assert not any("textbf" in cell for cell in cells[2:])
    assert text.count("\\textbf") == 1
    assert "training seeds a trained row: 3" in text
    assert text.count("{") - text.count("\\{") == text.count("}") - text.count("\\}")


def test_latex_has_the_columns_that_were_asked_for(world: World) -> None:
    table = world.table(rows="methods")
    one = table.latex(columns=["humaneval [30]"])
    assert "humaneval [30]" in one
    assert "made" not in one.split("\\midrule")[0].split("tabular")[1]
    with pytest.raises(HarnessError, match="there is no column `humanevil`"):
        table.latex(columns=["humanevil"])


def test_what_latex_would_run_prints_as_it_stands() -> None:
    assert escape("a_b & 50% $x$ #1 \\input{x} ~^") == (
        r"a\_b \& 50\% \$x\$ \#1 \textbackslash{}input\{x\} \textasciitilde{}\textasciicircum{}"
    )


class Page(HTMLParser):
    """The tags of a page, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_html_is_whole_and_shows_the_same_words(world: World) -> None:
    table = world.table(rows="methods", ranked=True)
    page = Page(table.html(title="a & b"))
    assert page.open == []
    assert page.tags.count("table") == len(re.findall(r"^\*\*", table.markdown(width=10_000), re.MULTILINE))
    for words in ("Difference to base", "up (3 seeds)", "Tiers by", "a & b"):
        assert words in page.text


def test_hostile_names_are_text_in_every_form(tmp_path: Path) -> None:
    made = World(tmp_path)
    made.cell("base", dict.fromkeys(TASKS, 0.3), model="tiny")
    made.cells = [replace(cell, model=HOSTILE) for cell in made.cells]
    table = made.table(ranked=True)
    page = Page(table.html(title=HOSTILE))
    assert "script" not in page.tags
    assert HOSTILE in page.text
    assert "<script" not in table.markdown()
    assert "$x" not in table.latex().replace("\\$", "")


def test_parquet_has_a_line_for_every_sample(world: World, tmp_path: Path) -> None:
    from pyarrow import parquet

    frame = collect(world.cells, world.store)
    lines = write_samples(frame, tmp_path / "samples.parquet")
    read = parquet.read_table(tmp_path / "samples.parquet")
    assert read.num_rows == lines == 7 * sum(n for _, _, n in TASKS.values())
    up = [r for r in read.to_pylist() if r["method"] == "up" and r["task"] == "made_math" and r["seed"] == 1]
    assert sum(r["value"] for r in up) == pytest.approx(70)
    corpus = [r for r in read.to_pylist() if r["metric"] == "mcc"]
    assert all(r["value"] is None and r["gold"] is not None for r in corpus)
