"""Record: what a finished attempt left. Reading one, checking it, and listing the outputs of a work folder.

A record never changes once it is published. Outputs that were removed on purpose ("shed") are named in small side files
`shed-*.json` beside it, so that a removed output can be told from a lost one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict, get_args

from harness.digest import canonical, digest, file_digest, key_of
from harness.errors import HarnessError
from harness.store.disk import write_whole

Status = Literal["ok", "diverged"]
RECORD = "record.json"
_FIELDS = {"identity": dict, "cost": dict, "extra": dict, "outputs": dict, "provenance": dict}


class Output(TypedDict):
    """Size and content of one output file."""

    bytes: int
    sha256: str


class Damaged(Exception):
    """A record that cannot be trusted; the message says why."""


@dataclass(frozen=True)
class Record:
    """A finished attempt at a step. `path` is its folder; outputs are named by their path relative to it."""

    kind: str
    key: str
    attempt: int
    status: Status
    path: Path
    identity: dict[str, Any]
    cost: dict[str, Any]
    extra: dict[str, Any]
    outputs: dict[str, Output]
    provenance: dict[str, Any]

    def file(self, name: str) -> Path:
        """Where an output is, or was before it was shed."""
        return self.path / name

    def missing(self) -> list[str]:
        """Outputs that are not there any more, in name order."""
        return [name for name in sorted(self.outputs) if not self.file(name).exists()]


def load(folder: Path, kind: str, key: str) -> Record:
    """The record in a finished attempt folder, outputs checked by size. Damaged if anything is amiss."""
    try:
        body = json.loads((folder / RECORD).read_bytes())
    except FileNotFoundError:
        raise Damaged(f"{RECORD} is missing") from None
    except (ValueError, RecursionError) as error:
        raise Damaged(f"{RECORD} is not JSON ({error})") from None
    record = parse(body, folder)
    if (record.kind, record.key) != (kind, key):
        raise Damaged(f"{RECORD} belongs to {record.kind} {record.key}")
    lost = []
    for name, output in record.outputs.items():
        try:
            size = os.stat(f"{folder}/{name}").st_size  # noqa: PTH116 - ten thousand records are read in a plan
        except (FileNotFoundError, NotADirectoryError):
            lost.append(name)
            continue
        if size != output["bytes"]:
            raise Damaged(f"{name} has {size} bytes and should have {output['bytes']}")
    if lost and (unexplained := sorted(set(lost) - shed_names(folder))):
        raise Damaged(f"{unexplained[0]} is missing")
    return record


def parse(body: Any, folder: Path) -> Record:
    """A record from its JSON, for an attempt in `folder`. Damaged if it has not the shape of a record."""
    if not isinstance(body, dict) or any(not isinstance(body.get(name), t) for name, t in _FIELDS.items()):
        raise Damaged(f"{RECORD} lacks a field")
    if body.get("status") not in get_args(Status):
        raise Damaged(f"{RECORD} has no valid status")
    for name, output in body["outputs"].items():
        if name == RECORD or any(part in ("", ".", "..") for part in name.split("/")):
            raise Damaged(f"{RECORD} names an output outside its folder: {name!r}")
        if not isinstance(output, dict) or not isinstance(output.get("bytes"), int) or "sha256" not in output:
            raise Damaged(f"{RECORD} lacks the size or digest of {name}")
    number = int(folder.name) if folder.name.isdigit() else 0
    fields = {name: body[name] for name in _FIELDS}
    return Record(body.get("kind", ""), body.get("key", ""), number, body["status"], folder, **fields)


def check_content(record: Record) -> None:
    """Digest every byte of a record's outputs, and its identity. Damaged at the first difference."""
    if key_of(record.kind, record.identity) != record.key:
        raise Damaged("its identity does not give its key")
    for name in sorted(set(record.outputs) - set(record.missing())):
        if file_digest(record.file(name)) != record.outputs[name]["sha256"]:
            raise Damaged(f"the content of {name} has changed")


def encode(kind: str, key: str, status: Status, **fields: Mapping[str, Any]) -> bytes:
    """The bytes of record.json. Raises like `digest.canonical` for what cannot be written as JSON."""
    return canonical({"kind": kind, "key": key, "status": status, **fields}).encode()


def measure(work: Path) -> dict[str, Output]:
    """Every file under a work folder, with size and digest. HarnessError for a link: it may point anywhere."""
    outputs: dict[str, Output] = {}
    for top, folders, names in os.walk(work):
        for name in [*folders, *names]:
            if (path := Path(top) / name).is_symlink():
                raise HarnessError("an output is a symbolic link", where=str(path), todo="write a copy instead")
        for path in (Path(top) / name for name in names):
            relative = path.relative_to(work).as_posix()
            if relative != RECORD:
                outputs[relative] = {"bytes": path.stat().st_size, "sha256": file_digest(path)}
    return dict(sorted(outputs.items()))


def shed_names(folder: Path) -> set[str]:
    """Outputs of the attempt in `folder` that were removed on purpose."""
    return {name for file in folder.glob("shed-*.json") for name in json.loads(file.read_bytes())}


def write_shed(folder: Path, names: Iterable[str]) -> None:
    """Note that outputs are being removed. Its name follows its content, so that two writers cannot lose a note."""
    listed = sorted(names)
    if listed:
        write_whole(folder / f"shed-{digest(listed)[:12]}.json", json.dumps(listed).encode(), durable=True)
