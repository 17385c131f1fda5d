"""Every mistake of a user gets one clear message with its place and what to do, and moves nothing in the store."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runs import environment, harness, start, wait_until, write_matrix


@pytest.fixture
def matrix(tmp_path: Path, tiny_model: Path) -> Path:
    return write_matrix(tmp_path, tiny_model)


def fails(folder: Path, *args: str | Path) -> str:
    """A command that must exit with 2; its message. No traceback, and no store was made."""
    out, err = harness(folder, *args, code=2)
    assert out == ""
    assert "Traceback" not in err
    assert not (folder / "store").exists()
    return err


def test_all_mistakes_of_a_matrix_are_told_at_once_with_their_lines(matrix: Path) -> None:
    text = matrix.read_text()
    text = text.replace("  sft: {}", "  sfft: {}\n  sft: {trian: {lr: 1}}").replace("seeds: 1", "seeds: one")
    matrix.write_text(text + "keep: some\nkeep: all\n")
    message = fails(matrix.parent, "plan", matrix)
    lines = matrix.read_text().splitlines()
    for word in ("trian", "seeds: one", "keep: all"):
        number = next(i for i, line in enumerate(lines, 1) if word in line)
        assert f"small.yaml:{number}: " in message
    assert '"train"' in message


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("  sft: {}", "  sfft: {}", ["unknown method `sfft`", '"sft"']),
        ("  math:", "  maths: {}\n  math:", ["`maths`", '"math"']),
        ("[made_sentiment]", "[made_sentimint]", ["made_sentimint", '"made_sentiment"']),
        ("make:word_problems", "make:word_problem", ["word_problem", '"word_problems"']),
        ("make:word_problems", "file:nowhere.jsonl", ["nowhere.jsonl"]),
        ("make:word_problems", "hub:openai/gsm8k:main", ["openai/gsm8k", "--mirror"]),
        ("name: fake", "name: vlm", ["vlm", '"vllm"']),
        ("max_model_len: 4096", "max_model_len: 9000", ["9000", "4096", "--set engine.max_model_len=4096"]),
        ("  lora+dft: {}", "  lora+dft: {stack: [{lora: {rr: 4}}, dft]}", ["rr", '"r"']),
        ("  lora+dft: {}", "  lora+lora: {stack: [dft, dft]}", ["dft"]),
    ],
)
def test_a_wrong_name_gets_the_nearest_valid_one(matrix: Path, old: str, new: str, words: list[str]) -> None:
    matrix.write_text(matrix.read_text().replace(old, new))
    message = fails(matrix.parent, "plan", matrix)
    assert "small.yaml:" in message
    for word in words:
        assert word in message


def test_a_missing_matrix_names_what_is_there(matrix: Path) -> None:
    assert "small.yaml" in fails(matrix.parent, "run", "smal.yaml")


def test_a_model_that_is_not_there(matrix: Path) -> None:
    message = fails(matrix.parent, "plan", matrix, "--set", "models={m: ./nowhere}")
    assert "nowhere" in message


def test_a_model_without_a_chat_template_is_refused_before_anything_starts(
    matrix: Path, tiny_model_without_template: Path
) -> None:
    message = fails(
        matrix.parent,
        *("plan", matrix, "--set", f"models={{m: {tiny_model_without_template}}}", "--set", "engine.max_model_len=512"),
    )
    assert "chat template" in message
    assert "chat_template.jinja" in message


def test_an_empty_data_set(matrix: Path) -> None:
    (matrix.parent / "empty.jsonl").write_text("")
    message = fails(matrix.parent, "plan", matrix, "--set", "data.sums.source=file:empty.jsonl")
    assert "empty" in message


def test_a_pattern_that_matches_nothing(matrix: Path) -> None:
    assert "tiny.sft.s0" in fails(matrix.parent, "plan", matrix, "--only", "dpo")


def test_a_named_lm_eval_task_that_needs_the_network_is_refused_with_what_it_needs(matrix: Path) -> None:
    suite = matrix.parent / "mine.yaml"
    suite.write_text(
        "name: mine\nabout: one task\ntasks:\n  arc_easy:\n    version: 1\n    lm_eval: arc_easy\n"
        "    regime: lmeval-base\n    chat: false\n    metric: acc,none\n    chance: 0.25\n    licence: CC-BY-SA-4.0\n"
    )
    message = fails(matrix.parent, "plan", matrix, "--set", f"suites=[{suite}]", "--offline")
    assert "arc_easy" in message
    assert "ai2_arc" in message


def test_a_prompt_longer_than_the_context_fails_its_cell_with_numbers(matrix: Path) -> None:
    _, err = harness(matrix.parent, "run", matrix, "--only", "base", "--set", "engine.max_model_len=40", code=1)
    assert "40" in err
    assert "engine.max_model_len" in err


def test_a_training_row_longer_than_allowed_is_named(matrix: Path) -> None:
    _, err = harness(matrix.parent, "run", matrix, "--only", "sft", "--set", "train.max_length=20", code=1)
    assert "max_length" in err
    assert "Traceback" not in err


def test_a_damaged_record_is_named_set_aside_and_done_again(matrix: Path) -> None:
    table, _ = harness(matrix.parent, "run", matrix, "--only", "base")
    record = next((matrix.parent / "store" / "score").rglob("record.json"))
    record.write_text(record.read_text()[:40])
    again, err = harness(matrix.parent, "run", matrix, "--only", "base")
    assert again == table
    assert str(record.parent) in err
    assert record.parent.with_name("0001.damaged").is_dir()


def test_a_missing_extra_names_the_command_that_installs_it(matrix: Path) -> None:
    """`find_spec` says what it would say on a machine that lacks vLLM."""
    code = (
        "import importlib.util, sys\n"
        "real = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *rest: None if name == 'vllm' else real(name, *rest)\n"
        "from harness.cli import main\n"
        "sys.exit(main(['plan', 'small.yaml', '--set', 'engine.name=vllm']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=matrix.parent, env=environment(matrix.parent), capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "--set engine.name=vllm: " in done.stderr
    assert "make setup" in done.stderr
    assert ".[gpu]" in done.stderr


def test_an_interrupt_ends_every_process_and_the_same_command_goes_on(matrix: Path) -> None:
    process = start(matrix.parent, "run", matrix, "--only", "sft", "--set", "train.budget={steps: 400}")
    jobs = matrix.parent / "store" / "runs" / "small" / "jobs"
    assert wait_until(lambda: list(jobs.glob("train*.json")), 60)
    process.terminate()
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "the same command goes on" in err
    plan = json.loads(harness(matrix.parent, "plan", matrix, "--only", "sft", "--json")[0])
    assert plan["steps"]


@pytest.mark.parametrize("args", [("runn", "x"), ("run",), ("table", "--format", "xls"), ("run", "m", "--limit", "0")])
def test_a_wrong_command_line_exits_with_two(tmp_path: Path, args: tuple[str, ...]) -> None:
    _, err = harness(tmp_path, *args, code=2)
    assert "usage" in err or "error" in err
