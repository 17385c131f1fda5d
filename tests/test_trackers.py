"""Trackers are told of every finished cell once; each by its own package, where that is installed."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from harness import trackers
from harness.errors import MissingExtra
from harness.runs import RunView, load_run, run_folder
from harness.store import Store
from harness.trackers import Report, check, tell
from tests.runs import harness, write_matrix

CELLS = {"tiny.base", "tiny.sft.s0", "tiny.lora+dft.s0"}
SCORE = "score/math/made_word_problems/exact_match,strict"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A folder with a finished run that told TensorBoard."""
    pytest.importorskip("tensorboard")
    folder = tmp_path_factory.mktemp("told")
    matrix = write_matrix(folder, tiny_model)
    matrix.write_text(matrix.read_text() + "report_to: [tensorboard]\n")
    harness(folder, "run", matrix)
    return folder


@pytest.fixture
def run(finished: Path) -> tuple[Store, RunView]:
    store = Store(finished / "store")
    return store, load_run(store, "small")


def test_tensorboard_has_every_curve_and_score(finished: Path, run: tuple[Store, RunView]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    store, _ = run
    place = run_folder(store, "small") / "tensorboard"
    assert {p.name for p in place.iterdir()} == CELLS
    events = EventAccumulator(str(place / "tiny.sft.s0"))
    events.Reload()
    assert [e.step for e in events.Scalars("train/loss")] == [1, 2, 3]
    [score] = events.Scalars(SCORE)
    body = json.loads((run_folder(store, "small") / "table.json").read_text())
    [row] = [row for row in body["rows"] if row["method"] == "sft"]
    assert score.value == pytest.approx(row["entries"]["made_word_problems [12]"]["estimate"]["value"], abs=1e-6)


def test_a_second_run_tells_nothing_again(finished: Path, run: tuple[Store, RunView]) -> None:
    place = run_folder(run[0], "small") / "tensorboard"
    before = {p: p.stat().st_mtime_ns for p in place.rglob("events*")}
    harness(finished, "run", "small.yaml")
    assert {p: p.stat().st_mtime_ns for p in place.rglob("events*")} == before


class Scripted(ModuleType):
    """A tracker that remembers what it was told, and fails for one cell as long as `away`."""

    def __init__(self) -> None:
        super().__init__("harness.trackers.wandb")
        self.told: list[Report] = []
        self.away = True

    def send(self, report: Report, folder: Path) -> None:
        if self.away and report.cell == "tiny.sft.s0":
            raise ConnectionError("the service is away")
        self.told.append(report)


def test_a_tracker_that_fails_is_a_warning_and_is_told_the_rest_next_time(
    run: tuple[Store, RunView], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, view = run
    tracker = Scripted()
    monkeypatch.setitem(sys.modules, "harness.trackers.wandb", tracker)
    [warning] = tell(["wandb"], "small", view.cells, store, tmp_path)
    assert "wandb was not told of every cell: ConnectionError: the service is away" in warning
    tracker.away = False
    assert tell(["wandb"], "small", view.cells, store, tmp_path) == []
    assert tell(["wandb"], "small", view.cells, store, tmp_path) == []
    assert sorted(r.cell for r in tracker.told) == sorted(CELLS)
    [base] = [r for r in tracker.told if r.cell == "tiny.base"]
    assert base.curve == []
    assert base.settings["state"] == "ok"


def test_a_damaged_note_means_telling_again(run: tuple[Store, RunView], tmp_path: Path) -> None:
    store, view = run
    (tmp_path / "told-tensorboard.json").write_text('{"tiny.base": [')
    assert tell(["tensorboard"], "small", view.cells, store, tmp_path) == []
    assert {p.name for p in (tmp_path / "tensorboard").iterdir()} == CELLS


def test_a_tracker_that_is_not_installed_is_refused_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(trackers.PACKAGES, "wandb", "a_package_nobody_has")
    with pytest.raises(MissingExtra, match=r"report_to: wandb.*a_package_nobody_has"):
        check(["wandb"])


def test_mlflow_is_told(run: tuple[Store, RunView], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    store, view = run
    assert tell(["mlflow"], "small", view.cells, store, tmp_path) == []
    client = mlflow.MlflowClient()
    found = client.search_runs([client.get_experiment_by_name("small").experiment_id])
    assert {r.info.run_name for r in found} == CELLS
    [sft] = [r for r in found if r.data.params["method"] == "sft"]
    assert SCORE.replace(",", "_") in sft.data.metrics
    assert [m.step for m in client.get_metric_history(sft.info.run_id, "train/loss")] == [1, 2, 3]


def test_trackio_is_told(run: tuple[Store, RunView], tmp_path: Path) -> None:
    pytest.importorskip("trackio")
    import sqlite3

    from trackio.utils import TRACKIO_DIR

    store, view = run
    assert tell(["trackio"], "told-by-a-test", view.cells, store, tmp_path) == []
    [database] = Path(TRACKIO_DIR).glob("told-by-a-test*.db")
    with sqlite3.connect(database) as connection:
        assert {name for (name,) in connection.execute("select distinct run_name from metrics")} == CELLS


def test_wandb_is_told(run: tuple[Store, RunView], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    store, view = run
    assert tell(["wandb"], "small", view.cells, store, tmp_path) == []
    assert len(list((tmp_path / "wandb").glob("offline-run-*"))) == len(CELLS)
