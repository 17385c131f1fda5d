"""Claims: who may work on a step, when a holder counts as dead, and eight processes fighting over forty steps."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from harness.digest import key_of
from harness.store import Store, claims
from harness.store.claims import Busy, listing, live, take

ROOT = Path(__file__).resolve().parents[1]
STEPS = 40

HOLD = """
import sys, time
from pathlib import Path
from harness.store.claims import take
take(Path(sys.argv[1]), "a step")
print("held", flush=True)
time.sleep(600)
"""

# Works through all steps until they are finished. A marker made while working shows two at work on one step.
FIGHT = """
import os, random, signal, sys, time
from pathlib import Path
from harness.store.claims import Busy
from harness.digest import key_of
from harness.store import Done, Store

root, seed, steps = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
draw = random.Random(seed)
store = Store(root / "store")
left = list(range(steps))

def others(step):
    for marker in root.glob(f"{step}.*.working"):
        pid = marker.name.split(".")[1]
        try:
            if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX":
                return marker.name
        except (FileNotFoundError, ProcessLookupError):
            pass
    return None

while left:
    step = draw.choice(left)
    identity = {"step": step}
    try:
        with store.claim("train", key_of("train", identity), identity) as attempt:
            if name := others(step):
                (root / f"{step}.{os.getpid()}.violation").write_text(name)
            marker = root / f"{step}.{os.getpid()}.working"
            marker.touch()
            (attempt.work / "answer").write_text(f"{step} " * 1000)
            time.sleep(draw.uniform(0, 0.01))
            if draw.random() < 0.15:
                os.kill(os.getpid(), signal.SIGKILL)
            attempt.publish()
            marker.unlink()
            (root / f"{step}.{os.getpid()}.published").touch()
        left.remove(step)
    except Done:
        left.remove(step)
    except Busy:
        time.sleep(0.002)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "step"


def claim_of(folder: Path, **changes: Any) -> Path:
    """A claim like one of ours but for some facts about the holder, as its only trace."""
    claim = take(folder, "a step")
    body = {**json.loads(claim.file.read_text()), **changes}
    claim.release()
    file = folder / "0001.claim"
    file.write_text(json.dumps(body))
    return file


def touch_ago(file: Path, seconds: float) -> None:
    now = time.time()
    os.utime(file, (now - seconds, now - seconds))


def test_claims_are_numbered_and_ended(folder: Path) -> None:
    for number in (1, 2, 3):
        claim = take(folder, "a step")
        assert claim.number == number
        claim.end("failed", "oom", "out of memory")
    assert json.loads((folder / "0003.end").read_text())["kind"] == "oom"
    assert listing(folder) == sorted(f"{n:04d}.{what}" for n in (1, 2, 3) for what in ("claim", "end"))


def test_a_live_holder_keeps_others_out_until_it_is_killed(folder: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, folder], cwd=ROOT, stdout=subprocess.PIPE) as holder:
        assert holder.stdout and holder.stdout.readline() == b"held\n"
        with pytest.raises(Busy, match=f"process {holder.pid} on "):
            take(folder, "a step")
        holder.kill()
        os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)  # it stays a zombie
        assert take(folder, "a step").number == 2
        assert holder.wait() == -signal.SIGKILL


def test_a_process_id_used_again_is_another_process(folder: Path) -> None:
    claim_of(folder, start="1")
    assert take(folder, "a step").number == 2


def test_a_holder_from_before_a_reboot_is_dead(folder: Path) -> None:
    claim_of(folder, boot="another")
    assert take(folder, "a step").number == 2


@pytest.mark.parametrize("elsewhere", [{"host": "other"}, {"machine": "other"}, {"namespace": "pid:[1]"}])
def test_a_holder_that_cannot_be_seen_lives_by_its_heartbeat(folder: Path, elsewhere: dict[str, str]) -> None:
    file = claim_of(folder, **elsewhere, pid=1, start="1")
    touch_ago(file, claims.STALE - 10)
    with pytest.raises(Busy):
        take(folder, "a step")
    touch_ago(file, claims.STALE + 10)
    assert take(folder, "a step").number == 2


def test_staleness_goes_by_the_clock_of_the_file_system(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    claim_of(folder, host="other")
    monkeypatch.setattr(time, "time", lambda: 1e12)
    with pytest.raises(Busy):
        take(folder, "a step")


@pytest.mark.parametrize("content", ["", "{", '{"pid": 1}', "[]"])
def test_an_unreadable_claim_lives_by_its_heartbeat(folder: Path, content: str) -> None:
    folder.mkdir()
    file = folder / "0001.claim"
    file.write_text(content)
    with pytest.raises(Busy, match="unknown"):
        take(folder, "a step")
    touch_ago(file, claims.STALE + 10)
    assert take(folder, "a step").number == 2


def test_looking_leaves_no_trace(folder: Path) -> None:
    claim_of(folder, host="other")
    assert live(folder, listing(folder))
    assert listing(folder) == ["0001.claim"]


def test_the_heartbeat_beats_until_the_end(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "HEARTBEAT", 0.02)
    claim = take(folder, "a step")

    def beats(seconds: float) -> bool:
        touch_ago(claim.file, 1000)
        time.sleep(seconds)
        return time.time() - claim.file.stat().st_mtime < 500

    assert beats(0.5)
    claim.end("ok")
    time.sleep(0.1)
    assert not beats(0.2)


def test_a_lower_claim_that_still_lives_keeps_others_out(folder: Path) -> None:
    first = take(folder, "a step")
    claims.write_end(folder, 2, "failed")
    (folder / "0002.claim").write_text(first.file.read_text())
    with pytest.raises(Busy):
        take(folder, "a step")


def test_a_released_claim_leaves_nothing(folder: Path) -> None:
    take(folder, "a step").release()
    assert listing(folder) == []


def test_eight_processes_over_forty_steps_with_holders_killed(tmp_path: Path) -> None:
    """No step runs twice while its holder lives, none is lost, none is published twice, and nothing is damaged."""
    draw = random.Random(0)
    seeds = iter(range(100_000))

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", FIGHT, tmp_path, str(next(seeds)), str(STEPS)], cwd=ROOT)

    store = Store(tmp_path / "store")
    workers = [start() for _ in range(8)]
    killed = 0
    until = time.monotonic() + 60
    while len(store.finished("train")) < STEPS:
        assert time.monotonic() < until, "the steps were never finished"
        time.sleep(draw.uniform(0.01, 0.1))
        if killed < 25:
            draw.choice(workers).kill()
        for i, worker in enumerate(workers):
            if (code := worker.poll()) is not None and code != 0:
                assert code == -signal.SIGKILL
                killed += 1
                workers[i] = start()
    assert [worker.wait(timeout=30) for worker in workers if worker.poll() != -signal.SIGKILL].count(0) > 0
    for worker in workers:
        worker.wait()

    assert killed >= 8
    assert list(tmp_path.glob("*.violation")) == []
    for step in range(STEPS):
        assert len(list(tmp_path.glob(f"{step}.*.published"))) <= 1
        key = key_of("train", {"step": step})
        record = store.verify("train", key)
        assert record and record.file("answer").read_text() == f"{step} " * 1000
        assert len([p for p in record.path.parent.iterdir() if p.name.isdigit()]) == 1
    assert store.warnings == []
