"""What can be removed from a store: planned without touching anything, carried out without touching anything live."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from harness.digest import key_of
from harness.store import Record, Store, gc


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def identity(seed: int) -> dict[str, int]:
    return {"seed": seed}


def key(seed: int) -> str:
    return key_of("train", identity(seed))


def finish(store: Store, seed: int) -> Record:
    with store.claim("train", key(seed), identity(seed)) as attempt:
        (attempt.work / "model.safetensors").write_bytes(b"w" * 5000)
        (attempt.work / "curve.jsonl").write_text("{}\n")
        return attempt.publish()


def fail(store: Store, seed: int, content: bytes | None = b"c" * 300) -> None:
    with store.claim("train", key(seed), identity(seed)) as attempt:
        if content is not None:
            (attempt.work / "checkpoint").write_bytes(content)
        attempt.fail("oom", "out of memory")


def snapshot(root: Path) -> list[tuple[str, int]]:
    return sorted((str(p), p.stat().st_mtime_ns) for p in root.rglob("*"))


def test_a_tidy_store_has_nothing_to_remove(store: Store) -> None:
    finish(store, 0)
    assert gc.plan(store) == [] and gc.plan(Store(store.root / "absent")) == []


def test_the_views_of_runs_are_not_steps(store: Store) -> None:
    finish(store, 0)
    (store.root / "runs" / "demo").mkdir(parents=True)
    (store.root / "runs" / "demo" / "run.json").write_text("{}")
    assert store.kinds() == ["train"]
    assert [r.key for r in gc.plan(store, wanted=set())] == [key(0)]


def test_planning_changes_nothing(store: Store) -> None:
    finish(store, 0)
    fail(store, 1)
    before = snapshot(store.root)
    assert gc.plan(store, wanted=set())
    assert snapshot(store.root) == before


def test_unwanted_steps_go_and_wanted_ones_stay(store: Store) -> None:
    kept = finish(store, 0)
    finish(store, 1)
    fail(store, 2)
    removals = gc.plan(store, wanted={("train", key(0))})
    assert {(r.why, r.key) for r in removals} == {("unwanted step", key(1)), ("unwanted step", key(2))}
    assert all(r.bytes > 300 for r in removals)
    assert gc.carry_out(store, removals) == sum(r.bytes for r in removals)
    assert list(store.keys("train")) == [key(0)] and store.find("train", key(0)) == kept
    assert not (store.root / ".trash").exists()


def test_work_left_beside_a_result_goes(store: Store) -> None:
    record = finish(store, 0)
    left = record.path.parent / "0000.left"
    left.mkdir()
    (left / "checkpoint").write_bytes(b"c" * 300)
    (removal,) = gc.plan(store)
    assert (removal.why, removal.path, removal.bytes) == ("unfinished work", left, 300)
    gc.carry_out(store, [removal])
    assert not left.exists() and store.find("train", key(0)) == record


def test_of_an_unfinished_step_the_newest_work_with_something_in_it_stays(store: Store) -> None:
    fail(store, 0, b"oldest")
    fail(store, 0, b"newer")
    fail(store, 0, None)
    gc.carry_out(store, gc.plan(store))
    with store.claim("train", key(0), identity(0)) as attempt:
        assert [(p / "checkpoint").read_bytes() for p in attempt.earlier] == [b"newer"]
        attempt.fail("user", "enough")


def test_damaged_records_go(store: Store) -> None:
    finish(store, 0).file("curve.jsonl").unlink()
    assert store.find("train", key(0)) is None
    (removal,) = gc.plan(store)
    assert (removal.why, removal.bytes > 5000) == ("damaged record", True)
    gc.carry_out(store, [removal])
    assert gc.plan(store) == [] and finish(store, 0).attempt == 2


def test_given_up_weights_go_and_the_record_stays(store: Store) -> None:
    record = finish(store, 0)
    (removal,) = gc.plan(store, sheddable=[(record, ["model.safetensors"])])
    assert (removal.why, removal.bytes) == ("weights no longer needed", 5000)
    assert gc.carry_out(store, [removal]) == 5000
    assert (found := store.find("train", key(0))) and found.missing() == ["model.safetensors"]
    assert gc.plan(store, sheddable=[(record, ["model.safetensors"])]) == []


def test_weights_of_an_unwanted_step_are_counted_once(store: Store) -> None:
    record = finish(store, 0)
    assert [r.why for r in gc.plan(store, set(), [(record, ["model.safetensors"])])] == ["unwanted step"]


def test_nothing_of_a_live_step_is_planned(store: Store) -> None:
    fail(store, 0)
    fail(store, 0)
    record = finish(store, 1)
    store.shed(record, ["curve.jsonl"])
    with store.claim("train", key(0), identity(0)) as one, store.claim("train", key(1), identity(1), whole=True) as two:
        assert gc.plan(store, set(), [(record, ["model.safetensors"])]) == []
        one.fail("user", "enough")
        two.fail("user", "enough")


def test_a_step_claimed_after_the_plan_is_left_alone(store: Store) -> None:
    fail(store, 0)
    removals = gc.plan(store, wanted=set())
    with store.claim("train", key(0), identity(0)) as attempt:
        assert gc.carry_out(store, removals) == 0
        assert attempt.work.exists() and attempt.earlier[0].exists()
        attempt.publish()


def test_collecting_leaves_no_claim_behind(store: Store) -> None:
    record = finish(store, 0)
    gc.carry_out(store, gc.plan(store, sheddable=[(record, ["model.safetensors"])]))
    assert store.holder("train", key(0)) is None
    assert {p.name for p in record.path.parent.iterdir()} == {"0001", "0001.claim", "0001.end", "step.json"}


def test_a_plan_carried_out_twice_frees_nothing_more(store: Store) -> None:
    finish(store, 0)
    removals = gc.plan(store, wanted=set())
    assert gc.carry_out(store, removals) > 0
    assert gc.carry_out(store, removals) == 0
    assert not store.folder("train", key(0)).exists()


def test_what_a_killed_collection_or_an_old_import_left_goes(store: Store) -> None:
    finish(store, 0)
    for name, age in ((".trash/0", 0), (".import-old", 100_000), (".import-new", 0)):
        folder = store.root / name
        folder.mkdir(parents=True)
        (folder / "x").write_text("x" * 100)
        os.utime(folder, (time.time() - age,) * 2)
    removals = gc.plan(store)
    assert {r.path.name for r in removals} == {"0", ".import-old"}
    assert gc.carry_out(store, removals) >= 200
    assert (store.root / ".import-new").exists()
