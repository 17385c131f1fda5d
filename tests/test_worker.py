"""Cells of a job run in forked processes of their own: one that fails or is killed does not stop the others."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from harness.errors import HarnessError, StepFailed
from harness.jobs.worker import forked


def tasks(run: Callable[[str], object], *names: str) -> list[Any]:
    return [(name, partial(run, name)) for name in names]


def test_every_cell_has_a_process_of_its_own(tmp_path: Path) -> None:
    code = forked(tasks(lambda name: (tmp_path / name).write_text(str(os.getpid())), "a", "b"))
    assert code == 0
    pids = {(tmp_path / name).read_text() for name in ("a", "b")}
    assert len(pids) == 2
    assert str(os.getpid()) not in pids


@pytest.mark.parametrize(
    ("error", "code"), [(HarnessError("wrong"), 2), (StepFailed("broken", kind="bug"), 1), (ValueError("a bug"), 1)]
)
def test_a_cell_that_fails_does_not_stop_the_others(tmp_path: Path, error: Exception, code: int) -> None:
    def run(name: str) -> None:
        if name == "bad":
            raise error
        (tmp_path / name).touch()

    assert forked(tasks(run, "bad", "good")) == code
    assert (tmp_path / "good").exists()


def test_a_cell_that_is_killed_does_not_stop_the_others(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def run(name: str) -> None:
        if name == "bad":
            os.kill(os.getpid(), signal.SIGKILL)
        (tmp_path / name).touch()

    assert forked(tasks(run, "bad", "good")) != 0
    assert (tmp_path / "good").exists()
    assert "bad: its process was ended by signal 9" in capfd.readouterr().err


def test_an_interrupted_worker_ends_its_cells(tmp_path: Path) -> None:
    code = (
        "import os, sys, time\n"
        "from pathlib import Path\n"
        "from harness.jobs.worker import forked, interruptible\n"
        "interruptible()\n"
        "def run():\n"
        "    Path(sys.argv[1]).write_text(str(os.getpid()))\n"
        "    time.sleep(60)\n"
        "forked([('long', run)])\n"
    )
    file = tmp_path / "pid"
    worker = subprocess.Popen([sys.executable, "-c", code, str(file)], stderr=subprocess.DEVNULL)
    while not (file.exists() and file.read_text()):
        time.sleep(0.02)
    worker.terminate()
    worker.wait(timeout=10)
    assert not Path(f"/proc/{file.read_text()}").exists()
