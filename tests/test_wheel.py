"""The wheel holds all that a user needs: built, installed alone, used from an empty folder."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`harness` of a new environment that holds our wheel; what it depends on is borrowed from this one."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "env", with_pip=False)
    python = folder / "env" / "bin" / "python"
    packages = Path(
        subprocess.check_output(
            [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True
        ).strip()
    )
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(python),
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        str(wheel),
    ]
    subprocess.run(pip, check=True, capture_output=True)
    (packages / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "env" / "bin" / "harness"


def run(harness: Path, folder: Path, *args: str) -> str:
    env = {"PATH": os.environ["PATH"], "HOME": str(folder), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([harness, *args], cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_suites_init_and_plan_from_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    where = run(installed.with_name("python"), tmp_path, "-c", "import harness; print(harness.__file__)")
    assert str(installed.parents[1]) in where, "the wheel was not what ran"
    assert "tool_use" in run(installed, tmp_path, "suites")
    assert "matrix.yaml" in run(installed, tmp_path, "init")
    assert (tmp_path / "matrix.yaml").read_text() == (ROOT / "matrix.yaml").read_text()
    plan = run(installed, tmp_path, "plan", "matrix.yaml")
    assert "4 cells" in plan
    assert "lora+dft" in plan


def test_the_wheel_carries_runner_profiles_and_the_board_template(installed: Path, tmp_path: Path) -> None:
    code = (
        "from harness.packaged import packaged\n"
        "from harness.boards.board import load_board\n"
        "from harness.runners.profile import load_profile\n"
        "print(load_board(packaged('leaderboards/template/board.yaml')).name, load_profile('local').kind)"
    )
    assert run(installed.with_name("python"), tmp_path, "-c", code).strip() == "template local"
