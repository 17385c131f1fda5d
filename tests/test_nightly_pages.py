"""The pages of nights: the last night's cells, the numbers of all nights, and what is said of a number."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from harness.cli import main
from harness.errors import HarnessError
from harness.nightly import pages
from harness.nightly.baseline import accept
from harness.nightly.nights import Nights
from harness.nightly.pages import last_night, trends
from harness.results.columns import make_columns
from tests.nights import Made, night, write_matrix


@pytest.fixture
def nights(tmp_path: Path, tiny_model: Path) -> Nights:
    """An accepted night, one in which a trained row got worse, and one of frozen artifacts alone."""
    matrix, found = write_matrix(tmp_path, tiny_model), Nights(tmp_path / "nights", "small")
    night(matrix, found.root, Made())
    accept(found, found.named("last"), who="tester", why="the first", when="2026-01-31T00:00:00+00:00")
    night(matrix, found.root, Made(drop={("retrained", "tiny.lora"): 0.2, ("fresh", "tiny.lora"): 0.2}))
    night(matrix, found.root, Made(), gates=("a",))
    return found


def test_every_night_has_a_point_with_its_interval_and_what_was_said_of_it(nights: Nights) -> None:
    _, shown = last_night(nights)
    cells = [cell for part in shown for cell in part.cells]
    columns = make_columns([r.task for c in cells for r in c.results], strict=False)
    points = list(trends(nights, [c.view for c in cells], columns))
    lora = [p for p in points if p.method == "lora"]
    assert [p.note for p in lora] == ["accepted: the first", "confirmed worse", ""]
    assert lora[1].value < lora[0].value - 0.15 and lora[2].value == lora[0].value
    assert [p.note for p in points if p.method == "base"] == ["accepted: the first", "", ""]
    assert all(p.low is not None and p.high is not None and p.low < p.value < p.high for p in points)
    assert {p.column for p in points} == {c.label for c in columns}


def test_a_trend_is_of_the_last_nights(nights: Nights, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "LAST", 2)
    _, shown = last_night(nights)
    cells = [cell for part in shown for cell in part.cells]
    columns = make_columns([r.task for c in cells for r in c.results], strict=False)
    points = list(trends(nights, [c.view for c in cells], columns))
    assert [p.note for p in points if p.method == "lora"] == ["confirmed worse", ""]


def test_the_last_night_shows_retrained_cells_and_frozen_ones_of_rows_that_were_not_trained(nights: Nights) -> None:
    last, shown = last_night(nights)
    assert [(s.store.root.name, len(s.cells)) for s in shown] == [("frozen", 4)] and last.name == nights.all()[-1].name
    shutil.rmtree(last.folder / "stores")
    before, shown = last_night(nights)
    assert before.name == nights.all()[1].name
    names = {s.store.root.name: [c.view.name for c in s.cells] for s in shown}
    assert names == {"retrained": [f"tiny.lora.s{n}" for n in (1000, 1001, 1002)], "frozen": ["tiny.base"]}


def test_two_nights_are_compared_by_sample_even_when_their_answers_are_gone(
    nights: Nights, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first night's lora against the second's, which was made 20 points worse; base is frozen and the same."""
    names = [f"{nights.folder}/{name}" for name in ("accepted", nights.all()[1].name)]
    assert main(["compare", *names, "--examples", "1"]) == 0
    said = capsys.readouterr().out
    lora = next(line for line in said.splitlines() if "made_sentiment" in line and "worse" in line)
    assert "B is worse" in lora
    assert said.count("**tiny: A is ") == 2 and "3 seeds" in said
    assert "only A is right" in said and "A extracted: answer" in said
    shutil.rmtree(nights.all()[1].folder / "stores")
    assert main(["compare", *(f"{name}:lora" for name in names), "--examples", "1"]) == 0
    again = capsys.readouterr().out
    scores = lora.split("|")[3:6]
    assert all(score.strip() in again for score in scores) and "B extracted" not in again
    assert main(["compare", f"{names[0]}:lroa", names[1]]) == 2
    assert "has no method or cell `lroa`" in capsys.readouterr().err
    assert main(["compare", names[0], f"{nights.folder}/2020-01-01"]) == 2


def test_without_a_finished_night_there_is_nothing_to_show(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="no finished night has its answers still"):
        last_night(Nights(tmp_path, "small"))
