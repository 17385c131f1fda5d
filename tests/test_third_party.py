"""A method of another package: examples/focal, built and installed without the network, shown and run by name."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runs import environment, write_matrix

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "focal"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the installed package and nothing else."""
    folder = tmp_path_factory.mktemp("focal")
    source = shutil.copytree(EXAMPLE, folder / "source")
    quiet = ["--quiet", "--disable-pip-version-check", "--no-deps", "--no-build-isolation", "--no-index"]
    pip = [sys.executable, "-m", "pip", "install", *quiet, "--target", str(folder / "site"), str(source)]
    subprocess.run(pip, check=True, capture_output=True)
    return folder / "site"


def python(folder: Path, site: Path, *args: str | Path) -> str:
    """A Python process that finds the installed package beside ours; its output."""
    env = environment(folder)
    env["PYTHONPATH"] = os.pathsep.join([str(site), env["PYTHONPATH"]])
    argv = [sys.executable, *map(str, args)]
    done = subprocess.run(argv, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_package_is_one_module_and_its_entry_point(installed: Path) -> None:
    assert {p.name for p in installed.iterdir()} - {"__pycache__"} == {
        "harness_focal.py",
        "harness_focal-1.0.dist-info",
    }


def test_it_is_shown_with_its_parameters_and_range(installed: Path, tmp_path: Path) -> None:
    shown = python(tmp_path, installed, "-m", "harness", "methods", "focal")
    for part in (
        "Focal Loss for Dense Object Detection",
        "arXiv 1708.02002",
        "hooks: loss",
        "gamma",
        "2.0",
        "0.5 to 5",
    ):
        assert part in shown
    assert "focal" in python(tmp_path, installed, "-m", "harness", "methods")


def test_it_runs_in_a_matrix_alone_and_in_a_stack(installed: Path, tmp_path: Path, tiny_model: Path) -> None:
    file = write_matrix(tmp_path, tiny_model)
    methods = "  focal: [{focal: {gamma: 1.0}}]\n  lora+focal: {}\n"
    text = file.read_text().replace("  base: {}\n  sft: {}\n  lora+dft: {}\n", methods)
    file.write_text("\n".join(t for t in text.splitlines() if not t.startswith(("  math:", "  tool_use:"))))
    out = python(tmp_path, installed, "-m", "harness", "run", file)
    rows = [line for line in out.split("**Cost**")[0].splitlines() if line.startswith(("| focal", "| lora+focal"))]
    assert len(rows) == 2 and not any("failed" in row for row in rows)


def test_its_own_test_passes(installed: Path, tmp_path: Path) -> None:
    python(tmp_path, installed, "-m", "pytest", "-q", "-p", "no:cacheprovider", EXAMPLE / "test_harness_focal.py")
