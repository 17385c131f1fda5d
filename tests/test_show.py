"""`harness show`: samples from the prompt as sent to the verdict; what a model wrote never reaches the terminal raw."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.commands.text import line, visible
from tests.runs import harness, write_matrix

QUESTIONS = "".join(json.dumps({"q": f"\x1b[31mItem {i}\u202e?", "a": "dead"}) + "\n" for i in range(8))
SUITE = """
name: mine
about: one task
tasks:
  words:
    version: 1
    file: words.yaml
    data: [{source: "file:rows.jsonl"}]
    regime: made-for-tests
    chat: true
    sampling: {temperature: 0.0, max_tokens: 12, stop: []}
    metric: exact_match
    chance: 0.0
    licence: none needed
"""
TASK = """
task: words
output_type: generate_until
test_split: test
description: "Say a word."
doc_to_text: q
doc_to_target: a
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A folder with a finished run of the base and one fine-tune, on a task of its own and on a likelihood task."""
    folder = tmp_path_factory.mktemp("show")
    (folder / "rows.jsonl").write_text(QUESTIONS)
    (folder / "mine.yaml").write_text(SUITE)
    (folder / "words.yaml").write_text(TASK)
    text = write_matrix(folder, tiny_model).read_text()
    text = text.split("suites:")[0] + "suites: {./mine.yaml: {}, glue: {limit: 10, tasks: [made_sentiment]}}\n"
    (folder / "small.yaml").write_text(text + "engine: {name: fake, max_model_len: 4096}\n")
    harness(folder, "run", "small.yaml", "--only", "base", "--only", "sft")
    return folder


def shown(folder: Path, *args: str) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(harness(folder, "show", "small", "--json", *args)[0])
    return body


def test_a_sample_has_everything_from_the_prompt_to_the_verdict(finished: Path) -> None:
    body = shown(finished, "--cell", "base", "--task", "words", "--n", "1")
    assert (body["cell"], body["samples"], body["matching"]) == ("tiny.base", 8, 8)
    (sample,) = body["shown"]
    (said,) = sample["said"]
    assert [m["role"] for m in said["prompt"]["messages"]] == ["system", "user"]
    assert said["prompt"]["messages"][1]["content"] == "\x1b[31mItem 0\u202e?"
    assert said["answer"]["text"] == sample["extracted"]
    assert said["answer"]["finish"] == "stop"
    assert said["answer"]["prompt_tokens"] > 0
    assert (sample["target"], sample["verdict"], sample["scores"]) == ("dead", "wrong", {"exact_match": 0.0})


def test_control_characters_are_shown_and_never_sent(finished: Path) -> None:
    where = ("--cell", "base", "--task", "words")
    outs = [harness(finished, "show", "small", *where, *extra)[0] for extra in ((), ("--rendered",), ("--json",))]
    assert not any("\x1b" in out or "\u202e" in out for out in outs)
    assert "\\x1b[31mItem 0\\u202e?" in outs[0]
    assert visible("a\tb\nc\r\x9b\x00é\ud800漢") == "a\tb\nc\\x0d\\x9b\\x00é\\ud800漢"
    assert line("a\nb") == "a\\nb"


def test_a_prompt_is_rendered_by_the_model_of_the_cell(finished: Path) -> None:
    (sample,) = shown(finished, "--cell", "sft", "--task", "words", "--n", "1", "--rendered")["shown"]
    text = sample["said"][0]["prompt"]["rendered"]
    assert text.startswith("<|im_start|>system\nSay a word.<|im_end|>")
    assert text.endswith("<|im_start|>assistant\n")


def test_choices_are_shown_with_their_log_probabilities(finished: Path) -> None:
    out, _ = harness(finished, "show", "small", "--cell", "base", "--task", "made_sentiment", "--only", "right")
    assert "' positive'" in out
    assert "verdict: right" in out
    assert "verdict: wrong" not in out
    assert "samples that are `right`, of 10 in all" in out


def test_right_and_wrong_are_all_there_is_and_one_document_can_be_named(finished: Path) -> None:
    where = ("--cell", "base", "--task", "made_sentiment")
    right, wrong = (shown(finished, *where, "--only", word, "--n", "99") for word in ("right", "wrong"))
    assert right["matching"] + wrong["matching"] == 10
    assert {s["verdict"] for s in right["shown"]} <= {"right"}
    one = (right["shown"] + wrong["shown"])[3]
    for name in (str(one["doc"]), one["hash"][:10]):
        assert shown(finished, *where, "--doc", name)["shown"] == [one]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--cell", "tiny.bass", "--task", "words"), ["tiny.bass", '"tiny.base"']),
        (("--cell", "base", "--task", "word"), ["word", '"words"']),
        (("--cell", "base"), ["2 tasks", "words", "made_sentiment"]),
        (("--task", "words"), ["3 cells", "tiny.sft.s0"]),
        (("--cell", "base", "--task", "words", "--only", "rong"), ["rong", '"wrong"']),
        (("--cell", "base", "--task", "words", "--doc", "99"), ["99", "7"]),
        (("--cell", "lora+dft", "--task", "words"), ["no answers", "harness run"]),
    ],
)
def test_a_wrong_name_gets_what_there_is(finished: Path, args: tuple[str, ...], words: list[str]) -> None:
    err = harness(finished, "show", "small", *args, code=2)[1]
    for word in words:
        assert word in err


def test_an_unknown_run_is_named_with_the_nearest(finished: Path) -> None:
    assert '"small"' in harness(finished, "show", "smal", code=2)[1]
