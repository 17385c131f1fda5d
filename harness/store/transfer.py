"""Moving results between stores: finished steps into one file, and back with every digest checked.

Records, responses, per-sample scores and curves travel; weights do not, and count as shed where they are imported.
The file is a gzipped tar: `index.json` first, then each step's record and outputs. Equal steps give equal bytes.
Nothing is signed: the digests show damage, not who made the results.
"""

from __future__ import annotations

import fnmatch
import gzip
import io
import json
import re
import shutil
import tarfile
import uuid
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from harness.digest import canonical, file_digest, key_of
from harness.errors import HarnessError
from harness.store import Busy, Done, Store, disk
from harness.store.record import RECORD, Damaged, Record, parse

FORMAT = 1
_INDEX = "index.json"
_INDEX_LIMIT = 256 << 20  # bytes; an index of 100,000 steps is a tenth of this
_WEIGHTS = {".safetensors", ".bin", ".pt", ".pth", ".gguf"}
_TEXT = {".json", ".jsonl", ".csv", ".md", ".txt", ".yaml"}
_LARGE = 64 << 20  # bytes; what is not text and larger is weights under another name: no curve or plot comes near
_MALFORMED = (
    *(tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError),
    *(ValueError, KeyError, TypeError, RecursionError, FileExistsError, NotADirectoryError, IsADirectoryError),
)
_STEP = re.compile(r"[a-z][a-z_]*/[0-9a-f]{24}")


@dataclass(frozen=True)
class Exported:
    """What went into a file: steps, bytes of the file, bytes of weights left out, steps that are not finished."""

    steps: int
    bytes: int
    left_out: int
    unfinished: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Imported:
    """What came of a file, as (kind, key): published; there already; of those, the ones whose outputs differ from the
    file's (the store's own stay); refused, with the reason. manifest: what the exporter wrote about it."""

    new: tuple[tuple[str, str], ...]
    present: tuple[tuple[str, str], ...]
    differing: tuple[tuple[str, str], ...]
    refused: tuple[tuple[str, str, str], ...]
    manifest: Mapping[str, Any] = field(default_factory=dict)


def export(
    store: Store,
    keys: Iterable[tuple[str, str]],
    file: Path,
    *,
    manifest: Mapping[str, Any],
    without: Mapping[str, str] | None = None,
) -> Exported:
    """Write the finished ones of these steps to `file`, in one step. manifest: anything canonical JSON can hold.

    without: by kind of step, a shell pattern of outputs that stay behind beside the weights.

    Every byte is verified first; a damaged record is set aside as `Store.verify` does and counts as unfinished.
    """
    records, unfinished = [], []
    for kind, key in sorted(set(keys)):
        record = store.verify(kind, key)
        if record:
            records.append(record)
        else:
            unfinished.append((kind, key))
    entries = [_entry(r, (without or {}).get(r.kind, "")) for r in records]
    index = {"format": FORMAT, "manifest": dict(manifest), "steps": entries}
    left_out = 0
    with disk.guard(file), _replacing(file) as beside:
        with _writing(beside) as tar:
            _add(tar, _INDEX, canonical(index).encode())
            for record, entry in zip(records, entries, strict=True):
                name = f"{record.kind}/{record.key}"
                _add(tar, f"{name}/{RECORD}", record.file(RECORD).read_bytes())
                for output in sorted(set(record.outputs) - set(entry["left_out"])):
                    _add_file(tar, f"{name}/{output}", record.file(output))
                left_out += sum(record.outputs[o]["bytes"] for o in entry["left_out"])
        size = beside.stat().st_size
    return Exported(len(records), size, left_out, tuple(unfinished))


def import_(store: Store, file: Path) -> Imported:
    """Publish the steps of an exported file in a store. A finished step there is never overwritten.

    HarnessError, and nothing is published, if anything in the file is damaged, names a path outside its step, or has a
    key that its identity does not give. A step that a live process works on is refused alone.
    """
    unpacked = store.root / f".import-{uuid.uuid4().hex}"
    with disk.guard(store.root):
        if not file.is_file():
            raise HarnessError("there is no such file to import", where=str(file))
        try:
            unpacked.mkdir(parents=True)
            try:
                index = _unpack(file, unpacked)
                steps = [_checked(unpacked, entry) for entry in index["steps"]]
            except _MALFORMED as error:
                raise _refuse(file, f"{type(error).__name__}: {error}") from error
            except Damaged as error:
                raise _refuse(file, str(error)) from error
            return _publish(store, steps, index["manifest"])
        finally:
            shutil.rmtree(unpacked, ignore_errors=True)


def _publish(store: Store, steps: list[tuple[Record, list[str]]], manifest: Mapping[str, Any]) -> Imported:
    new, present, differing, refused = [], [], [], []
    for record, left_out in steps:
        step = (record.kind, record.key)
        try:
            with store.claim(*step, record.identity) as attempt:
                data = record.file(RECORD).read_bytes()
                for name in sorted(set(record.outputs) - set(left_out)):
                    target = attempt.work / name
                    target.parent.mkdir(parents=True, exist_ok=True)
                    record.file(name).rename(target)
                attempt.adopt(data, left_out)
            new.append(step)
        except Done as done:
            present.append(step)
            if done.record.outputs != record.outputs:
                differing.append(step)
        except Busy as busy:
            refused.append((*step, str(busy)))
    return Imported(tuple(new), tuple(present), tuple(differing), tuple(refused), manifest)


def _entry(record: Record, without: str) -> dict[str, Any]:
    away = set(record.missing())
    left_out = [
        name
        for name, output in record.outputs.items()
        if name in away or _is_weights(name, output["bytes"]) or fnmatch.fnmatchcase(name, without)
    ]
    data = record.file(RECORD)
    size, digest = data.stat().st_size, file_digest(data)
    return {"kind": record.kind, "key": record.key, "bytes": size, "record": digest, "left_out": sorted(left_out)}


def _is_weights(name: str, size: int) -> bool:
    suffix = Path(name).suffix
    return suffix in _WEIGHTS or (size > _LARGE and suffix not in _TEXT)


def read_manifest(file: Path) -> Mapping[str, Any]:
    """What the exporter wrote about a file; its steps are neither unpacked nor checked. HarnessError if unreadable."""
    try:
        with gzip.open(file) as packed, tarfile.open(fileobj=packed, mode="r:") as tar:
            manifest: Mapping[str, Any] = json.load(_content(tar, tar.next() or tarfile.TarInfo()))["manifest"]
            return manifest
    except (OSError, *_MALFORMED) as error:
        raise _refuse(file, f"{type(error).__name__}: {error}") from error


def _unpack(file: Path, folder: Path) -> dict[str, Any]:
    """Unpack what the index and the records name, and nothing else. Returns the index."""
    with gzip.open(file) as packed:
        with tarfile.open(fileobj=packed, mode="r:") as tar:
            members = iter(tar)
            first = next(members, None)
            if first is None or first.name != _INDEX or first.size > _INDEX_LIMIT:
                raise ValueError("it was not written by `harness export`")
            index: dict[str, Any] = json.loads(_content(tar, first).read())
            if index["format"] != FORMAT:
                raise ValueError(f"its format is {index['format']!r}; this version reads {FORMAT}")
            _unpack_steps(tar, members, {f"{e['kind']}/{e['key']}": e for e in index["steps"]}, folder)
        while packed.read(1 << 20):  # to the end, where the checksum of the whole stands
            pass
    return index


def _unpack_steps(
    tar: tarfile.TarFile, members: Iterator[tarfile.TarInfo], steps: Mapping[str, Any], folder: Path
) -> None:
    # What may still come, with its size: first the records, then the outputs that each of them names.
    expected = {f"{step}/{RECORD}": int(entry["bytes"]) for step, entry in steps.items() if _STEP.fullmatch(step)}
    for member in members:
        if not member.isfile() or expected.pop(member.name, None) != member.size:
            raise ValueError(f"unexpected entry {member.name!r}")
        target = folder / member.name
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as out:
            shutil.copyfileobj(_content(tar, member), out)
        if target.name == RECORD and (step := member.name.removesuffix(f"/{RECORD}")) in steps:
            record = parse(json.loads(target.read_bytes()), target.parent)
            wanted = set(record.outputs) - set(steps[step]["left_out"])
            expected |= {f"{step}/{output}": record.outputs[output]["bytes"] for output in wanted}
    if expected:
        raise ValueError(f"{min(expected)} is missing")


def _checked(folder: Path, entry: Mapping[str, Any]) -> tuple[Record, list[str]]:
    path = folder / entry["kind"] / entry["key"]
    if file_digest(path / RECORD) != entry["record"]:
        raise Damaged(f"the record of {entry['kind']} {entry['key']} has changed")
    record = parse(json.loads((path / RECORD).read_bytes()), path)
    if (record.kind, record.key) != (entry["kind"], entry["key"]) or key_of(record.kind, record.identity) != record.key:
        raise Damaged(f"{record.kind} {record.key}: its identity does not give its key")
    for name in set(record.outputs) - set(entry["left_out"]):
        if file_digest(record.file(name)) != record.outputs[name]["sha256"]:
            raise Damaged(f"{record.kind} {record.key}: the content of {name} has changed")
    return record, sorted(set(entry["left_out"]) & set(record.outputs))


def _refuse(file: Path, why: str) -> HarnessError:
    return HarnessError(
        "this file cannot be imported; nothing was changed", where=str(file), why=why, todo="export and copy it again"
    )


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    stream = tar.extractfile(member)
    if stream is None:
        raise ValueError(f"unexpected entry {member.name!r}")
    return stream


@contextmanager
def _replacing(file: Path) -> Iterator[Path]:
    beside = file.with_name(f".{uuid.uuid4().hex}.tmp")
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield beside
        disk.flush(beside)
        beside.replace(file)
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def _writing(path: Path) -> Iterator[tarfile.TarFile]:
    with ExitStack() as stack:
        raw = stack.enter_context(path.open("xb"))
        # No time and no file name in the header, so that equal steps give equal bytes.
        packed = stack.enter_context(gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=raw, mtime=0))
        yield stack.enter_context(tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT))


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def _add_file(tar: tarfile.TarFile, name: str, file: Path) -> None:
    info = tarfile.TarInfo(name)
    info.size = file.stat().st_size
    with file.open("rb") as source:
        tar.addfile(info, source)
