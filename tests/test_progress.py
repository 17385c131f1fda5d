"""What the user sees while a run is at work, on a terminal and where there is none."""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from harness.jobs.progress import LiveProgress, PlainProgress, duration, make_progress

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = """
import time
from harness.jobs.progress import make_progress
view = make_progress()
view.start(8)
view.job_started("t", "train tiny.a-method-with-a-rather-long-name.s0")
view.job_started("g", "generate tiny", 6)
for i in range(5):
    view.progress("t", i, 10, f"loss {i}")
    view.progress("g", i, 6, "made_math")
    time.sleep(0.3)
view.message("note: [bold]as it stands[/bold]")
print("the table")
view.job_ended("t", True, "")
view.job_ended("g", False, "exit code 1; log: jobs/g.log")
time.sleep(0.3)
view.close()
"""


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def plain(clock: Clock) -> tuple[PlainProgress, io.StringIO]:
    file = io.StringIO()
    return PlainProgress(Console(file=file, width=40), clock), file


def run_in_terminal(width: int, **environment: str) -> tuple[str, str]:
    """The script with standard error on a terminal of this width: (standard output, standard error)."""
    ours, theirs = pty.openpty()
    inherited = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    env = {**inherited, "TERM": "xterm-256color", "COLUMNS": str(width), "LINES": "30", **environment}
    command = [sys.executable, "-c", SCRIPT]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs, text=True, env=env, cwd=ROOT) as process:
        os.close(theirs)
        seen = b""
        while chunk := _read(ours):
            seen += chunk
        assert process.stdout is not None
        out = process.stdout.read()
    os.close(ours)
    assert process.returncode == 0, seen.decode()
    return out, seen.decode()


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # how Linux says that nobody writes any more
        return b""


def bare(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def test_without_a_terminal_every_change_of_state_is_one_line(clock: Clock) -> None:
    view, file = plain(clock)
    view.start(3)
    view.job_started("t", "train tiny.sft.s0")
    clock.now = 61
    view.job_ended("t", True, "")
    view.job_started("g", "generate tiny", 2)
    view.job_ended("g", False, "exit code 1\n")
    assert file.getvalue().splitlines() == [
        "[0s 0/3] 3 steps to do",
        "[0s 0/3] train tiny.sft.s0: started",
        "[1m01s 1/3] train tiny.sft.s0: done in 1m01s",
        "[1m01s 1/3] generate tiny: started",
        "[1m01s 1/3] generate tiny: FAILED in 0s",
        "exit code 1",
    ]


def test_without_a_terminal_a_job_speaks_at_most_every_ten_seconds(clock: Clock) -> None:
    view, file = plain(clock)
    view.start(1)
    view.job_started("t", "train")
    for tenth in range(1, 251):
        clock.now = tenth / 10
        view.progress("t", tenth, 500, f"loss {tenth}")
    said = file.getvalue().splitlines()[2:]
    assert said == ["[10s 0/1] train: 20%, loss 100, 40s left", "[20s 0/1] train: 40%, loss 200, 30s left"]


def test_steps_of_a_job_that_runs_count_as_they_are_done(clock: Clock) -> None:
    view, file = plain(clock)
    view.start(8)
    view.job_started("g", "generate", 6)
    view.progress("g", 4, 6, "")
    view.message("hello")
    assert file.getvalue().splitlines()[-1] == "[0s 4/8] hello"


def test_late_words_of_a_job_that_ended_are_ignored(clock: Clock) -> None:
    view, file = plain(clock)
    view.start(1)
    view.progress("gone", 1, 2, "")
    assert file.getvalue().count("\n") == 1


def test_markup_in_names_is_shown_as_it_stands(clock: Clock) -> None:
    view, file = plain(clock)
    view.message("model [red]x[/red] [unclosed")
    assert "model [red]x[/red] [unclosed" in file.getvalue()


def test_a_pipe_gets_plain_lines_and_a_terminal_the_live_view() -> None:
    assert isinstance(make_progress(Console(file=io.StringIO())), PlainProgress)
    assert isinstance(
        make_progress(Console(file=io.StringIO(), force_terminal=True, _environ={"TERM": "xterm"})), LiveProgress
    )
    assert isinstance(
        make_progress(Console(file=io.StringIO(), force_terminal=True, _environ={"TERM": "dumb"})), PlainProgress
    )


@pytest.mark.parametrize("width", [130, 60, 40])
def test_a_terminal_shows_a_line_for_each_job_within_its_width_and_nothing_on_standard_output(width: int) -> None:
    out, err = run_in_terminal(width)
    assert out == "the table\n"
    lines = re.split(r"[\r\n]+", bare(err))
    jobs = [line for line in lines if line.startswith("train tiny.a-") and "done" not in line]
    assert jobs and all(len(line) <= width for line in jobs) and any("%" in line for line in jobs)
    assert any(re.match(r"all: \d of 8 steps", line) for line in lines)
    assert "note: [bold]as it stands[/bold]" in lines
    assert (
        any(line.startswith("generate tiny: FAILED in") for line in lines) and "exit code 1; log: jobs/g.log" in lines
    )
    assert any("loss 3" in line for line in jobs) == (width >= 100)


def test_no_color_is_honoured_and_the_cursor_comes_back() -> None:
    _, err = run_in_terminal(80, NO_COLOR="1")
    assert not re.search(r"\x1b\[(?:\d+;)*(?:3[0-9]|9[0-7])(?:;\d+)*m", err)
    assert err.rindex("\x1b[?25h") > err.rindex("\x1b[?25l")


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0s"), (59.9, "59s"), (125, "2m05s"), (3720, "1h02m")])
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
