"""`publish BOARD --check` reads the raw answers: one answer to everything, and programs run again in the sandbox."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.boards.manifest import read_manifest
from harness.store import Store
from tests.boards import forge, make_board, only_entry, score_folder, stamp
from tests.runs import harness

MATRIX = """
version: 1
name: asked
models: {{tiny: {model}}}
methods: {{base: {{}}}}
suites:
{suites}
engine: {{name: fake, max_model_len: 4096}}
"""
BOARD = """
version: 1
name: tiny
title: A tiny board
suites:
{suites}
engine: {{name: fake, max_model_len: 4096}}
{protocol}
admission: {{seeds: 1, limits: true, clean_tree: true}}
order_by: mean
"""


def published(folder: Path, model: Path, suites: str, *where: str | Path) -> Path:
    """A board with the answers of the base model to some suites, checked once."""
    (folder / "asked.yaml").write_text(MATRIX.format(model=model, suites=suites))
    harness(folder, "run", "asked.yaml", *where)
    stamp(folder / "store", clean=True)
    make_board(folder, BOARD, *where, suites=suites)
    harness(folder, "publish", "board", "asked", *where)
    out, _ = harness(folder, "publish", "board", "--check", *where)
    assert out == "the whole board: nothing amiss\n"
    return folder / "board"


def answered(board: Path, task: str, texts: Iterator[str], passed: dict[int, bool], metric: str) -> None:
    """Forge the answers to a task, and what came of some of its documents."""
    (view,) = read_manifest(only_entry(board)).run.cells
    (key,) = {t.generate for t in view.scores if t.task == task}

    def change(store: Store) -> None:
        record = store.find("generate", key)
        assert record is not None
        file = record.file("responses.jsonl")
        rows = [json.loads(line) | {"text": next(texts)} for line in file.read_text().splitlines()]
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        folder = score_folder(store, view, task)
        samples = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
        for doc, right in passed.items():
            samples[doc]["scores"][metric] = float(right)
        (folder / "samples.jsonl").write_text("".join(json.dumps(sample) + "\n" for sample in samples))
        metrics = json.loads((folder / "metrics.json").read_text())
        metrics[metric]["value"] = sum(sample["scores"][metric] for sample in samples) / len(samples)
        (folder / "metrics.json").write_text(json.dumps(metrics))

    forge(board, view.name, change)


def findings(folder: Path, *where: str | Path) -> list[tuple[str, str]]:
    out, _ = harness(folder, "publish", "board", "--check", "--json", *where, code=1)
    return [(f["field"], f["what"]) for f in json.loads(out)["findings"]]


def test_the_same_answer_to_everything_may_not_score_above_chance(tmp_path: Path, tiny_model: Path) -> None:
    task = "made_word_problems"
    board = published(tmp_path, tiny_model, f"  math: {{limit: 12, tasks: [{task}]}}")
    answered(board, task, iter(["So it is #### 18"] * 12), {0: True}, "exact_match,strict")
    wanted = f"the same answer to all 12 questions scores {1 / 12:g}, above chance"
    assert (f"tiny.base.{task}.responses.jsonl", wanted) in findings(tmp_path)


@pytest.mark.slow
def test_programs_are_run_again_and_a_pass_that_they_do_not_earn_is_found(
    tmp_path: Path, tiny_model: Path, mirror: Path
) -> None:
    where = ("--mirror", mirror)
    board = published(tmp_path, tiny_model, "  code: {limit: 3, tasks: [humaneval]}", *where)
    wrong = ["    return None\n", "    raise SystemExit(0)\n", "    import os; os._exit(0)\n"]
    answered(board, "humaneval", iter(wrong), {1: True, 2: True}, "pass@1")
    fields = [field for field, _ in findings(tmp_path, *where)]
    place = "tiny.base.humaneval"
    assert f"{place}.metrics.json.pass@1.value" in fields
    assert [f for f in fields if f.endswith((".scores", ".outcome", ".answer"))]
