"""The listing commands, and what every command promises: JSON for programs, no files left behind."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from harness import __version__
from harness.cli import main
from tests.runs import harness


def test_version(tmp_path: Path) -> None:
    assert harness(tmp_path, "--version")[0].strip() == f"harness {__version__}"


LISTINGS = [
    ("methods",),
    ("methods", "lora"),
    ("suites",),
    ("suites", "math"),
    ("tasks", "made_sentiment"),
    ("gc",),
    ("doctor",),
]
COMMANDS = ["run", "plan", "eval", "status", "table", "show", "score", "methods", "suites", "tasks", "doctor"]
COMMANDS += ["site", "init", "gc", "export", "import"]


def test_help_is_quick_and_every_command_has_an_example(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    times = []
    for _ in range(5):
        started = time.monotonic()
        out, _ = harness(tmp_path, "--help")
        times.append(time.monotonic() - started)
    assert min(times) < 0.3
    assert all(f"    {name} " in out for name in COMMANDS)
    for name in COMMANDS:
        with pytest.raises(SystemExit):
            main([name, "--help"])
        assert f"example: harness {name}" in capsys.readouterr().out


@pytest.mark.parametrize("args", LISTINGS, ids=" ".join)
def test_listings_are_for_people_and_for_programs(tmp_path: Path, args: tuple[str, ...]) -> None:
    text, _ = harness(tmp_path, *args)
    assert text.strip()
    body = json.loads(harness(tmp_path, *args, "--json")[0])
    assert body["schema"].startswith("harness-")
    assert body["version"] == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["home"]


def test_a_method_shows_its_parameters_defaults_and_ranges(tmp_path: Path) -> None:
    body = json.loads(harness(tmp_path, "methods", "lora", "--json")[0])
    assert body["parameters"]["r"] == 16
    assert body["knobs"]["r"] == [4, 128]
    assert "unknown method" in harness(tmp_path, "methods", "lorra", code=2)[1]


def test_init_never_overwrites(tmp_path: Path) -> None:
    harness(tmp_path, "init")
    (tmp_path / "matrix.yaml").write_text("mine")
    assert "matrix.yaml" in harness(tmp_path, "init", code=2)[1]
    assert (tmp_path / "matrix.yaml").read_text() == "mine"


def listed(folder: Path, *args: str | Path) -> dict[str, dict[str, Any]]:
    body = json.loads(harness(folder, "suites", "--json", *args)[0])
    return {task["task"]: task for suite in body["suites"] for task in suite["tasks"]}


def test_suites_say_which_data_are_at_hand_and_what_the_others_need(tmp_path: Path, mirror: Path) -> None:
    bare, real = listed(tmp_path, "--offline"), listed(tmp_path, "--mirror", mirror)
    assert bare.keys() == real.keys()
    for name, task in bare.items():
        assert task["at_hand"] or "--mirror" in task["needs"], name
        assert name.startswith("made_") == task["data"].startswith("make:")
    for name in ("gsm8k", "humaneval", "simple_python", "cola", "sst2", "ifeval"):
        assert real[name]["at_hand"], name
        assert not real[name]["needs"]
    assert bare["simple_python"]["data"].startswith("package:")
    assert real["simple_python"]["data"].startswith("mirror:")
    assert (real["gsm8k"]["rows"], real["gsm8k"]["published"]) == (1319, 1319)


def test_a_listing_asks_nothing_of_the_hub(tmp_path: Path) -> None:
    text, _ = harness(tmp_path, "suites", "math")
    assert "gsm8k" in text
    assert "not at hand" in text


def test_a_task_shows_all_that_is_sent_and_scored(tmp_path: Path, tiny_model: Path) -> None:
    (task,) = json.loads(harness(tmp_path, "tasks", "made_word_problems", "--json")[0])["tasks"]
    assert task["sampling"] == {"temperature": 0.0, "max_tokens": 128, "stop": [], "top_p": 1.0, "repeats": 1}
    assert (task["metric"], task["also"], task["chance"]) == ("exact_match,strict", ["exact_match,flexible"], 0.0)
    assert len(task["data"]["digest"]) == 64
    assert task["data"]["rows"] == 400
    assert [m["role"] for m in task["example"]["messages"]] == ["system", "user"]
    assert task["example"]["target"].isdigit()
    text, _ = harness(tmp_path, "tasks", "math:made_word_problems", "--model", tiny_model)
    assert "| <|im_start|>system" in text
    assert "temperature 0.0, max_tokens 128" in text


def test_a_choice_shows_its_answers_and_a_task_without_data_shows_the_rest(tmp_path: Path) -> None:
    (task,) = json.loads(harness(tmp_path, "tasks", "made_sentiment", "--json")[0])["tasks"]
    assert task["example"]["target"] in [choice.strip() for choice in task["example"]["choices"]]
    text, _ = harness(tmp_path, "tasks", "cola", "--offline")
    assert "no example: the data are not at hand" in text
    assert "mcc" in text


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("gsmk", '"gsm8k"'),
        ("mth", '"math"'),
        ("code:mbppp", '"mbpp"'),
        ("cod:mbpp", '"code"'),
        ("mine.yaml", "mine.yaml"),
    ],
)
def test_a_wrong_task_gets_the_nearest(tmp_path: Path, name: str, hint: str) -> None:
    assert hint in harness(tmp_path, "tasks", name, code=2)[1]
