"""A night from begin to verdict, on measurements that are made up: every exit code, and what is measured again."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from harness.errors import Refused
from harness.nightly.baseline import accept, read_baseline
from harness.nightly.nights import Nights
from tests.nights import Made, night, write_matrix


@pytest.fixture
def matrix(tmp_path: Path, tiny_model: Path) -> Path:
    return write_matrix(tmp_path, tiny_model)


@pytest.fixture
def nights(tmp_path: Path, matrix: Path) -> Path:
    """One accepted night."""
    body, _ = night(matrix, tmp_path / "nights", Made())
    assert body["code"] == 5
    assert "no baseline yet" in body["verdict"]
    board = Nights(tmp_path / "nights", "small")
    accept(board, board.named("last"), who="tester", why="the first", when="2026-01-31T00:00:00+00:00")
    return tmp_path / "nights"


def statuses(body: dict[str, Any]) -> set[tuple[str, str, str]]:
    return {(f["gate"], f["status"], f["cell"]) for f in body["findings"]}


def test_the_first_night_measures_the_flip_noise_and_asks_to_be_accepted(matrix: Path, tmp_path: Path) -> None:
    made = Made()
    body, _ = night(matrix, tmp_path / "nights", made)
    assert made.parts == ["retrained", "repeat-2", "repeat-3"]
    assert body["noise"] == {"made_sentiment": [0, 2 * 4 * 300]}  # base and three seeds, twice
    assert body["code"] == 5


def test_a_healthy_second_night_passes_and_trains_other_seeds(matrix: Path, nights: Path) -> None:
    made = Made()
    body, outcome = night(matrix, nights, made)
    assert (body["code"], body["verdict"]) == (0, "PASS: nothing to do.")
    assert made.parts == ["replay", "frozen", "retrained"]
    (line,) = outcome.night.parts()["retrained"][0]
    assert line.seeds == (1000, 1001, 1002)
    assert {m.cell for m in outcome.night.parts()["frozen"][0]} == {"tiny.base", "tiny.lora"}


def test_a_retrained_cell_that_got_worse_is_confirmed_by_fresh_seeds(matrix: Path, nights: Path) -> None:
    made = Made(drop={("retrained", "tiny.lora"): 0.2, ("fresh", "tiny.lora"): 0.2})
    body, outcome = night(matrix, nights, made)
    assert body["code"] == 3
    assert body["verdict"].startswith("REGRESSION CONFIRMED")
    assert ("B", "confirmed", "tiny.lora") in statuses(body)
    (fresh,) = outcome.night.parts()["fresh"][0]
    assert fresh.seeds == (1500, 1501, 1502)
    (found,) = [f for f in body["findings"] if f["status"] == "confirmed"]
    assert found["delta"] == pytest.approx(-0.2, abs=0.05)
    assert found["low"] < found["delta"] < found["high"] < 0
    assert found["rerun"] == "harness nightly small.yaml --gate b --only 'tiny.lora*'"


def test_fresh_seeds_clear_a_cell_that_was_only_unlucky(matrix: Path, nights: Path) -> None:
    body, _ = night(matrix, nights, Made(drop={("retrained", "tiny.lora"): 0.2, ("fresh", "tiny.lora"): -0.05}))
    assert body["code"] == 0
    assert ("B", "cleared", "tiny.lora") in statuses(body)


def test_fresh_seeds_that_say_neither_leave_the_night_undecided(matrix: Path, nights: Path) -> None:
    body, _ = night(matrix, nights, Made(drop={("retrained", "tiny.lora"): 0.2, ("fresh", "tiny.lora"): 0.02}))
    assert body["code"] == 5
    assert ("B", "inconclusive", "tiny.lora") in statuses(body)
    assert "more seeds" in body["verdict"]


def test_a_cell_that_fails_is_no_regression(matrix: Path, nights: Path) -> None:
    body, _ = night(matrix, nights, Made(broken=frozenset({"tiny.lora"})), gates=("b",))
    assert body["code"] == 1
    assert statuses(body) == {("night", "failed", "tiny.lora")}


def test_frozen_artifacts_under_new_software(matrix: Path, nights: Path) -> None:
    worse = {("frozen", "tiny.base"): 0.1, ("frozen-again", "tiny.base"): 0.1}
    made = Made(drop=worse)
    body, _ = night(matrix, nights, made, gates=("a",))
    assert made.parts == ["replay", "frozen", "frozen-again"]
    assert body["code"] == 3
    (found,) = [f for f in body["findings"] if f["status"] == "confirmed"]
    assert (found["gate"], found["cell"], found["up"]) == ("A", "tiny.base", 0)
    assert len(found["examples"]) == 10
    first = found["examples"][0]
    assert (first["was"], first["now"], first["answer_was"][:7]) == ("1", "0", "answer ")


def test_a_second_run_clears_frozen_artifacts_that_only_flipped_once(matrix: Path, nights: Path) -> None:
    body, _ = night(matrix, nights, Made(drop={("frozen", "tiny.base"): 0.1}), gates=("a",))
    assert body["code"] == 0
    assert ("A", "cleared", "tiny.base") in statuses(body)


def test_a_changed_scorer_is_found_by_replay_alone(matrix: Path, nights: Path) -> None:
    made = Made(scorer=0.05)
    body, _ = night(matrix, nights, made, gates=("a",))
    assert body["code"] == 3
    assert {s for s in statuses(body) if s[1] == "confirmed"} == {
        ("replay", "confirmed", "tiny.base"),
        ("replay", "confirmed", "tiny.lora"),
    }
    assert made.parts == ["replay", "frozen"]  # what the replay explains is not answered a second time


def test_another_set_of_items_is_refused(matrix: Path, nights: Path, tiny_model: Path) -> None:
    write_matrix(matrix.parent, tiny_model, limit=15)
    body, _ = night(matrix, nights, Made())
    assert body["code"] == 4
    assert body["verdict"].startswith("NOT COMPARABLE")
    assert all(status in ("refused", "warning") for _, status, _ in statuses(body))
    assert any("another protocol" in f["text"] for f in body["findings"])


def test_a_method_that_is_trained_otherwise_is_refused(matrix: Path, nights: Path) -> None:
    matrix.write_text(matrix.read_text().replace("lr: 1e-3", "lr: 1e-4"))
    body, _ = night(matrix, nights, Made(), gates=("b",))
    assert body["code"] == 4
    assert "trained otherwise" in body["findings"][0]["text"]


def test_a_regression_outranks_a_failure_and_the_report_lists_both(matrix: Path, nights: Path) -> None:
    worse = {("frozen", "tiny.base"): 0.1, ("frozen-again", "tiny.base"): 0.1}
    body, _ = night(matrix, nights, Made(drop=worse, broken=frozenset({"tiny.lora"})))
    assert (body["code"], body["codes"]) == (3, [3, 1])


def test_a_new_cell_has_no_baseline(matrix: Path, nights: Path) -> None:
    matrix.write_text(matrix.read_text().replace("lora: {}", "lora: {}, dft: {}"))
    body, _ = night(matrix, nights, Made())
    assert body["code"] == 5
    assert ("night", "no baseline", "tiny.dft") in statuses(body)


def test_an_improvement_is_told_and_never_fails(matrix: Path, nights: Path) -> None:
    body, _ = night(matrix, nights, Made(drop={("retrained", "tiny.lora"): -0.25}))
    assert body["code"] == 0
    assert ("B", "improved", "tiny.lora") in statuses(body)


def test_a_night_goes_on_where_it_was_killed(matrix: Path, nights: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        night(matrix, nights, Made(stop_at="retrained"))
    begun = Nights(nights, "small").all()[-1]
    assert not begun.finished
    made = Made()
    body, outcome = night(matrix, nights, made)
    assert made.parts == ["retrained"]
    assert (outcome.night.name, body["code"]) == (begun.name, 0)


def test_a_night_of_other_software_does_not_go_on_with_it(
    matrix: Path, nights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(KeyboardInterrupt):
        night(matrix, nights, Made(stop_at="retrained"))
    monkeypatch.setattr("harness.nightly.procedure.packages", lambda: {"python": "9"})
    made = Made()
    body, _ = night(matrix, nights, made)
    assert made.parts == ["replay", "frozen", "retrained"]
    assert body["software"]["python"][1] == "9"


def test_ten_accepted_nights_are_a_baseline_of_their_own(matrix: Path, nights: Path) -> None:
    for _ in range(10):
        assert night(matrix, nights, Made(), gates=("b",))[0]["code"] in (0, 5)
    worse = {("retrained", "tiny.lora"): 0.2, ("fresh", "tiny.lora"): 0.2}
    body, _ = night(matrix, nights, Made(drop=worse), gates=("b",))
    (found,) = [f for f in body["findings"] if f["status"] == "confirmed"]
    assert "accepted nights" in found["text"]


def test_accepting_a_change_starts_the_level_anew_and_a_healthy_night_does_not(matrix: Path, nights: Path) -> None:
    board = Nights(nights, "small")
    night(matrix, nights, Made())
    second = accept(board, board.named("last"), who="a", why="b", when="c")
    assert second.since == board.all()[0].name
    worse = {("retrained", "tiny.lora"): 0.2, ("fresh", "tiny.lora"): 0.2}
    night(matrix, nights, Made(drop=worse))
    third = accept(board, board.named("last"), who="a", why="a new recipe", when="c")
    assert third.since == third.night
    assert read_baseline(board) == third
    same = Made(drop={("retrained", "tiny.lora"): 0.2})
    assert night(matrix, nights, same, gates=("b",))[0]["code"] == 0


def test_two_seeds_are_not_enough_for_gate_b(tmp_path: Path, tiny_model: Path) -> None:
    matrix = write_matrix(tmp_path, tiny_model, seeds=2)
    with pytest.raises(Refused, match="3 seeds at least"):
        night(matrix, tmp_path / "nights", Made())
    assert not (tmp_path / "nights").exists()
    assert night(matrix, tmp_path / "nights", Made(), gates=("a",))[0]["code"] == 5


def test_the_report_for_people_tools_and_ci(matrix: Path, nights: Path) -> None:
    worse = {("retrained", "tiny.lora"): 0.2, ("fresh", "tiny.lora"): 0.2}
    _, outcome = night(matrix, nights, Made(drop=worse))
    folder = outcome.night.folder
    text = (folder / "report.md").read_text()
    assert text.startswith("REGRESSION CONFIRMED: hold the upgrade, or accept the change with `harness accept")
    assert "## Confirmed: 1" in text
    assert "## Software since the accepted night\n\n- nothing differs" in text
    suite = ElementTree.fromstring((folder / "junit.xml").read_text())
    assert (suite.attrib["failures"], suite.attrib["errors"]) == ("1", "0")
    assert suite.find("testcase/failure") is not None


def test_a_deterministic_engine_is_warned_of_with_the_first_differing_token(matrix: Path, nights: Path) -> None:
    made = Made(drop={("frozen", "tiny.base"): 0.004}, tokens={"frozen": (1, 2, 4)})
    body, _ = night(matrix, nights, made, gates=("a",), deterministic=True)
    assert body["code"] == 0
    (found,) = [f for f in body["findings"] if f["status"] == "warning"]
    assert "request r differs first at token 2: 3 -> 4" in found["text"]


def test_a_night_of_some_cells_is_no_baseline(matrix: Path, nights: Path) -> None:
    body, outcome = night(matrix, nights, Made(), only=("tiny.base*",))
    assert body["code"] == 0
    assert {line.cell for lines, _ in outcome.night.parts().values() for line in lines} == {"tiny.base"}
    with pytest.raises(Refused, match="is a part of the matrix"):
        accept(Nights(nights, "small"), outcome.night, who="a", why="b", when="c")
