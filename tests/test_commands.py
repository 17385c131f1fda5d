"""The listing commands, and what every command promises: JSON for programs, no files left behind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness import __version__
from tests.runs import harness


def test_version(tmp_path: Path) -> None:
    assert harness(tmp_path, "--version")[0].strip() == f"harness {__version__}"


@pytest.mark.parametrize(
    "args", [("methods",), ("methods", "lora"), ("suites",), ("suites", "math"), ("gc",), ("doctor",)], ids=" ".join
)
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


def test_suites_name_real_data_only_where_they_are_real(tmp_path: Path, mirror: Path) -> None:
    made = json.loads(harness(tmp_path, "suites", "--json")[0])
    real = json.loads(harness(tmp_path, "suites", "--json", "--mirror", mirror)[0])

    def measured(body: dict[str, list[dict[str, object]]]) -> dict[str, str]:
        return {t["task"]: t["data"] for s in body["suites"] for t in s["tasks"] if t["measured"]}  # type: ignore[attr-defined, index]

    for task, data in measured(made).items():
        assert task.startswith("made_") == data.startswith("make:")
    assert {"gsm8k", "humaneval", "simple_python", "cola", "sst2", "ifeval"} <= set(measured(real))
    assert measured(real)["simple_python"].startswith("mirror:")
    assert measured(made)["simple_python"].startswith("package:")
