"""Kill -9 at any moment: nothing half-written is ever seen, nothing finished is lost, and the next try goes through.

Once with kills at random times, and once systematically: a child process is killed before its first access to the
file system, then before its second, and so on until it gets through.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from harness.digest import key_of
from harness.store import Done, Record, Store, gc, transfer

ROOT = Path(__file__).resolve().parents[1]
IDENTITY = {"seed": 0}
KEY = key_of("train", IDENTITY)
WEIGHTS, CURVE = b"w" * 300_000, "loss\n" * 100

WRITER = """
import sys
from pathlib import Path
from harness.store import Store
from harness.digest import key_of
from harness.store.claims import Busy

store = Store(Path(sys.argv[1]))
for seed in range(int(sys.argv[2]), 100_000):
    identity = {"seed": seed}
    key = key_of("train", identity)
    if store.find("train", key):
        continue
    with store.claim("train", key, identity) as attempt:
        (attempt.work / "weights").write_bytes(b"w" * 300_000)
        (attempt.work / "curve.jsonl").write_text("loss\\n" * 100)
        attempt.publish()
    print(seed, flush=True)
"""


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A killed process loses nothing that the kernel has; only a power cut would."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


def do_step(store: Store) -> Record:
    with store.claim("train", KEY, IDENTITY) as attempt:
        (attempt.work / "artifact").mkdir()
        (attempt.work / "artifact" / "model.safetensors").write_bytes(WEIGHTS)
        (attempt.work / "curve.jsonl").write_text(CURVE)
        return attempt.publish(cost={"seconds": 1})


def killed_at(n: int, act: Callable[[], object]) -> bool:
    """Run `act` in a child that is killed before its n-th access to the file system; False if it got through."""
    pid = os.fork()
    if pid == 0:
        seen = 0

        def hook(event: str, _: tuple[object, ...]) -> None:
            nonlocal seen
            if event == "open" or event.startswith("os."):
                seen += 1
                if seen == n:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        try:
            act()
        except BaseException:
            os._exit(1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code in (0, -signal.SIGKILL), "the child failed by itself"
    return code != 0


def at_every_access(
    tmp_path: Path, prepare: Callable[[Store], object], act: Callable[[Store], object], check: Callable[[Store], object]
) -> int:
    """Kill `act` before each access in turn, each time in a fresh store; then check. Returns the number of accesses."""
    n = 0
    while True:
        n += 1
        root = tmp_path / str(n)
        store = Store(root)
        prepare(store)
        killed = killed_at(n, partial(act, Store(root)))
        after = Store(root)
        check(after)
        assert after.warnings == [], f"damage after a kill at access {n}"
        if not killed:
            return n


def check_whole(record: Record | None) -> None:
    if record:
        assert record.missing() == []
        assert record.file("artifact/model.safetensors").read_bytes() == WEIGHTS
        assert record.file("curve.jsonl").read_text() == CURVE


def check_step(store: Store) -> None:
    """Whole or not there, and then claimed again at once and done."""
    record = store.verify("train", KEY)
    check_whole(record)
    try:
        check_whole(do_step(store))
        assert record is None
    except Done as done:
        assert done.record == record
    assert store.finished("train") == {KEY}


def test_killed_anywhere_in_a_first_attempt(tmp_path: Path) -> None:
    assert at_every_access(tmp_path, lambda _: None, do_step, check_step) > 15


def fail_twice(store: Store) -> None:
    for _ in range(2):
        with store.claim("train", KEY, IDENTITY) as attempt:
            (attempt.work / "checkpoint").write_text("half")
            attempt.fail("oom", "out of memory")


def test_killed_anywhere_in_a_third_attempt(tmp_path: Path) -> None:
    assert at_every_access(tmp_path, fail_twice, do_step, check_step) > 20


def test_a_checkpoint_survives_a_kill_anywhere(tmp_path: Path) -> None:
    def checkpoint_still_there(store: Store) -> None:
        if store.find("train", KEY) is None:
            with store.claim("train", KEY, IDENTITY) as attempt:
                assert sum((p / "checkpoint").exists() for p in attempt.earlier) == 2
                attempt.fail("user", "enough")

    at_every_access(tmp_path, fail_twice, do_step, checkpoint_still_there)


def test_killed_anywhere_while_shedding(tmp_path: Path) -> None:
    def shed(store: Store) -> None:
        record = store.find("train", KEY)
        assert record
        store.shed(record, ["artifact/model.safetensors"])

    def check(store: Store) -> None:
        assert (record := store.find("train", KEY))
        assert record.missing() in ([], ["artifact/model.safetensors"])
        shed(store)
        assert record.missing() == ["artifact/model.safetensors"] and store.find("train", KEY) == record

    at_every_access(tmp_path, do_step, shed, check)


def test_killed_anywhere_while_a_damaged_record_is_set_aside(tmp_path: Path) -> None:
    def damage(store: Store) -> None:
        do_step(store).file("curve.jsonl").unlink()

    def check(store: Store) -> None:
        store.find("train", KEY)
        store.warnings.clear()
        check_step(store)

    at_every_access(tmp_path, damage, lambda store: store.find("train", KEY), check)


def test_killed_anywhere_while_an_unwanted_step_is_collected(tmp_path: Path) -> None:
    def check(store: Store) -> None:
        check_whole(store.verify("train", KEY))
        gc.carry_out(store, gc.plan(store, wanted=set()))
        assert store.finished("train") == set() and gc.plan(store, wanted=set()) == []

    at_every_access(tmp_path, do_step, lambda store: gc.carry_out(store, gc.plan(store, wanted=set())), check)


def test_killed_anywhere_while_importing(tmp_path: Path) -> None:
    source = Store(tmp_path / "source")
    do_step(source)
    file = tmp_path / "results.harness"
    transfer.export(source, [("train", KEY)], file, manifest={})

    def check(store: Store) -> None:
        record = store.verify("train", KEY)
        done = transfer.import_(store, file)
        assert (done.new, done.present) == (((), (("train", KEY),)) if record else ((("train", KEY),), ()))

    at_every_access(tmp_path / "targets", lambda _: None, lambda store: transfer.import_(store, file), check)


@pytest.mark.parametrize("seed", range(3))
def test_a_writer_killed_at_random_moments(tmp_path: Path, seed: int) -> None:
    """What a writer reported as published stays; everything found is whole; a new writer goes on at once."""
    draw = random.Random(seed)
    reported: set[int] = set()
    for _ in range(8):
        command = [sys.executable, "-c", WRITER, tmp_path / "store", str(len(reported))]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout
            first = writer.stdout.readline()
            time.sleep(draw.uniform(0, 0.05))
            writer.kill()
            reported |= {int(line) for line in [first, *writer.stdout.read().splitlines()]}
        store = Store(tmp_path / "store")
        for key in store.keys("train"):
            if record := store.verify("train", key):
                assert record.file("weights").stat().st_size == 300_000
        assert {key_of("train", {"seed": s}) for s in reported} <= store.finished("train")
        assert store.warnings == []
    assert len(reported) >= 8
