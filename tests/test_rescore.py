"""`harness score`: stored responses through today's scorers, with the verdicts that changed; no engine is started."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.commands.rescoring import compare
from tests.runs import harness, write_matrix
from tests.test_show import SUITE

ROWS = "".join(json.dumps({"q": f"Item {i}?", "a": "yes" if i < 3 else "no"}) + "\n" for i in range(8))
TASK = """
task: words
output_type: generate_until
test_split: test
doc_to_text: q
doc_to_target: a
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
filter_list:
  - name: none
    filter: [{{function: regex, regex_pattern: "(zz)", fallback: "{answer}"}}, {{function: take_first}}]
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A folder with a finished run whose every answer is taken for "maybe", which is wrong."""
    folder = tmp_path_factory.mktemp("rescore")
    (folder / "rows.jsonl").write_text(ROWS)
    (folder / "mine.yaml").write_text(SUITE)
    (folder / "words.yaml").write_text(TASK.format(answer="maybe"))
    text = write_matrix(folder, tiny_model).read_text()
    text = text.split("suites:")[0] + "suites: {./mine.yaml: {}, glue: {limit: 10, tasks: [made_sentiment]}}\n"
    (folder / "small.yaml").write_text(text + "engine: {name: fake, max_model_len: 4096}\n")
    harness(folder, "run", "small.yaml", "--only", "base")
    return folder


def rescored(folder: Path) -> dict[tuple[str, str], dict[str, Any]]:
    body = json.loads(harness(folder, "score", "small", "--json")[0])
    return {(t["cell"], t["task"]): t for t in body["tasks"]}


def records(folder: Path, kind: str) -> set[Path]:
    return set((folder / "store" / kind).rglob("record.json"))


def test_nothing_is_scored_again_by_the_same_scorer(finished: Path) -> None:
    before = records(finished, "score")
    out, _ = harness(finished, "score", "small")
    assert "scored 0 samples of 0 tasks" in out
    assert "2 tasks were scored by the same scorers already" in out
    assert "unanswered: no generate step" in out
    assert records(finished, "score") == before


def test_a_mended_scorer_scores_again_and_lists_every_changed_verdict(finished: Path) -> None:
    generated, scored = records(finished, "generate"), records(finished, "score")
    (finished / "words.yaml").write_text(TASK.format(answer="yes"))
    task = rescored(finished)["tiny.base", "words"]
    assert (task["state"], task["samples"], task["values"]) == ("scored", 8, [0.0, 3 / 8])
    assert [c["doc"] for c in task["changes"]] == [0, 1, 2]
    assert {(c["was"], c["now"]) for c in task["changes"]} == {
        ("wrong, exact_match 0.0", "right, exact_match 1.0"),
    }
    assert records(finished, "generate") == generated
    assert len(records(finished, "score") - scored) == 1

    again, _ = harness(finished, "score", "small")  # the list can be had a second time
    assert "3 verdicts differ from the scoring before: 3 wrong -> right" in again
    assert "0 -> 0.375" in again
    assert "37.5" in harness(finished, "table", "small.yaml", "--only", "base")[0]


def test_a_scorer_that_fails_is_told_and_the_others_go_on(finished: Path) -> None:
    (finished / "words.yaml").write_text(TASK.format(answer="yes").replace("(zz)", "(zz"))
    out, err = harness(finished, "score", "small", code=1)
    assert "failed" in out
    assert "made_sentiment  unchanged" in out
    assert "Traceback" in err or "words" in err


def test_only_what_differs_is_a_change() -> None:
    old = {"x": {"doc": 0, "outcome": "wrong", "why": "", "scores": {"a": 0.0, "gone": 1.0}}}
    same = {"x": {"doc": 0, "outcome": "wrong", "why": "", "scores": {"a": 0.0, "fresh": 1.0}}}
    assert list(compare(old, same)) == []
    (renamed,) = compare(old, {"x": {**same["x"], "outcome": "timeout", "why": "10 s"}})
    assert (renamed.was, renamed.now, renamed.why) == ("wrong", "timeout", "10 s")
    (other,) = compare(old, {"x": {**same["x"], "scores": {"a": 0.5}}})
    assert (other.was, other.now) == ("wrong, a 0.0", "wrong, a 0.5")
    (new,) = compare({}, same)
    assert new.was == "not scored"


def test_a_run_that_does_not_say_what_it_came_from(finished: Path, tmp_path: Path) -> None:
    harness(finished, "export", "small", tmp_path / "small.run")
    harness(tmp_path, "import", tmp_path / "small.run")
    err = harness(tmp_path, "score", "small", code=2)[1]
    assert "imported" in err
    assert "name its matrix file" in err
