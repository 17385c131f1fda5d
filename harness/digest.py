"""Identity: canonical JSON, the key of a step, and the difference between two identities.

A value that cannot be written the same way twice (a set, a tensor, NaN) is refused, never turned into text.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

IDENTITY = 1  # part of every key: change it only together with a heading in CHANGELOG.md

_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def canonical(value: Any) -> str:
    """Canonical JSON text: sorted keys, no spaces, UTF-8, floats by repr. TypeError or ValueError for anything else."""
    return _ENCODER.encode(value)


def digest(value: Any) -> str:
    """sha256, in hex (64 characters), of the canonical JSON of a value."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def key_of(kind: str, identity: Mapping[str, Any]) -> str:
    """The key of a step: 24 hex characters. Upstream keys stand inside the identity, so keys form a Merkle graph."""
    return digest({"identity": IDENTITY, "kind": kind, **identity})[:24]


def file_digest(path: Path) -> str:
    """sha256 of a file's bytes, in hex."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def differences(old: Any, new: Any, path: str = "") -> Iterator[str]:
    """Each leaf that differs, as `train.lr 0.001 -> 0.0002`, in key order."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted(old.keys() | new.keys()):
            yield from differences(old.get(name), new.get(name), f"{path}.{name}" if path else name)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for place, (was, now) in enumerate(zip(old, new, strict=True)):
            yield from differences(was, now, f"{path}.{place}")
    elif old != new:
        yield f"{path} {canonical(old)} -> {canonical(new)}"
