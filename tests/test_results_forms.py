"""The forms of a table: findings marked, tiers listed, LaTeX, HTML and Parquet, hostile names as text in each."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from harness.boards.board import open_board
from harness.errors import HarnessError
from harness.results.frame import CellResult, collect
from harness.results.latex import escape
from harness.results.parquet import write_samples
from harness.results.table import Table
from tests.test_results_table import TASKS, World

ROOT = Path(__file__).resolve().parents[1]
TITLE = "[A](http://evil.example) <b>_c_\n\n# d #"
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
    assert "humaneval {[}30{]}" in one
    assert "made" not in one.split("\\midrule")[0].split("tabular")[1]
    with pytest.raises(HarnessError, match="there is no column `humanevil`"):
        table.latex(columns=["humanevil"])


def test_what_latex_would_run_prints_as_it_stands() -> None:
    assert escape("a_b & 50% $x$ #1 \\input{x} ~^") == (
        r"a\_b \& 50\% \$x\$ \#1 \textbackslash{}input\{x\} \textasciitilde{}\textasciicircum{}"
    )


@pytest.mark.parametrize("name", ["[5em] tiny", "*tiny"])
def test_no_name_belongs_to_the_line_break_before_it(tmp_path: Path, name: str) -> None:
    made = World(tmp_path)
    for model in (name, "other"):
        made.cell("base", dict.fromkeys(TASKS, 0.3), model=model)
    body = made.table(rows="methods", ranked=True).latex().split("\\midrule\n")[1]
    assert body.startswith("{" + name[0] + "}")


def test_the_caption_says_seeds_test_correction_and_the_regime_of_each_task(tmp_path: Path) -> None:
    made = World(tmp_path)
    asked = {"math": {"task": {"name": "made_math", "regime": "chat-zeroshot"}, "limit": 100}}
    made.cell("base", dict.fromkeys(TASKS, 0.3), protocol=asked)
    made.cell("sft", dict.fromkeys(TASKS, 0.3), protocol=asked)
    one = made.table(rows="methods", ranked=True).latex()
    assert "training seeds a trained row: 1;" in one
    assert "test: items only for a row of one training seed" in one
    for seed in (1, 2):
        made.cell("sft", dict.fromkeys(TASKS, 0.3), seed=seed, protocol=asked)
    three = made.table(rows="methods", ranked=True).latex()
    assert "training seeds a trained row: 3;" in three
    assert "test: training seeds x items, crossed" in three and "Satterthwaite" in three
    for text in (one, three):
        assert "correction: Holm's, 5 \\%, over the methods of a model" in text
        assert "no row is told apart from the best" in text and "textbf" not in text
        assert "regimes: made\\_math chat-zeroshot;" in text


def test_the_caption_names_the_regimes_of_the_tasks_behind_a_mean(tmp_path: Path) -> None:
    made = World(tmp_path)
    asked = {suite: {"task": {"name": suite, "regime": f"as-{suite}"}} for suite in ("glue", "glue2")}
    made.cell("base", dict.fromkeys(TASKS, 0.3), protocol=asked)
    assert "regimes: made\\_cola as-glue, made\\_sst2 as-glue2;" in made.table().latex(columns=["glue mean"])
    assert "regime" not in made.table().json()


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


LINKS = {
    "[click](http://evil.example)": r"\[click\](http\://evil.example)",
    "![x](http://evil.example/p.png)": r"!\[x\](http\://evil.example/p.png)",
    "[1, 2](www.evil.example)": r"\[1, 2\](www\.evil.example)",
    "[1]: HTTPS://evil.example": r"[1]: HTTPS\://evil.example",
    "a@evil.example": "a<span>@</span>evil.example",
    "_x_ __y__ a_b": r"\_x\_ \_\_y\_\_ a_b",
    "~~x~~ $x$": r"\~\~x\~\~ <span>$</span>x<span>$</span>",
    "&lt;b&#62; R&D": r"\&lt;b\&#62; R&D",
    r"\[1](x)": r"\\\[1\](x)",
}


@pytest.mark.parametrize("name", LINKS)
def test_names_are_neither_links_nor_markup_in_markdown(tmp_path: Path, name: str) -> None:
    """As GitHub reads it; the expected texts were rendered by cmark-gfm, and give the names back."""
    made = World(tmp_path)
    made.cell("base", dict.fromkeys(TASKS, 0.3), model=name)
    made.cell("base", dict.fromkeys(TASKS, 0.3), model="other")
    text = made.table(rows="methods", ranked=True).markdown(width=300)
    lines = [line for line in text.splitlines() if line.startswith("|")]
    named = [line for line in lines if LINKS[name] in line]
    assert len(named) == sum("| other " in line for line in lines) > 0
    assert not any(name in line for line in lines)
    assert "30.0 [21.9, 39.6]" in text and "humaneval [30]†" in text


def test_a_note_begins_no_list_heading_or_table() -> None:
    from harness.results.render import markdown

    notes = ("# a", "1. b", "- c", "x" * 30 + " === y", "x" * 36 + " - z", "---")
    said = markdown(Table(None, (), (), notes), width=36)
    assert said.endswith(
        "- \\# a\n- 1\\. b\n- \\- c\n- xxxxxxxxxxxxxxxxxxxxxxxxxxxxxx ===\n  y\n" + f"- {'x' * 36}\n  \\- z\n- \\---\n"
    )


def test_the_title_of_a_board_is_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from contextlib import nullcontext

    from harness.boards import pages

    made = World(tmp_path)
    made.cell("base", dict.fromkeys(TASKS, 0.3))
    live = pages.Live(collect(made.cells, made.store), "base", made.store)
    monkeypatch.setattr(pages, "live_entries", lambda folder: nullcontext(live))
    monkeypatch.setattr(pages, "read_ledger", lambda folder: [])
    board = open_board(ROOT / "leaderboards/methods-small").model_copy(update={"title": TITLE})
    pages.write_pages(tmp_path, board)
    first = (tmp_path / "board.md").read_text().partition("\n\n")[0]
    assert first == "# \\[A\\](http\\://evil.example) &lt;b&gt;\\_c\\_ \\# d \\#"


def test_parquet_that_breaks_off_leaves_the_file_that_was_there(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness.results import parquet

    frame, file = collect(world.cells, world.store), tmp_path / "out" / "samples.parquet"
    file.parent.mkdir()
    file.write_bytes(b"what was there")
    whole, written = parquet._columns, list[CellResult]()

    def columns(cell: CellResult) -> Iterator[dict[str, list[Any]]]:
        if written:
            raise OSError(28, "No space left on device")
        written.append(cell)
        yield from whole(cell)

    monkeypatch.setattr(parquet, "_columns", columns)
    with pytest.raises(HarnessError):
        parquet.write_samples(frame, file)
    assert written and file.read_bytes() == b"what was there"
    assert list(file.parent.iterdir()) == [file]


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


def test_the_front_of_a_headline_against_a_cost_is_listed_cheapest_first(world: World) -> None:
    table = replace(world.table(rows="methods"), pareto="train time", phases=True)
    text = table.markdown(width=300)
    part = text[text.index("**Not beaten in both made") :].splitlines()
    assert [line.split("|")[1].strip() for line in part[4:5]] == ["up (3 seeds)"]
    assert part[5] == ""
    phases = text[text.index("**Train time by phase**") :].splitlines()
    assert [word.strip() for word in phases[2].split("|")[2:-1]] == ["open", "forward", "backward", "optimizer", "save"]
    assert "Train time by phase" not in world.table().markdown()
