"""The local runner with real processes: progress, logs, exit codes, and that nothing survives any kill -9.

Every test of a kill uses a worker with a child, a grandchild that ignores SIGTERM, one that closed all its file
descriptors, and, where the supervisor lives to see it, one that left the process group.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.errors import HarnessError
from harness.runners.base import Ended, Event, Job, Progress
from harness.runners.local import LocalRunner
from harness.runners.supervisor import processes

ROOT = Path(__file__).resolve().parents[1]

# A family of processes that notes every process id in a file and then waits to be killed.
FAMILY = """
import os, signal, sys, time

def note():
    with open(sys.argv[1], "a") as f:
        f.write(f"{os.getpid()}\\n")

def stay(stubborn):
    note()
    if stubborn:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(600)

if os.fork() == 0:                       # the child ...
    if os.fork() == 0:                   # ... and its stubborn child
        stay(True)
    stay(True)
if os.fork() == 0:
    os.closerange(0, 64)
    stay(True)
if "leaver" in sys.argv and os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        stay(True)
    os._exit(0)
stay("stubborn" in sys.argv)
"""

DRIVER = """
import sys, time
from pathlib import Path
from harness.runners.base import Job
from harness.runners.local import LocalRunner

runner = LocalRunner()
runner.submit(Job("job", (sys.executable, "-c", sys.argv[1], *sys.argv[2:]), {}, Path(sys.argv[2] + ".log")))
while True:
    runner.poll(1.0)
"""


@pytest.fixture
def runner() -> Iterator[LocalRunner]:
    runner = LocalRunner(grace=0.5)
    yield runner
    runner.close()


def python(code: str, *args: str) -> tuple[str, ...]:
    return (sys.executable, "-c", code, *args)


def alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat[stat.rindex(")") + 2] not in "ZX"


def family(notes: Path, size: int) -> list[int]:
    """The process ids in the notes, once all of them are there."""
    until = time.monotonic() + 20
    while time.monotonic() < until:
        pids = notes.read_text().split() if notes.exists() else []
        if len(pids) == size:
            return [int(pid) for pid in pids]
        time.sleep(0.01)
    pytest.fail(f"the family of {size} never stood: {notes.read_text() if notes.exists() else 'nobody'}")


def assert_gone(pids: list[int], seconds: float = 5.0) -> None:
    until = time.monotonic() + seconds
    while left := [pid for pid in pids if alive(pid)]:
        assert time.monotonic() < until, f"still alive after {seconds} s: {left}"
        time.sleep(0.01)


def parent(pid: int) -> int:
    stat = Path(f"/proc/{pid}/stat").read_text()
    return int(stat[stat.rindex(")") + 2 :].split()[1])


def until_ended(runner: LocalRunner, seconds: float = 20.0) -> list[Event]:
    events: list[Event] = []
    until = time.monotonic() + seconds
    while not any(isinstance(event, Ended) for event in events):
        assert time.monotonic() < until, "the job never ended"
        events += runner.poll(0.2)
    return events


def run(runner: LocalRunner, log: Path, *argv: str) -> Ended:
    runner.submit(Job("job", argv, {}, log))
    ended = until_ended(runner)[-1]
    assert isinstance(ended, Ended)
    return ended


@pytest.mark.parametrize("code", [0, 3, 100])
def test_exit_code_is_reported(runner: LocalRunner, tmp_path: Path, code: int) -> None:
    ended = run(runner, tmp_path / "log", *python(f"raise SystemExit({code})"))
    assert (ended.code, ended.signal) == (code, None)


def test_signal_is_reported(runner: LocalRunner, tmp_path: Path) -> None:
    ended = run(runner, tmp_path / "log", *python("import os; os.kill(os.getpid(), 9)"))
    assert (ended.code, ended.signal) == (None, signal.SIGKILL)


def test_output_goes_to_the_log_and_its_end_is_the_tail(runner: LocalRunner, tmp_path: Path) -> None:
    code = "import sys; [print('line', i) for i in range(100)]; print('0%\\r100%'); sys.exit('the last word')"
    log = tmp_path / "deep" / "job.log"
    log.parent.mkdir()
    log.write_text("from an earlier run\n")
    ended = run(runner, log, *python(code))
    text = log.read_text()
    assert text.startswith("from an earlier run\n") and "line 0\n" in text and "the last word" in text
    assert "the last word" in ended.tail and "100%" in ended.tail and "0%\r" not in ended.tail
    assert len(ended.tail.splitlines()) <= 21


def test_tail_of_a_silent_job_is_empty_though_its_log_is_not(runner: LocalRunner, tmp_path: Path) -> None:
    (tmp_path / "log").write_text("from an earlier run\n")
    assert run(runner, tmp_path / "log", *python("")).tail == ""


def test_a_command_that_does_not_exist_ends_with_127_and_says_so(runner: LocalRunner, tmp_path: Path) -> None:
    ended = run(runner, tmp_path / "log", "no-such-program-anywhere")
    assert ended.code == 127 and "no-such-program-anywhere" in ended.tail


def test_an_unwritable_log_is_a_clear_error(runner: LocalRunner, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(HarnessError, match="cannot read or write"):
        runner.submit(Job("job", python(""), {}, tmp_path / "file" / "log"))


def test_two_running_jobs_cannot_share_an_id(runner: LocalRunner, tmp_path: Path) -> None:
    job = Job("job", python("import time; time.sleep(60)"), {}, tmp_path / "log")
    runner.submit(job)
    with pytest.raises(ValueError, match="job"):
        runner.submit(job)


def test_environment_is_added_to_ours(runner: LocalRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OURS", "1")
    code = "import os; print(os.environ['OURS'], os.environ['THEIRS'])"
    runner.submit(Job("job", python(code), {"THEIRS": "2"}, tmp_path / "log"))
    assert isinstance(ended := until_ended(runner)[-1], Ended) and ended.tail == "1 2"


def test_a_worker_gets_the_usual_signals_back(runner: LocalRunner, tmp_path: Path) -> None:
    code = "import signal as s; print([s.getsignal(n) is not s.SIG_IGN for n in (s.SIGINT, s.SIGTERM, s.SIGCHLD)])"
    assert run(runner, tmp_path / "log", *python(code)).tail == "[True, True, True]"


def test_progress_arrives_in_order_and_garbage_is_ignored(runner: LocalRunner, tmp_path: Path) -> None:
    code = """
import os, json
fd = int(os.environ["HARNESS_EVENTS_FD"])
os.write(fd, b'not json\\n[1]\\n\\xff\\xfe\\n')
for i in range(1000):
    os.write(fd, json.dumps({"key": "k", "done": i}).encode() + b"\\n")
os.write(fd, b'{"never": "ended')
"""
    runner.submit(Job("job", python(code), {}, tmp_path / "log"))
    *progress, ended = until_ended(runner)
    assert [e.body["done"] for e in progress if isinstance(e, Progress)] == list(range(1000))
    assert isinstance(ended, Ended) and ended.code == 0


def test_a_flood_of_progress_blocks_nobody_for_ever(runner: LocalRunner, tmp_path: Path) -> None:
    code = """
import os
fd = int(os.environ["HARNESS_EVENTS_FD"])
for i in range(40):
    os.write(fd, b"x" * 100_000 + b"\\n" if i % 2 else b'{"pad": "' + b"y" * 50_000 + b'"}\\n')
"""
    runner.submit(Job("job", python(code), {}, tmp_path / "log"))
    *progress, ended = until_ended(runner)
    assert isinstance(ended, Ended) and ended.code == 0 and len(progress) == 20


def test_poll_waits_no_longer_than_told(runner: LocalRunner, tmp_path: Path) -> None:
    runner.submit(Job("job", python("import time; time.sleep(60)"), {}, tmp_path / "log"))
    start = time.monotonic()
    assert runner.poll(0.2) == []
    assert 0.15 < time.monotonic() - start < 2.0


def test_a_worker_may_close_its_events_and_go_on(runner: LocalRunner, tmp_path: Path) -> None:
    code = "import os, time; os.close(int(os.environ['HARNESS_EVENTS_FD'])); time.sleep(0.5)"
    used = time.process_time()
    assert run(runner, tmp_path / "log", *python(code)).code == 0
    assert time.process_time() - used < 0.3  # and the driver does not spin meanwhile


def test_what_a_worker_leaves_behind_is_killed_when_it_ends(runner: LocalRunner, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    code = FAMILY.replace('stay("stubborn" in sys.argv)', "time.sleep(0.5); note(); sys.exit(7)")
    runner.submit(Job("job", python(code, str(notes), "leaver"), {}, tmp_path / "log"))
    assert isinstance(ended := until_ended(runner)[-1], Ended) and ended.code == 7
    assert not [pid for pid in family(notes, 5) if alive(pid)]


def test_kill_of_the_worker_ends_all(runner: LocalRunner, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    code = FAMILY.replace(
        'stay("stubborn" in sys.argv)', 'open(sys.argv[1] + ".worker", "w").write(str(os.getpid())); stay(0)'
    )
    runner.submit(Job("job", python(code, str(notes), "leaver"), {}, tmp_path / "log"))
    pids = family(notes, 5)
    os.kill(int((tmp_path / "notes.worker").read_text()), signal.SIGKILL)
    assert isinstance(ended := until_ended(runner, 5.0)[-1], Ended) and ended.signal == signal.SIGKILL
    assert not [pid for pid in pids if alive(pid)]


def test_kill_of_the_supervisor_ends_all(runner: LocalRunner, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    runner.submit(Job("job", python(FAMILY, str(notes), "stubborn"), {}, tmp_path / "log"))
    pids = family(notes, 4)
    (group,) = {os.getpgid(pid) for pid in pids}
    os.kill(group, signal.SIGKILL)
    assert isinstance(ended := until_ended(runner, 5.0)[-1], Ended) and ended.signal == signal.SIGKILL
    assert not [pid for pid in [*pids, group] if alive(pid)]


def test_kill_of_the_supervisor_ends_the_worker_even_if_the_driver_looks_away(
    runner: LocalRunner, tmp_path: Path
) -> None:
    notes = tmp_path / "notes"
    runner.submit(
        Job(
            "job",
            python("import os,sys,time; open(sys.argv[1],'w').write(str(os.getpid())); time.sleep(600)", str(notes)),
            {},
            tmp_path / "log",
        )
    )
    (worker,) = family(notes, 1)
    os.kill(parent(worker), signal.SIGKILL)
    assert_gone([worker])


def test_kill_of_the_driver_ends_all(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    command = [*python(DRIVER, FAMILY, str(notes), "stubborn", "leaver")]
    with subprocess.Popen(command, cwd=ROOT) as driver:
        pids = family(notes, 5)
        supervisor = next(group for pid in pids if (group := os.getpgid(pid)) not in pids)
        driver.kill()
        assert_gone([*pids, supervisor])


def test_a_forked_child_of_the_driver_does_not_keep_jobs_alive(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    code = DRIVER.replace("while True:", "import os\nif os.fork() == 0:\n    time.sleep(20); os._exit(0)\nwhile True:")
    with subprocess.Popen([*python(code, FAMILY, str(notes), "stubborn")], cwd=ROOT) as driver:
        pids = family(notes, 4)
        forked = next(pid for pid in processes_of(driver.pid) if os.getpgid(pid) == os.getpgid(driver.pid))
        driver.kill()
        try:
            assert_gone(pids)
            assert alive(forked)
        finally:
            os.kill(forked, signal.SIGKILL)


def processes_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.parametrize("delay", [0.0, 0.01, 0.02, 0.03, 0.05, 0.08])
def test_kill_of_the_driver_while_a_job_starts(tmp_path: Path, delay: float) -> None:
    code = DRIVER.replace(
        "while True:", "print(next(iter(runner._running.values())).process.pid, flush=True)\nwhile True:"
    )
    with subprocess.Popen([*python(code, FAMILY, str(tmp_path / "notes"))], cwd=ROOT, stdout=subprocess.PIPE) as driver:
        assert driver.stdout
        supervisor = int(driver.stdout.readline())
        time.sleep(delay)
        driver.kill()
        assert_gone([supervisor])
        assert not processes(supervisor)


def test_cancel_lets_a_worker_end_itself(runner: LocalRunner, tmp_path: Path) -> None:
    code = "import signal,sys,time; signal.signal(15, lambda *_: sys.exit(5)); print('up', flush=True); time.sleep(60)"
    runner.submit(Job("job", python(code), {}, tmp_path / "log"))
    while "up" not in (tmp_path / "log").read_text():
        time.sleep(0.01)
    runner.cancel("job")
    assert isinstance(ended := until_ended(runner)[-1], Ended) and ended.code == 5


def test_cancel_of_a_stubborn_family_is_final(runner: LocalRunner, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    runner.submit(Job("job", python(FAMILY, str(notes), "stubborn", "leaver"), {}, tmp_path / "log"))
    pids = family(notes, 5)
    runner.cancel("job")
    runner.cancel("unknown")
    assert isinstance(ended := until_ended(runner, 5.0)[-1], Ended) and ended.signal == signal.SIGKILL
    assert not [pid for pid in pids if alive(pid)]


def test_close_leaves_no_process(tmp_path: Path) -> None:
    runner = LocalRunner(grace=0.3)
    for name in ("a", "b"):
        job = Job(name, python(FAMILY, str(tmp_path / name), "stubborn", "leaver"), {}, tmp_path / f"{name}.log")
        runner.submit(job)
    pids = family(tmp_path / "a", 5) + family(tmp_path / "b", 5)
    runner.close()
    assert not [pid for pid in pids if alive(pid)]


def test_no_file_descriptor_is_left_open(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    runner = LocalRunner()
    for i in range(5):
        run(runner, tmp_path / "log", *python(f"print({json.dumps(str(i))})"))
    assert len(list(Path("/proc/self/fd").iterdir())) == before
