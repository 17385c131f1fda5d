"""`harness compare`: methods and runs paired by sample, refusals, corrections, examples and JSON."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from harness.results.compare import Compared, Side, compare
from harness.results.frame import collect
from tests.runs import harness, write_matrix
from tests.test_results_table import TASKS, World


def sides(world: World, a: str, b: str) -> list[tuple[str, Side, Side]]:
    frame = collect(world.cells, world.store)
    found = {m: tuple(c for c in frame.cells if c.view.method == m) for m in (a, b)}
    return [("tiny", Side(a, found[a]), Side(b, found[b]))]


def line(compared: Compared, label: str) -> object:
    return next(x for x in compared.lines if x.label == label)


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Two methods of three seeds: `up` is better at math by far and worse at code by one item."""
    made = World(tmp_path)
    for seed in range(3):
        made.cell("plain", dict.fromkeys(TASKS, 0.3), seed=seed)
        made.cell("up", dict.fromkeys(TASKS, 0.3) | {"math": 0.7}, seed=seed)
    return made


def test_two_methods_are_compared_on_every_task_and_mean(world: World) -> None:
    [one] = compare(sides(world, "plain", "up"))
    assert [x.label for x in one.lines if x.headline] == [
        "made_math", "humaneval", "bfcl_simple", "glue mean", "made_ifeval",
    ]  # fmt: skip
    math = line(one, "made_math")
    assert math.difference.value == pytest.approx(0.4)  # type: ignore[attr-defined]
    assert math.difference.flips == (40, 0)  # type: ignore[attr-defined]
    assert math.finding.verdict == "better"  # type: ignore[attr-defined]
    assert line(one, "humaneval").finding.verdict == "undecided"  # type: ignore[attr-defined]


def test_the_other_way_round_is_the_same_with_the_other_sign(world: World) -> None:
    [one], [other] = compare(sides(world, "plain", "up")), compare(sides(world, "up", "plain"))
    for x, y in zip(one.lines, other.lines, strict=True):
        assert x.difference is not None
        assert y.difference is not None
        assert x.difference.value == pytest.approx(-(y.difference.value or 0))
        assert x.difference.p == pytest.approx(y.difference.p)


def test_other_protocols_are_refused_with_the_field(tmp_path: Path) -> None:
    made = World(tmp_path)
    made.cell("a", dict.fromkeys(TASKS, 0.3))
    made.cell("b", dict.fromkeys(TASKS, 0.3), protocol={"math": {"task": "made_math", "limit": 100, "shots": 5}})
    [one] = compare(sides(made, "a", "b"))
    math = line(one, "made_math")
    assert math.refused == "measured under different protocols: shots null -> 5"  # type: ignore[attr-defined]
    assert math.finding is None  # type: ignore[attr-defined]


def test_a_side_without_a_result_is_refused_and_the_others_are_not(tmp_path: Path) -> None:
    made = World(tmp_path)
    made.cell("a", dict.fromkeys(TASKS, 0.3))
    made.cell("b", {suite: 0.3 for suite in TASKS if suite != "code"})
    [one] = compare(sides(made, "a", "b"))
    assert line(one, "humaneval").refused == "no result on side B"  # type: ignore[attr-defined]
    assert line(one, "made_math").refused == ""  # type: ignore[attr-defined]


# --- the command --------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    folder = tmp_path_factory.mktemp("compare")
    harness(folder, "run", write_matrix(folder, tiny_model))
    return folder


def test_two_methods_of_a_run_with_examples(finished: Path) -> None:
    out, _ = harness(finished, "compare", "small:base", "small:sft", "--examples", "1")
    assert "A is small:base (1 seed), B is small:sft (1 seed)" in out
    assert "one seed: not a finding" in out
    body = json.loads(harness(finished, "compare", "small:base", "small:sft", "--examples", "1", "--json")[0])
    assert body["schema"] == "harness-compare"
    flipped = sum(sum(x["difference"]["flips"]) for x in body["compared"][0]["lines"] if x["headline"])
    assert bool(body["examples"]) is bool(flipped)
    assert all(example["only_right"] in ("A", "B") for example in body["examples"])


def test_a_run_with_itself_differs_nowhere(finished: Path) -> None:
    body = json.loads(harness(finished, "compare", "small", "small", "--json")[0])
    assert [one["a"] for one in body["compared"]] == ["small:base", "small:sft", "small:lora+dft"]
    values = [x["difference"]["value"] for one in body["compared"] for x in one["lines"] if x["difference"]]
    assert values
    assert set(values) == {0.0}
    assert body["software"] == []


def test_software_that_differs_is_named(finished: Path, tmp_path: Path) -> None:
    place = shutil.copytree(finished, tmp_path / "w")
    records = sorted((place / "store" / "score").rglob("record.json"))
    body = json.loads(records[0].read_text())
    now = body["provenance"]["packages"]["torch"]
    body["provenance"]["packages"]["torch"] = "0.0.1"
    records[0].write_text(json.dumps(body))
    found = {
        " ".join(json.loads(harness(place, "compare", f"small:{a}", f"small:{b}", "--json")[0])["software"])
        for a, b in (("base", "sft"), ("base", "lora+dft"), ("sft", "lora+dft"))
    }
    assert any(f"0.0.1, {now}" in text for text in found)


@pytest.mark.parametrize(
    ("a", "b", "said"),
    [
        ("small:sfd", "small:sft", "`small` has no method or cell `sfd`"),
        ("small:sft", "small", "a method cannot be compared with a whole run"),
        ("smal:sft", "small:sft", "there is no run `smal`"),
    ],
)
def test_mistakes_are_named(finished: Path, a: str, b: str, said: str) -> None:
    _, err = harness(finished, "compare", a, b, code=2)
    assert said in err


def test_other_items_are_refused_with_exit_code_4(finished: Path, tmp_path: Path) -> None:
    place = shutil.copytree(finished, tmp_path / "w")
    text = (place / "small.yaml").read_text().replace("name: small", "name: fewer").replace("limit: 12", "limit: 6")
    (place / "fewer.yaml").write_text(text)
    harness(place, "run", "fewer.yaml")
    out, _ = harness(place, "compare", "small:sft", "fewer:sft", code=4)
    assert "not comparable" in out
    assert "Not compared: made_word_problems" in out


def test_a_margin_says_whether_a_loss_is_excluded(finished: Path) -> None:
    out, _ = harness(finished, "compare", "small:base", "small:base", "--margin", "1")
    assert "loss under 1" in out
