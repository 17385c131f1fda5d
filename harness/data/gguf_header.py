"""Reads the header of a GGUF file: its metadata and the shapes of its tensors, in a few milliseconds.

The reader of the `gguf` package makes an array object of every vocabulary entry, which takes seconds for a header;
planning needs few values of it. Arrays are stepped over here, and the tensors are left to `transformers`.
Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3, little endian.
"""

from __future__ import annotations

import functools
import mmap
import struct
from pathlib import Path
from typing import Any

from harness.errors import HarnessError

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_FILE_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S", 12: "Q3_K_M",
    13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K", 32: "BF16",
}  # fmt: skip


def read_metadata(path: Path) -> dict[str, Any]:
    """Scalars and strings of the header by key; an array is given as its length. HarnessError if it is not a GGUF."""
    return _header(path)[0]


def read_tensors(path: Path) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor by its name in the file, outermost first. HarnessError if it is not a GGUF."""
    return _header(path)[1]


@functools.lru_cache(maxsize=8)
def _read(path: Path, changed: int) -> tuple[dict[str, Any], dict[str, tuple[int, ...]]]:
    with path.open("rb") as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as data:
        magic, version, tensors, count = struct.unpack_from("<4sIQQ", data, 0)
        if magic != b"GGUF" or version not in (2, 3):
            raise ValueError(f"it starts with {magic!r}, version {version}")
        found, at = _entries(data, 24, count)
        return found, _tensors(data, at, tensors)


def _header(path: Path) -> tuple[dict[str, Any], dict[str, tuple[int, ...]]]:
    try:
        return _read(path, path.stat().st_mtime_ns)
    except (ValueError, struct.error, UnicodeDecodeError) as error:
        raise HarnessError(
            "this is not a readable GGUF file", where=str(path), why=str(error), todo="download or copy it again"
        ) from error


def quantisation(metadata: dict[str, Any]) -> str:
    """The name of the file's quantisation, such as `Q4_1`; empty if the header does not say."""
    return _FILE_TYPES.get(metadata.get("general.file_type", -1), "")


def _entries(data: mmap.mmap, at: int, count: int) -> tuple[dict[str, Any], int]:
    found: dict[str, Any] = {}
    for _ in range(count):
        key, at = _string(data, at)
        (kind,) = struct.unpack_from("<I", data, at)
        found[key], at = _value(data, at + 4, kind)
    return found, at


def _tensors(data: mmap.mmap, at: int, count: int) -> dict[str, tuple[int, ...]]:
    found = {}
    for _ in range(count):
        name, at = _string(data, at)
        (rank,) = struct.unpack_from("<I", data, at)
        found[name] = tuple(reversed(struct.unpack_from(f"<{rank}Q", data, at + 4)))
        at += 4 + 8 * rank + 12  # its type, and where it lies
    return found


def _value(data: mmap.mmap, at: int, kind: int) -> tuple[Any, int]:
    if kind in _SCALARS:
        (value,) = struct.unpack_from("<" + _SCALARS[kind], data, at)
        return value, at + struct.calcsize("<" + _SCALARS[kind])
    if kind == _STRING:
        return _string(data, at)
    if kind != _ARRAY:
        raise ValueError(f"unknown value type {kind} at byte {at}")
    inner, count = struct.unpack_from("<IQ", data, at)
    at += 12
    if inner in _SCALARS:
        return count, at + count * struct.calcsize("<" + _SCALARS[inner])
    for _ in range(count):
        if inner == _STRING:
            at += 8 + struct.unpack_from("<Q", data, at)[0]
        else:
            _, at = _value(data, at, inner)
    return count, at


def _string(data: mmap.mmap, at: int) -> tuple[str, int]:
    (length,) = struct.unpack_from("<Q", data, at)
    end = at + 8 + length
    if end > len(data):
        raise ValueError(f"it ends inside its header, at byte {len(data)}")
    return data[at + 8 : end].decode(), end
