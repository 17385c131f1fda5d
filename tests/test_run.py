"""`harness run` from matrix to table, on a tiny model with the fake engine: once, again, killed, two at once."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
from pathlib import Path

import pytest

from harness.digest import key_of
from harness.results.frame import items_identity
from harness.runs import load_run
from harness.store import Store
from tests.runs import alive, harness, scores, start, wait_until, write_matrix


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> tuple[Path, str]:
    """A folder with a finished run, and its table."""
    folder = tmp_path_factory.mktemp("run")
    out, _ = harness(folder, "run", write_matrix(folder, tiny_model))
    return folder, out


def test_a_run_ends_with_a_table_of_every_cell_and_task(finished: tuple[Path, str]) -> None:
    folder, table = finished
    for name in ("base", "sft", "lora+dft", "made_word_problems", "simple_python", "made_sentiment"):
        assert name in table
    body = json.loads((folder / "store" / "runs" / "small" / "table.json").read_text())
    assert body["schema"] == "harness-table"
    values = [e["estimate"]["value"] for row in body["rows"] for e in row["entries"].values()]
    assert len(values) >= 9
    assert all(v is not None for v in values)


def test_a_second_run_does_nothing_and_prints_the_same(finished: tuple[Path, str]) -> None:
    folder, table = finished
    before = sorted((p, p.stat().st_mtime_ns) for p in (folder / "store").rglob("record.json"))
    out, err = harness(folder, "run", "small.yaml")
    assert out == table
    assert "started" not in err
    assert sorted((p, p.stat().st_mtime_ns) for p in (folder / "store").rglob("record.json")) == before


def test_plan_of_a_finished_run_is_empty_and_a_change_is_named(finished: tuple[Path, str]) -> None:
    folder, _ = finished
    plan = json.loads(harness(folder, "plan", "small.yaml", "--json")[0])
    assert plan["steps"] == []
    changed = json.loads(harness(folder, "plan", "small.yaml", "--set", "train.lr=1e-4", "--json")[0])
    trains = [s for s in changed["steps"] if s["kind"] == "train"]
    assert {s["reason"] for s in trains} == {"changed: settings.lr 0.001 -> 0.0001"}
    assert {s["reason"] for s in changed["steps"] if s["kind"] == "generate"} == {"upstream changed"}
    assert not any(s["cell"] == "tiny.base" for s in changed["steps"])


def test_a_plan_says_which_difference_could_be_found(finished: tuple[Path, str]) -> None:
    folder, _ = finished
    several, _ = harness(folder, "plan", "small.yaml", "--only", "sft", "--seeds", "3", "--seed-sd", "1.3")
    assert "found with 80 % power by 3 seeds (seed sd 1.3 points, runs differ on 10 % of the items):" in several
    assert re.search(r"^  math: a difference of \d+\.\d points$", several, re.MULTILINE)
    single, _ = harness(folder, "plan", "small.yaml", "--only", "sft", "--seeds", "1", "--seed-sd", "1.3")
    assert "one seed tells no two methods apart" in single


def test_full_weights_go_and_adapters_stay(finished: tuple[Path, str]) -> None:
    store = finished[0] / "store"
    kept = {p.name for p in store.rglob("*.safetensors")}
    assert kept == {"adapter_model.safetensors"}


def test_weights_that_were_not_kept_are_made_again_when_needed(finished: tuple[Path, str]) -> None:
    folder, _ = finished
    plan = json.loads(harness(folder, "plan", "small.yaml", "--limit", "5", "--json")[0])
    reasons = {s["cell"]: s["reason"] for s in plan["steps"] if s["kind"] == "train"}
    assert reasons == {"tiny.sft.s0": "its weights were not kept and are needed again"}
    table, _ = harness(folder, "run", "small.yaml", "--limit", "5")
    assert "| sft" in table or "sft" in table
    again, _ = harness(folder, "run", "small.yaml")
    assert again == finished[1]


def test_every_cell_leaves_one_columnar_file_and_each_test_set_is_looked_for_in_the_training_data(
    finished: tuple[Path, str],
) -> None:
    store = Store(finished[0] / "store")
    run = load_run(store, "small")
    trained = [cell for cell in run.cells if cell.train]
    packed = {key_of("items", items_identity(task.key for task in cell.scores)) for cell in run.cells}
    assert len(packed) == len(run.cells) and packed <= store.finished("items")
    looked = {task.overlap for cell in trained for task in cell.scores}
    assert "" not in looked and looked <= store.finished("overlap")
    assert not any(task.overlap for cell in run.cells if not cell.train for task in cell.scores)


def test_tables_in_every_format_come_from_the_store_alone(finished: tuple[Path, str]) -> None:
    folder, table = finished
    assert harness(folder, "table", "small")[0] == table
    assert harness(folder, "table", "small.yaml", "--format", "csv")[0].splitlines()[0].startswith("level,")
    assert json.loads(harness(folder, "table", "small", "--json")[0])["schema"] == "harness-table"


def test_status_says_how_far_every_cell_is(finished: tuple[Path, str]) -> None:
    folder, _ = finished
    body = json.loads(harness(folder, "status", "small", "--json")[0])
    assert {c["cell"]: c["tasks"] for c in body["cells"]} == {
        "tiny.base": {"ok": 3},
        "tiny.sft.s0": {"ok": 3},
        "tiny.lora+dft.s0": {"ok": 3},
    }


def test_a_run_moves_to_another_machine(finished: tuple[Path, str], tmp_path: Path) -> None:
    folder, table = finished
    harness(folder, "export", "small", tmp_path / "small.run")
    harness(tmp_path, "import", tmp_path / "small.run")
    assert harness(tmp_path, "table", "small")[0] == table


def test_entries_are_taken_over_as_finished_cells(finished: tuple[Path, str], tmp_path: Path) -> None:
    folder, table = finished
    said, _ = harness(folder, "export", "small", tmp_path / "entries", "--entries")
    assert "3 entries written" in said
    assert "0 entries written, 3 were there" in harness(folder, "export", "small", tmp_path / "entries", "--entries")[0]
    assert all(size < 100_000 for size in (f.stat().st_size for f in (tmp_path / "entries").iterdir()))
    matrix = tmp_path / "small.yaml"
    matrix.write_text((folder / "small.yaml").read_text() + "entries: entries\n")
    out, err = harness(tmp_path, "plan", "small.yaml")
    assert "0 to do" in out
    assert "3 finished" in err
    out, err = harness(tmp_path, "run", "small.yaml")
    assert scores(out) == scores(table)
    assert not list((tmp_path / "store").glob("train/*/*/0001/artifact")), "nothing was trained"
    _, err = harness(tmp_path, "run", "small.yaml")
    assert "entries of" not in err


def test_a_stale_entry_is_named_and_done_again(finished: tuple[Path, str], tmp_path: Path) -> None:
    folder, _ = finished
    harness(folder, "export", "small", tmp_path / "entries", "--entries")
    (tmp_path / "entries" / "tiny.lora+dft.s0.tar.gz").write_bytes(b"no archive")
    matrix = tmp_path / "small.yaml"
    text = (folder / "small.yaml").read_text().replace("lr: 1e-3", "lr: 2e-3") + "entries: entries\n"
    matrix.write_text(text)
    _, err = harness(tmp_path, "run", "small.yaml", "--only", "base", "--only", "lora+dft", code=2)
    assert "cannot be imported" in err
    assert "lora+dft" in err
    (tmp_path / "entries" / "tiny.lora+dft.s0.tar.gz").unlink()
    _, err = harness(tmp_path, "run", "small.yaml", "--only", "base", "--only", "sft")
    assert "tiny.base" not in err, "its entry was taken over the first time"
    assert "the entry of tiny.sft.s0 in entries is stale" in err


def test_scores_that_change_ask_for_answers_that_were_left_behind(finished: tuple[Path, str], tmp_path: Path) -> None:
    folder, table = finished
    harness(folder, "export", "small", tmp_path / "entries", "--entries")
    text = (folder / "small.yaml").read_text()
    (tmp_path / "small.yaml").write_text(text + "entries: entries\n")
    harness(tmp_path, "run", "small.yaml", "--only", "base")
    shutil.rmtree(tmp_path / "store" / "score")
    (tmp_path / "small.yaml").write_text(text)
    plan, _ = harness(tmp_path, "plan", "small.yaml", "--only", "base", "--verbose")
    assert "its answers were not kept and are needed again" in plan
    again, _ = harness(tmp_path, "run", "small.yaml", "--only", "base")
    rows = [next(line for line in text.splitlines() if line.startswith("| base")) for text in (again, table)]
    assert rows[0].split() == rows[1].split()


def test_gc_lists_first_and_deletes_only_when_told(finished: tuple[Path, str], tmp_path: Path) -> None:
    folder, _ = finished
    harness(folder, "export", "small", tmp_path / "small.run")
    harness(tmp_path, "import", tmp_path / "small.run")
    other = (folder / "small.yaml").read_text().replace("limit: 12", "limit: 4")
    (tmp_path / "small.yaml").write_text(other)
    listed, _ = harness(tmp_path, "gc", "small.yaml")
    assert "unwanted step" in listed
    assert harness(tmp_path, "gc", "small.yaml")[0] == listed
    assert "freed" in harness(tmp_path, "gc", "small.yaml", "--delete")[0]
    assert "nothing to delete" in harness(tmp_path, "gc", "small.yaml")[0]


def test_a_loss_that_is_not_a_number_ends_its_cell_and_not_the_matrix(tmp_path: Path, tiny_model: Path) -> None:
    matrix = write_matrix(tmp_path, tiny_model)
    text = matrix.read_text().replace("  sft: {}", "  sft: {train: {lr: 1e30, clip: null}}")
    matrix.write_text(text)
    table, _ = harness(tmp_path, "run", matrix, "--only", "sft", "--only", "base")
    assert "diverged" in table
    body = json.loads((harness(tmp_path, "status", matrix, "--json"))[0])
    states = {c["cell"]: c["tasks"] for c in body["cells"]}
    assert states["tiny.sft.s0"] == {"diverged": 3}
    assert states["tiny.base"] == {"ok": 3}
    assert json.loads(harness(tmp_path, "plan", matrix, "--only", "sft", "--json")[0])["steps"] == []


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["driver", "worker"])
def test_kill_at_any_moment_then_the_same_command_gives_the_same_table(
    finished: tuple[Path, str], tmp_path: Path, tiny_model: Path, victim: str
) -> None:
    """Two random kills, then the run to its end: same scores, no process of ours left, no waiting for stale claims."""
    matrix = write_matrix(tmp_path, tiny_model)
    draw = random.Random(victim)
    for _ in range(2):
        process = start(tmp_path, "run", matrix)
        try:
            process.wait(timeout=draw.uniform(2, 16))
        except Exception:
            if victim == "driver":
                process.kill()
            else:
                for pid in alive(str(tmp_path), command="harness.jobs.worker")[:1]:
                    os.kill(pid, signal.SIGKILL)
        if victim == "driver":
            assert wait_until(lambda: not alive(str(tmp_path)), 5), "processes of ours outlived the driver"
        process.communicate()
    out, err = harness(tmp_path, "run", matrix)
    assert scores(out) == scores(finished[1])
    assert "waiting" not in err
    assert not alive(str(tmp_path))


@pytest.mark.slow
def test_two_runs_of_one_matrix_share_the_work(tmp_path: Path, tiny_model: Path, finished: tuple[Path, str]) -> None:
    matrix = write_matrix(tmp_path, tiny_model)
    both = [start(tmp_path, "run", matrix) for _ in range(2)]
    results = [p.communicate() for p in both]
    assert [p.returncode for p in both] == [0, 0], results
    assert scores(results[0][0]) == scores(results[1][0]) == scores(finished[1])
    for folder in {p.parent.parent for p in (tmp_path / "store").rglob("record.json")}:
        assert len(list(folder.glob("*/record.json"))) == 1, f"{folder} was done twice"
