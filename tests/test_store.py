"""The store: finding, claiming, publishing, damage, shedding, full disks, and what the user is told."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from harness.digest import IDENTITY, digest, key_of
from harness.errors import HarnessError, StepFailed
from harness.store import Busy, Done, Record, Store
from harness.store.claims import take
from harness.store.disk import DiskFull, write_whole

IDENTITY_A = {"model": "tiny", "seed": 0, "params": {"lr": 1e-4}}
KEY_A = key_of("train", IDENTITY_A)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def finish(store: Store, identity: dict[str, Any] = IDENTITY_A, kind: str = "train", **publish: Any) -> Record:
    """A finished step with two outputs."""
    with store.claim(kind, key_of(kind, identity), identity) as attempt:
        (attempt.work / "artifact").mkdir()
        (attempt.work / "artifact" / "model.safetensors").write_bytes(b"w" * 5000)
        (attempt.work / "curve.jsonl").write_text('{"loss": 1.0}\n')
        return attempt.publish(**publish)


def test_a_published_step_is_found_again_with_all_it_recorded(store: Store) -> None:
    published = finish(store, cost={"seconds": 1.5}, extra={"steps": 60}, provenance={"torch": "2.13"})
    found = Store(store.root).find("train", KEY_A)
    assert found == published
    assert (found.kind, found.key, found.attempt, found.status) == ("train", KEY_A, 1, "ok")
    assert (found.identity, found.cost, found.extra) == (IDENTITY_A, {"seconds": 1.5}, {"steps": 60})
    assert found.outputs["curve.jsonl"]["bytes"] == 14 and len(found.outputs["curve.jsonl"]["sha256"]) == 64
    assert found.provenance["torch"] == "2.13" and found.provenance["pid"] == os.getpid()
    assert found.provenance["started"] <= found.provenance["ended"]
    assert found.file("artifact/model.safetensors").read_bytes() == b"w" * 5000
    assert found.missing() == []


def test_the_layout_on_disk(store: Store) -> None:
    finish(store)
    folder = store.root / "train" / KEY_A[:2] / KEY_A
    assert (store.root / "FORMAT").read_text() == "1\n"
    assert {p.name for p in folder.iterdir()} == {"step.json", "0001", "0001.claim", "0001.end"}
    hashed = json.loads((folder / "step.json").read_text())
    assert hashed == {"identity": IDENTITY, "kind": "train", **IDENTITY_A}
    assert digest(hashed)[:24] == KEY_A


def test_a_diverged_step_is_a_result(store: Store) -> None:
    finish(store, status="diverged")
    assert (record := store.find("train", KEY_A)) and record.status == "diverged"
    with pytest.raises(Done):
        store.claim("train", KEY_A, IDENTITY_A)


def test_looking_creates_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    assert store.find("train", KEY_A) is None and store.finished("train") == set() and store.kinds() == []
    assert store.history("train", KEY_A) == [] and store.holder("train", KEY_A) is None
    assert list(tmp_path.iterdir()) == []


def test_finished_lists_keys_of_one_kind(store: Store) -> None:
    keys = {finish(store, {"seed": seed}).key for seed in range(5)}
    finish(store, {"seed": 0}, kind="data")
    with store.claim("train", KEY_A, IDENTITY_A) as attempt:
        attempt.fail("oom", "out of memory")
    assert store.finished("train") == keys
    assert store.kinds() == ["data", "train"] and set(store.keys("train")) == keys | {KEY_A}


def test_a_step_finished_at_the_second_attempt_is_listed(store: Store) -> None:
    with store.claim("train", KEY_A, IDENTITY_A) as attempt:
        attempt.fail("oom", "out of memory")
    finish(store)
    assert store.finished("train") == {KEY_A}


def test_a_key_must_belong_to_its_identity(store: Store) -> None:
    with pytest.raises(ValueError, match="not the key"):
        store.claim("train", KEY_A, {**IDENTITY_A, "seed": 1})


def test_a_finished_step_cannot_be_claimed(store: Store) -> None:
    record = finish(store)
    with pytest.raises(Done) as done:
        store.claim("train", KEY_A, IDENTITY_A)
    assert done.value.record == record


def test_a_held_step_is_busy_and_says_who_holds_it(store: Store) -> None:
    with store.claim("train", KEY_A, IDENTITY_A) as attempt:
        with pytest.raises(Busy, match=f"process {os.getpid()} on ") as busy:
            Store(store.root).claim("train", KEY_A, IDENTITY_A)
        assert store.holder("train", KEY_A) == busy.value.holder
        attempt.fail("user", "no")
    assert store.holder("train", KEY_A) is None


def test_the_next_attempt_reads_what_failed_ones_left(store: Store) -> None:
    for number in (1, 2):
        with store.claim("train", KEY_A, IDENTITY_A, log=Path("/logs/job")) as attempt:
            (attempt.work / "checkpoint").write_text(f"of {number}")
            attempt.fail("oom", "out of memory")
    with store.claim("train", KEY_A, IDENTITY_A) as attempt:
        assert attempt.number == 3
        assert [(p / "checkpoint").read_text() for p in attempt.earlier] == ["of 2", "of 1"]
        attempt.publish()
    assert [(e.attempt, e.outcome, e.kind, e.message, e.log) for e in store.history("train", KEY_A)] == [
        (1, "failed", "oom", "out of memory", "/logs/job"),
        (2, "failed", "oom", "out of memory", "/logs/job"),
        (3, "ok", "", "", ""),
    ]
    assert not [p for p in store.folder("train", KEY_A).iterdir() if p.suffix in (".left", ".work")]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ZeroDivisionError("1/0"), "bug"),
        (KeyboardInterrupt(), "interrupted"),
        (SystemExit(1), "interrupted"),
        (MemoryError(), "oom"),
        (HarnessError("no such file"), "user"),
        (StepFailed("killed by signal 9", kind="killed"), "killed"),
    ],
)
def test_an_exception_ends_the_attempt_and_passes_on(store: Store, error: BaseException, kind: str) -> None:
    with pytest.raises(type(error)), store.claim("train", KEY_A, IDENTITY_A):
        raise error
    (ended,) = store.history("train", KEY_A)
    assert (ended.outcome, ended.kind) == ("failed", kind)
    finish(store)


def test_leaving_without_publishing_is_a_failure(store: Store) -> None:
    with store.claim("train", KEY_A, IDENTITY_A):
        pass
    assert store.history("train", KEY_A)[0].kind == "bug"


def test_an_output_that_is_a_link_is_refused(store: Store, tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="symbolic link"), store.claim("train", KEY_A, IDENTITY_A) as attempt:
        (attempt.work / "data").symlink_to(tmp_path)
        attempt.publish()
    assert store.find("train", KEY_A) is None


def test_a_step_published_between_the_look_and_the_claim_is_done(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def publish_first(*args: Any) -> Any:
        monkeypatch.undo()
        finish(store)
        return take(*args)

    monkeypatch.setattr("harness.store.store.take", publish_first)
    with pytest.raises(Done):
        store.claim("train", KEY_A, IDENTITY_A)
    assert [e.outcome for e in store.history("train", KEY_A)] == ["ok", "superseded"]
    assert store.holder("train", KEY_A) is None


# Two holders of one step: possible only across machines, when one seemed dead for three minutes.


def test_a_late_publisher_gets_the_result_that_stands(store: Store) -> None:
    late = store.claim("train", KEY_A, IDENTITY_A)
    (late.work / "answer").write_text("late")
    pretend_dead(store, late.number)
    winner = finish(store)
    late.work.mkdir(exist_ok=True)  # even if it goes on writing
    (late.work / "answer").write_text("late")
    assert late.publish() == winner
    assert store.find("train", KEY_A) == winner
    assert [e.outcome for e in store.history("train", KEY_A)] == ["superseded", "ok"]


def test_a_late_publisher_yields_to_one_at_work(store: Store) -> None:
    late = store.claim("train", KEY_A, IDENTITY_A)
    pretend_dead(store, late.number)
    with store.claim("train", KEY_A, IDENTITY_A) as attempt:
        with pytest.raises(Busy):
            late.publish()
        (attempt.work / "answer").write_text("mine")
        attempt.publish()
    assert (record := store.find("train", KEY_A)) and record.file("answer").read_text() == "mine"


def pretend_dead(store: Store, number: int) -> None:
    """Make a claim of ours look like one of a process that is gone."""
    file = store.folder("train", KEY_A) / f"{number:04d}.claim"
    file.write_text(json.dumps({**json.loads(file.read_text()), "start": "1"}))


# Damage


def damage_json(record: Record) -> None:
    (record.path / "record.json").write_bytes((record.path / "record.json").read_bytes()[:-20])


def damage_record_gone(record: Record) -> None:
    (record.path / "record.json").unlink()


def damage_empty(record: Record) -> None:
    (record.path / "record.json").write_text("")


def damage_shape(record: Record) -> None:
    (record.path / "record.json").write_text('{"kind": "train"}')


def damage_other_key(record: Record) -> None:
    text = (record.path / "record.json").read_text()
    (record.path / "record.json").write_text(text.replace(KEY_A, "0" * 24))


def damage_output_gone(record: Record) -> None:
    record.file("curve.jsonl").unlink()


def damage_output_short(record: Record) -> None:
    os.truncate(record.file("artifact/model.safetensors"), 10)


def damage_escape(record: Record) -> None:
    text = (record.path / "record.json").read_text()
    (record.path / "record.json").write_text(text.replace("curve.jsonl", "../../x"))


@pytest.mark.parametrize(
    "damage",
    [
        *(damage_json, damage_record_gone, damage_empty, damage_shape, damage_other_key),
        *(damage_output_gone, damage_output_short, damage_escape),
    ],
)
def test_a_damaged_record_is_set_aside_named_and_redone(store: Store, damage: Any) -> None:
    damage(finish(store))
    assert store.find("train", KEY_A) is None
    (warning,) = store.warnings
    aside = store.folder("train", KEY_A) / "0001.damaged"
    assert str(aside) in warning and "\n" not in warning and aside.is_dir()
    assert [e.outcome for e in store.history("train", KEY_A)] == ["damaged"]
    assert finish(store).attempt == 2
    assert (record := store.find("train", KEY_A)) and record.attempt == 2 and len(store.warnings) == 1


def test_changed_bytes_are_found_by_verify_alone(store: Store) -> None:
    record = finish(store)
    record.file("artifact/model.safetensors").write_bytes(b"v" * 5000)
    assert store.find("train", KEY_A) == record and store.warnings == []
    assert store.verify("train", KEY_A) is None
    assert "model.safetensors" in store.warnings[0]


def test_verify_accepts_what_is_whole(store: Store) -> None:
    record = finish(store)
    store.shed(record, ["artifact/model.safetensors"])
    assert store.verify("train", KEY_A) == record and store.warnings == []


# Shedding


def test_shed_outputs_are_missing_but_not_damage(store: Store) -> None:
    record = finish(store)
    before = (record.path / "record.json").read_bytes()
    assert store.shed(record, ["artifact/model.safetensors"]) == 5000
    assert store.shed(record, ["artifact/model.safetensors"]) == 0
    found = Store(store.root).find("train", KEY_A)
    assert found == record and found.missing() == ["artifact/model.safetensors"]
    assert (record.path / "record.json").read_bytes() == before


def test_shedding_twice_keeps_both_notes(store: Store) -> None:
    record = finish(store)
    store.shed(record, ["artifact/model.safetensors"])
    store.shed(record, ["curve.jsonl"])
    assert (found := store.find("train", KEY_A)) and len(found.missing()) == 2 and store.warnings == []


def test_a_file_lost_beside_a_shed_one_is_damage(store: Store) -> None:
    record = finish(store)
    store.shed(record, ["artifact/model.safetensors"])
    record.file("curve.jsonl").unlink()
    assert store.find("train", KEY_A) is None and "curve.jsonl" in store.warnings[0]


def test_shed_refuses_what_is_no_output(store: Store) -> None:
    with pytest.raises(ValueError, match=r"record\.json"):
        store.shed(finish(store), ["record.json"])


def test_shed_outputs_can_be_made_again_and_the_first_result_stands(store: Store) -> None:
    first = finish(store)
    store.shed(first, ["artifact/model.safetensors"])
    assert store.find("train", KEY_A, whole=True) is None
    with store.claim("train", KEY_A, IDENTITY_A, whole=True) as attempt:
        (attempt.work / "artifact").mkdir()
        (attempt.work / "artifact" / "model.safetensors").write_bytes(b"w" * 5000)
        again = attempt.publish()
    assert store.find("train", KEY_A, whole=True) == again and again.attempt == 2
    assert store.find("train", KEY_A) == first
    with pytest.raises(Done):
        store.claim("train", KEY_A, IDENTITY_A, whole=True)


# What the user is told


def test_a_store_path_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(HarnessError, match="must be a folder"):
            Store(path)


def test_an_unknown_format(tmp_path: Path) -> None:
    (tmp_path / "FORMAT").write_text("2\n")
    with pytest.raises(HarnessError, match="unknown store format") as error:
        Store(tmp_path)
    assert "'2'" in str(error.value)


def test_a_folder_with_other_things_is_not_taken_for_a_store(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(HarnessError, match="not a store"):
        Store(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_store_that_is_not_writable() -> None:
    code = (
        "import os, sys; from pathlib import Path\n"
        "from harness.store import Store; from harness.errors import HarnessError\n"
        "if os.getuid() == 0: os.setuid(65534)\n"
        "try: Store(Path(sys.argv[1]))\n"
        "except HarnessError as error: print(error)"
    )
    open_folder = Path(tempfile.mkdtemp())  # the folders of pytest can be entered by their owner only
    open_folder.chmod(0o555)
    try:
        said = subprocess.run(
            [sys.executable, "-c", code, open_folder / "store"],
            cwd=Path(__file__).parents[1],
            capture_output=True,
            text=True,
            check=True,
        )
    finally:
        open_folder.rmdir()
    assert "not writable" in said.stdout, said


def test_a_write_that_finds_no_space_says_so_and_leaves_the_store_sound(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish(store, {"seed": 1})
    attempt = store.claim("train", KEY_A, IDENTITY_A)
    (attempt.work / "curve.jsonl").write_text("x")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", no_space)
        with pytest.raises(DiskFull, match="disk is full") as error:
            attempt.publish()
    assert (
        "MiB are left" in str(error.value) and "harness gc" in str(error.value) and str(store.root) in str(error.value)
    )
    assert store.history("train", KEY_A)[0].kind == "disk"
    assert store.find("train", KEY_A) is None and store.warnings == []
    assert finish(store).attempt == 2


def no_space(_: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_an_error_wrapped_by_a_library_is_still_a_full_disk(store: Store) -> None:
    with pytest.raises(DiskFull), store.claim("train", KEY_A, IDENTITY_A):
        raise RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)")
    with pytest.raises(DiskFull), store.claim("train", KEY_A, IDENTITY_A):
        try:
            no_space(0)
        except OSError as cause:
            raise RuntimeError("could not save") from cause
    assert [e.kind for e in store.history("train", KEY_A)] == ["disk", "disk"]


def test_a_claim_without_space_for_its_end_is_taken_back(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    attempt = store.claim("train", KEY_A, IDENTITY_A)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", lambda *_: no_space(0))
        attempt.fail("oom", "out of memory")
    assert store.holder("train", KEY_A) is None
    assert finish(store).attempt == 2


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)


def test_a_file_size_limit_is_reported(store: Store) -> None:
    attempt = store.claim("train", KEY_A, IDENTITY_A)
    (attempt.work / "x").write_text("x" * 200)
    with file_size_limit(100), pytest.raises(DiskFull, match="size limit"):
        attempt.publish()
    assert store.find("train", KEY_A) is None
    assert finish(store).status == "ok"


def test_a_small_file_that_cannot_be_written_stays_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "file"
    write_whole(file, b"old")
    with file_size_limit(100), pytest.raises(OSError, match="too large"):
        write_whole(file, b"new" * 100)
    assert file.read_bytes() == b"old" and list(tmp_path.iterdir()) == [file]


def test_a_small_file_is_never_seen_half_written(tmp_path: Path) -> None:
    file = tmp_path / "file"
    contents = [b"a" * 2_000_000, b"b" * 1_000_000]
    write_whole(file, contents[0])
    seen: set[bytes] = set()
    over = threading.Event()

    def read() -> None:
        while not over.is_set():
            seen.add(file.read_bytes())

    reader = threading.Thread(target=read)
    reader.start()
    for i in range(100):
        write_whole(file, contents[i % 2])
    over.set()
    reader.join()
    assert seen <= set(contents)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB, where this process may mount one."""
    folder = tmp_path / "small"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"cannot mount a small file system here: {made.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_disk_that_is_really_full(small_disk: Path) -> None:
    store = Store(small_disk / "store")
    kept = finish(store, {"seed": 1})
    hidden = key_of("train", {"seed": 2})
    other = store.claim("train", hidden, {"seed": 2})
    with pytest.raises(DiskFull, match="disk is full") as error, store.claim("train", KEY_A, IDENTITY_A) as attempt:
        (attempt.work / "weights").write_bytes(b"w" * (2 << 20))
    assert "0.0 MiB are left" in str(error.value)
    assert store.find("train", kept.key) == kept and store.find("train", KEY_A) is None
    with pytest.raises(OSError, match="No space left"), (small_disk / "filler").open("wb", buffering=0) as filler:
        while True:
            filler.write(b"f" * 512)
    with pytest.raises(DiskFull):
        store.claim("train", KEY_A, IDENTITY_A)
    with pytest.raises(DiskFull), other:
        raise RuntimeError("the file write failed")  # all that some libraries say
    assert store.find("train", kept.key) == kept
    assert store.holder("train", KEY_A) is None and store.holder("train", hidden) is None
    (small_disk / "filler").unlink()
    shutil.rmtree(store.folder("train", KEY_A) / "0001.work")
    assert finish(store).status == "ok" and store.warnings == []
