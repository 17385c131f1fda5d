"""Export and import: what travels, what does not, and that nothing damaged or strange is let in."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import random
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.digest import digest, key_of
from harness.errors import HarnessError
from harness.store import Record, Store, transfer

Files = dict[str, bytes]


def key(kind: str, seed: int = 0) -> str:
    return key_of(kind, {"seed": seed})


def finish(store: Store, kind: str, seed: int = 0, **files: str) -> Record:
    with store.claim(kind, key(kind, seed), {"seed": seed}) as attempt:
        for name, text in files.items():
            path = attempt.work / name.replace("__", "/").replace("_dot_", ".")
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        return attempt.publish(cost={"seconds": 2.0})


@pytest.fixture
def source(tmp_path: Path) -> Store:
    """A store with a training whose weights are large, its responses and its scores."""
    store = Store(tmp_path / "source")
    finish(store, "train", artifact__model_dot_safetensors="w" * 50_000, curve_dot_jsonl='{"loss": 1}\n')
    finish(store, "generate", responses_dot_jsonl='{"key": "a", "text": "4"}\n')
    finish(store, "score", samples_dot_jsonl='{"doc": 0}\n', metrics_dot_json="{}")
    return store


@pytest.fixture
def target(tmp_path: Path) -> Store:
    return Store(tmp_path / "target")


STEPS = [("train", key("train")), ("generate", key("generate")), ("score", key("score"))]


@pytest.fixture
def file(source: Store, tmp_path: Path) -> Path:
    path = tmp_path / "results.tar.gz"
    transfer.export(source, STEPS, path, manifest={"run": "demo"})
    return path


def test_a_round_trip(source: Store, target: Store, tmp_path: Path) -> None:
    file = tmp_path / "out" / "results.tar.gz"
    absent = ("score", key("score", 9))
    said = transfer.export(source, [*STEPS, absent], file, manifest={"run": "demo"})
    assert (said.steps, said.left_out, said.unfinished) == (3, 50_000, (absent,))
    assert said.bytes == file.stat().st_size and [p.name for p in file.parent.iterdir()] == [file.name]
    done = transfer.import_(target, file)
    assert set(done.new) == set(STEPS) and not done.present and not done.differing and not done.refused
    assert done.manifest == {"run": "demo"}
    for step in STEPS:
        ours, theirs = target.verify(*step), source.find(*step)
        assert (
            ours and theirs and (ours.path / "record.json").read_bytes() == (theirs.path / "record.json").read_bytes()
        )
        assert ours.missing() == (["artifact/model.safetensors"] if step[0] == "train" else [])
    assert target.warnings == []
    assert (record := target.find("generate", key("generate")))
    assert record.file("responses.jsonl").read_text() == '{"key": "a", "text": "4"}\n'
    assert {p.name for p in target.root.iterdir()} == {"FORMAT", "train", "generate", "score"}


def test_equal_steps_give_equal_bytes(source: Store, file: Path, tmp_path: Path) -> None:
    transfer.export(source, reversed(STEPS), tmp_path / "again", manifest={"run": "demo"})
    assert (tmp_path / "again").read_bytes() == file.read_bytes()


def test_what_was_imported_can_be_exported_again(target: Store, file: Path, tmp_path: Path) -> None:
    transfer.import_(target, file)
    transfer.export(target, STEPS, tmp_path / "again", manifest={"run": "demo"})
    assert (tmp_path / "again").read_bytes() == file.read_bytes()


def test_importing_twice_changes_nothing(target: Store, file: Path) -> None:
    transfer.import_(target, file)
    done = transfer.import_(target, file)
    assert not done.new and set(done.present) == set(STEPS) and not done.differing


def test_a_finished_step_is_never_overwritten(target: Store, file: Path) -> None:
    own = finish(target, "generate", responses_dot_jsonl="our own\n")
    done = transfer.import_(target, file)
    assert done.present == done.differing == (("generate", key("generate")),)
    assert target.find("generate", key("generate")) == own and own.file("responses.jsonl").read_text() == "our own\n"


def test_a_step_at_work_is_refused_alone(target: Store, file: Path) -> None:
    with target.claim("generate", key("generate"), {"seed": 0}) as attempt:
        done = transfer.import_(target, file)
        attempt.fail("user", "enough")
    assert [r[:2] for r in done.refused] == [("generate", key("generate"))] and len(done.new) == 2


def test_import_continues_after_failed_attempts(target: Store, file: Path) -> None:
    with target.claim("train", key("train"), {"seed": 0}) as attempt:
        attempt.fail("oom", "out of memory")
    transfer.import_(target, file)
    assert (record := target.find("train", key("train"))) and record.attempt == 2


def test_a_damaged_step_is_not_exported(source: Store, tmp_path: Path) -> None:
    record = source.find("generate", key("generate"))
    assert record
    size = record.outputs["responses.jsonl"]["bytes"]
    record.file("responses.jsonl").write_text("x" * size)
    said = transfer.export(source, STEPS, tmp_path / "file", manifest={})
    assert said.unfinished == (("generate", key("generate")),) and "responses.jsonl" in source.warnings[0]


def test_a_flipped_bit_is_refused_wherever_it_changes_anything(target: Store, file: Path, tmp_path: Path) -> None:
    good = file.read_bytes()
    draw = random.Random(0)
    refused = 0
    for place in [*range(len(good) - 8, len(good)), *(draw.randrange(len(good)) for _ in range(100))]:
        bad = bytearray(good)
        bad[place] ^= 1 << draw.randrange(8)
        if not same_content(bytes(bad), good):  # a few bits of a gzip file mean nothing
            (tmp_path / "bad").write_bytes(bad)
            with pytest.raises(HarnessError):
                transfer.import_(target, tmp_path / "bad")
            refused += 1
    assert refused > 90 and target.kinds() == []


def same_content(one: bytes, other: bytes) -> bool:
    try:
        return gzip.decompress(one) == gzip.decompress(other)
    except (OSError, EOFError, zlib.error):
        return False


@pytest.mark.parametrize("size", [0, 5, 100, -1, -9])
def test_a_file_cut_short_is_refused(target: Store, file: Path, size: int) -> None:
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(HarnessError, match="cannot be imported"):
        transfer.import_(target, file)
    assert target.kinds() == []


def test_what_is_no_export_is_refused(target: Store, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(HarnessError, match="cannot be imported"):
        transfer.import_(target, tmp_path / "notes.txt")
    with pytest.raises(HarnessError, match="no such file"):
        transfer.import_(target, tmp_path / "absent")


# Files made by somebody who knows the format: checksums are right, content is not.


def unpack(file: Path) -> Files:
    with tarfile.open(file) as tar:
        return {m.name: stream.read() for m in tar if (stream := tar.extractfile(m))}


def pack(file: Path, files: Files, *extra: tarfile.TarInfo) -> None:
    with gzip.open(file, "wb") as packed, tarfile.open(fileobj=packed, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for info in extra:
            tar.addfile(info)


def rewrite(files: Files, change: Callable[[dict[str, Any]], None], kind: str = "generate") -> None:
    """Change a record, and the index so that it agrees."""
    name = f"{kind}/{key(kind)}/record.json"
    body = json.loads(files[name])
    change(body)
    files[name] = json.dumps(body).encode()
    index = json.loads(files["index.json"])
    for entry in index["steps"]:
        if entry["kind"] == kind:
            entry |= {"bytes": len(files[name]), "record": hashlib.sha256(files[name]).hexdigest()}
    files["index.json"] = json.dumps(index).encode()


def other_identity(files: Files) -> None:
    rewrite(files, lambda body: body.update(identity={"seed": 1}))


def other_status(files: Files) -> None:
    rewrite(files, lambda body: body.update(status="failed"))


def other_digest(files: Files) -> None:
    rewrite(files, lambda body: body["outputs"]["responses.jsonl"].update(sha256=digest("x")))


def other_content(files: Files) -> None:
    name = f"generate/{key('generate')}/responses.jsonl"
    files[name] = files[name].replace(b"4", b"5")


def longer_content(files: Files) -> None:
    files[f"generate/{key('generate')}/responses.jsonl"] += b"more"


def a_missing_output(files: Files) -> None:
    del files[f"generate/{key('generate')}/responses.jsonl"]


def a_missing_record(files: Files) -> None:
    del files[f"score/{key('score')}/record.json"]


def a_missing_index(files: Files) -> None:
    del files["index.json"]


def an_unknown_format(files: Files) -> None:
    files["index.json"] = files["index.json"].replace(b'"format":1', b'"format":2')


def a_changed_record(files: Files) -> None:
    name = f"generate/{key('generate')}/record.json"
    files[name] = files[name].replace(b"2.0", b"1.0")


def an_extra_file(files: Files) -> None:
    files[f"generate/{key('generate')}/extra.txt"] = b"x"


def a_path_above(files: Files) -> None:
    files[f"generate/{key('generate')}/../../../../escaped"] = b"x"


def an_absolute_path(files: Files) -> None:
    files["/tmp/escaped"] = b"x"


def an_output_above(files: Files) -> None:
    files[f"generate/{key('generate')}/../../../escaped"] = b"x"
    rewrite(files, lambda body: body["outputs"].update({"../../../escaped": {"bytes": 1, "sha256": digest("x")}}))


def a_kind_above(files: Files) -> None:
    files["index.json"] = files["index.json"].replace(b'"kind":"generate"', b'"kind":"../up"')
    for name in [n for n in files if n.startswith("generate/")]:
        files[name.replace("generate/", "../up/")] = files.pop(name)


@pytest.mark.parametrize(
    "spoil",
    [
        *(other_identity, other_status, other_digest, other_content, longer_content, a_changed_record),
        *(a_missing_output, a_missing_record, a_missing_index, an_unknown_format),
        *(an_extra_file, a_path_above, an_absolute_path, an_output_above, a_kind_above),
    ],
)
def test_a_crafted_file_is_refused_whole(
    target: Store, file: Path, tmp_path: Path, spoil: Callable[[Files], None]
) -> None:
    files = unpack(file)
    pack(file, files)
    transfer.import_(Store(tmp_path / "control"), file)  # packing alone does no harm
    spoil(files)
    pack(file, files)
    with pytest.raises(HarnessError, match="cannot be imported"):
        transfer.import_(target, file)
    assert target.kinds() == [] and not list(tmp_path.rglob("escaped")) and not Path("/tmp/escaped").exists()
    assert list(target.root.iterdir()) == []


def test_links_in_a_file_are_refused(target: Store, file: Path, tmp_path: Path) -> None:
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE):
        info = tarfile.TarInfo(f"generate/{key('generate')}/responses.jsonl")
        info.type, info.linkname = kind, "/etc/passwd"
        files = unpack(file)
        del files[info.name]
        pack(tmp_path / "bad", files, info)
        with pytest.raises(HarnessError, match="cannot be imported"):
            transfer.import_(target, tmp_path / "bad")
    assert target.kinds() == []
