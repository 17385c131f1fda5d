"""`harness publish`: a run onto a board, twice the same, replaced, withdrawn; a kill leaves no half of an entry."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from harness.boards.ledger import ENTRIES, ledger_of
from tests.boards import make_board, only_entry, stamp
from tests.runs import environment, harness, write_matrix


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A folder with a finished run and an empty board."""
    folder = tmp_path_factory.mktemp("publish")
    write_matrix(folder, tiny_model)
    harness(folder, "run", "small.yaml")
    stamp(folder / "store", clean=True)
    make_board(folder)
    return folder


@pytest.fixture
def place(finished: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished, tmp_path / "w")
    return tmp_path / "w"


def test_a_run_is_published_and_its_board_checked_and_shown(place: Path) -> None:
    out, _ = harness(place, "publish", "board", "small")
    entry = only_entry(place / "board")
    assert out == f"published {entry.name}\n"
    out, _ = harness(place, "publish", "board", "--check")
    assert out == "the whole board: nothing amiss\n"
    assert "made_word_problems" in (place / "board" / "board.csv").read_text()
    assert "A tiny board" in (place / "board" / "board.md").read_text()
    assert not [p for p in entry.rglob("*") if p.suffix == ".safetensors"]
    assert "simple_python" not in (place / "board" / "board.json").read_text(), "a task that the board does not have"


def test_a_board_has_a_site_of_its_live_entries(place: Path) -> None:
    _, err = harness(place, "site", "board", "--out", "pages", code=2)
    assert "nothing is published on this board" in err
    harness(place, "publish", "board", "small")
    out, _ = harness(place, "site", "board", "--out", "pages")
    assert "3 cells; open it in a browser" in out
    assert "A tiny board" in (place / "pages" / "data" / "board.js").read_text()
    samples = [p for p in (place / "pages" / "data").rglob("*.js") if p.name != "board.js"]
    assert any("made_word_problems" in p.read_text() or len(p.read_text()) > 200 for p in samples)
    assert not any('"output"' in p.read_text() for p in samples), "not asked for"
    shutil.rmtree(place / "store")
    harness(place, "site", "board", "--out", "pages", "--outputs")
    texts = [p.read_text() for p in samples]
    assert any('"output"' in text for text in texts) and any('"prompt"' in text for text in texts)
    harness(place, "publish", "board", "--withdraw", only_entry(place / "board").name, "--why", "a mistake")
    harness(place, "site", "board", "--out", "pages", code=2)


def test_the_same_run_again_is_no_new_entry(place: Path) -> None:
    harness(place, "publish", "board", "small")
    ledger = ledger_of(place / "board").read_bytes()
    out, _ = harness(place, "publish", "board", "small")
    assert "on the board already; nothing to do" in out
    assert ledger_of(place / "board").read_bytes() == ledger
    only_entry(place / "board")


def test_check_of_a_run_publishes_nothing(place: Path) -> None:
    out, _ = harness(place, "publish", "board", "small", "--check")
    assert out.endswith(": nothing amiss\n")
    assert list((place / "board" / ENTRIES).iterdir()) == []


def test_a_new_entry_names_the_one_it_replaces(place: Path) -> None:
    harness(place, "publish", "board", "small")
    old = only_entry(place / "board").name
    harness(place, "run", "small.yaml", "--set", "train.lr=2e-3")
    stamp(place / "store", clean=True)
    _, err = harness(place, "publish", "board", "small", code=2)
    assert f"--replaces {old}" in err
    harness(place, "publish", "board", "small", "--replaces", old)
    out, _ = harness(place, "publish", "board", "--check")
    assert "nothing amiss" in out
    assert (place / "board" / ENTRIES / old).is_dir(), "what is replaced stays"
    shown = (place / "board" / "board.md").read_text()
    assert f"Replaced: {old}, by small-" in shown


def test_rows_of_one_name_from_two_runs_are_told_apart_and_what_they_share_stands_once(place: Path) -> None:
    harness(place, "publish", "board", "small")
    harness(place, "run", "small.yaml", "--set", "train.lr=2e-3", "--set", "name=other")
    stamp(place / "store", clean=True)
    harness(place, "publish", "board", "other")
    body = json.loads((place / "board" / "board.json").read_text())
    assert [row["method"] for row in body["rows"]] == ["base", "sft", "lora+dft", "sft (other)", "lora+dft (other)"]
    assert "nothing amiss" in harness(place, "publish", "board", "--check")[0]


def test_a_withdrawn_entry_stays_with_its_reason(place: Path) -> None:
    harness(place, "publish", "board", "small")
    entry = only_entry(place / "board").name
    _, err = harness(place, "publish", "board", "--withdraw", entry[:-1], "--why", "x", code=2)
    assert f'did you mean "{entry}"?' in err
    harness(place, "publish", "board", "--withdraw", entry, "--why", "<script>alert(1)</script>\n| it leaked |")
    assert only_entry(place / "board").name == entry
    shown = (place / "board" / "board.md").read_text()
    assert f"Withdrawn: {entry}, because: " in shown
    assert "<script>" not in shown
    assert "nothing amiss" in harness(place, "publish", "board", "--check")[0]
    _, err = harness(place, "publish", "board", "small", code=2)
    assert "is withdrawn" in err


@pytest.mark.parametrize("at", ["_move", "append"])
def test_a_kill_leaves_no_half_entry(place: Path, at: str) -> None:
    code = (
        "import os, signal, sys\n"
        "from harness.boards import publishing\n"
        f"publishing.{at} = lambda *a: os.kill(os.getpid(), signal.SIGKILL)\n"
        "from harness.cli import main\n"
        "main(['publish', 'board', 'small'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=place, env=environment(place), check=False)
    assert done.returncode == -signal.SIGKILL
    assert not ledger_of(place / "board").exists()
    assert harness(place, "publish", "board", "small")[0].startswith("published ")
    entry = only_entry(place / "board")
    assert json.loads(ledger_of(place / "board").read_text())["entry"] == entry.name
    assert "nothing amiss" in harness(place, "publish", "board", "--check")[0]


def test_an_unknown_field_of_a_board_is_refused_with_the_nearest_name(place: Path) -> None:
    file = place / "board" / "board.yaml"
    file.write_text(file.read_text().replace("seeds: 1", "seed: 1"))
    _, err = harness(place, "publish", "board", "--check", code=2)
    assert 'did you mean "seeds"?' in err
    assert "board.yaml:" in err


def test_results_for_model_cards_and_in_the_shape_of_lm_eval(place: Path) -> None:
    harness(place, "export", "small", "cards", "--format", "model-index")
    text = (place / "cards" / "tiny.sft.s0.yaml").read_text()
    card = ModelCard(f"---\n{text}---\n").data
    found = {r.dataset_name: r for r in card.eval_results or []}
    samples = (place / "store" / "score").rglob("samples.jsonl")
    assert found["made_word_problems"].metric_type == "exact_match"
    assert found["made_word_problems"].metric_args["low"] >= 0
    assert sum(1 for _ in samples) == 9

    harness(place, "export", "small", "lm", "--format", "lm-eval")
    (file,) = (place / "lm" / "tiny.sft.s0").glob("results_*.json")
    body = json.loads(file.read_text())
    assert body["results"]["simple_python"]["acc,none"] == 0.0
    assert body["results"]["simple_python"]["acc_stderr,none"] == 0.0
    assert "exact_match,strict" in body["results"]["made_word_problems"]
    (lines,) = (place / "lm" / "tiny.sft.s0").glob("samples_made_word_problems_*.jsonl")
    rows = [json.loads(line) for line in lines.read_text().splitlines()]
    assert len(rows) == 24, "a line a document and filter"
    assert {row["filter"] for row in rows} == {"strict", "flexible"}
