"""Tuning from matrix to table: trials, a tuned row beside the default one, kills in the middle, failures."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from harness.runs import load_run
from harness.store import Record, Store
from tests.runs import alive, harness, start, wait_until

MATRIX = """
version: 1
name: small
models: {{tiny: {model}}}
data: {{sums: {{source: "make:word_problems", rows: 40}}}}
train: {{data: sums, budget: {{steps: 2}}, batch_size: 2, lr: 1e-3, checkpoint_seconds: 0.2}}
methods: {methods}
tune: {{trials: 3, holdout: 0.2, seed: 3}}
seeds: {seeds}
suites:
  math: {{limit: 4, tasks: [made_word_problems]}}
engine: {{name: fake, max_model_len: 4096}}
"""


def write(folder: Path, model: Path, methods: str = "{base: {}, lora: {}}", seeds: int = 2) -> Path:
    file = folder / "small.yaml"
    file.write_text(MATRIX.format(model=model, methods=methods, seeds=seeds))
    return file


def tuned(folder: Path) -> Record:
    """The only search of a store."""
    store = Store(folder / "store")
    (key,) = store.keys("tune")
    record = store.find("tune", key)
    assert record is not None
    return record


def trials(record: Record) -> list[dict[str, Any]]:
    return [json.loads(line) for line in record.file("trials.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> tuple[Path, str]:
    """A folder with a finished run of a tuned method, and its table."""
    folder = tmp_path_factory.mktemp("run")
    out, _ = harness(folder, "run", write(folder, tiny_model))
    return folder, out


def test_one_search_of_all_trials_serves_every_seed(finished: tuple[Path, str]) -> None:
    record = tuned(finished[0])
    found = trials(record)
    assert [t["number"] for t in found] == [0, 1, 2]
    assert found[0]["parameters"] == {"train.lr": 1e-3, "lora.r": 16, "lora.alpha": 32.0}
    assert all(t["outcome"] == "ok" and t["trained_tokens"] > 0 and t["scored_tokens"] > 0 for t in found)
    assert all(4 <= t["parameters"]["lora.r"] <= 128 for t in found)
    assert record.extra["loss"] == min(t["loss"] for t in found) <= found[0]["loss"] == record.extra["default_loss"]
    assert record.extra["held_out"] == 8
    assert record.cost["trained_tokens"] == sum(t["trained_tokens"] for t in found)
    assert sorted(record.outputs) == ["held_out.jsonl", "trials.jsonl"]  # no weights


def test_the_tuned_cells_are_trained_with_what_was_found(finished: tuple[Path, str]) -> None:
    store = Store(finished[0] / "store")
    best = tuned(finished[0]).extra["parameters"]
    records = [r for key in store.keys("train") if (r := store.find("train", key))]
    assert len(records) == 4
    mine = [r for r in records if "tune" in r.identity]
    assert len(mine) == 2
    assert {r.identity["seed"] for r in mine} == {0, 1}
    for record in mine:
        config = json.loads(record.file("artifact/adapter_config.json").read_text())
        assert (config["r"], config["lora_alpha"]) == (best["lora.r"], best["lora.alpha"])
        curve = [json.loads(line) for line in record.file("curve.jsonl").read_text().splitlines()]
        assert max(line["lr"] for line in curve) <= best["train.lr"] * 1.0001


def test_the_table_has_default_and_tuned_rows_with_scores_trials_and_their_cost(finished: tuple[Path, str]) -> None:
    folder, out = finished
    record = tuned(folder)
    section = out.split("**Tuning")[1].split("**Cost")[0]
    (default,) = [line for line in section.splitlines() if line.startswith("| lora (2 seeds)")]
    (searched,) = [line for line in section.splitlines() if line.startswith("| lora+tuned (2 seeds)")]
    assert default.split("|")[2].strip() == "default"
    for text in (f"{record.extra['default_loss']:.4f}", f"{record.extra['loss']:.4f}", "lora.r", " 3 "):
        assert text in searched
    body = json.loads((folder / "store" / "runs" / "small" / "table.json").read_text())
    rows = {r["method"]: r for r in body["rows"] if r["level"] == "method"}
    assert list(rows) == ["base", "lora", "lora+tuned"]
    assert rows["lora"]["tuning"] is None
    assert rows["lora+tuned"]["tuning"]["trials"] == rows["lora+tuned"]["cost"]["trials"] == 3
    assert rows["lora+tuned"]["cost"]["tuning_tokens"] == record.cost["trained_tokens"]
    assert rows["lora+tuned"]["cost"]["tuning_seconds"] > 0
    assert all(e["estimate"]["value"] is not None for r in rows.values() for e in r["entries"].values())


def test_a_second_run_searches_nothing_and_the_plan_names_what_changed(finished: tuple[Path, str]) -> None:
    folder, out = finished
    assert harness(folder, "run", "small.yaml")[0] == out
    body = json.loads(harness(folder, "plan", "small.yaml", "--set", "tune.trials=5", "--json")[0])
    (search,) = [s for s in body["steps"] if s["kind"] == "tune"]
    assert search["cell"] == "tiny.lora+tuned.s0"
    assert "search.trials 3 -> 5" in search["reason"]
    assert search["reason"].endswith("(5 trials)")
    assert body["estimate"]["seconds"]["tune"] > 0
    assert {s["cell"].rpartition(".")[0] for s in body["steps"]} == {"tiny.lora+tuned"}
    assert json.loads(harness(folder, "plan", "small.yaml", "--json")[0])["steps"] == []
    (key,) = Store(folder / "store").keys("tune")
    kept = load_run(Store(folder / "store"), "small").keys()
    assert ("tune", key) in kept
    assert "tune" not in harness(folder, "gc", "small.yaml")[0]
    shown, _ = harness(folder, "show", "small", "--cell", "tiny.lora+tuned.s1", "--task", "made_word_problems")
    assert "tiny.lora+tuned.s1" in shown


def test_a_kill_in_the_middle_loses_the_trial_in_progress_only(
    tmp_path: Path, tiny_model: Path, finished: tuple[Path, str]
) -> None:
    write(tmp_path, tiny_model, "{lora: {}}", seeds=1)
    process = start(tmp_path, "run", "small.yaml")
    lines = tmp_path / "store" / "tune"
    assert wait_until(lambda: any(f.read_text().count("\n") for f in lines.rglob("trials.jsonl")), 120)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert wait_until(lambda: not alive(str(tmp_path)), 20)
    (left,) = lines.rglob("trials.jsonl")
    before = left.read_text().splitlines()
    assert 1 <= len(before) < 3
    harness(tmp_path, "run", "small.yaml")
    after = tuned(tmp_path).file("trials.jsonl").read_text().splitlines()
    assert after[: len(before)] == before  # the seconds they took, too: they were not run again
    strip = [{k: t[k] for k in ("number", "parameters", "loss")} for t in trials(tuned(tmp_path))]
    assert strip == [{k: t[k] for k in ("number", "parameters", "loss")} for t in trials(tuned(finished[0]))]
