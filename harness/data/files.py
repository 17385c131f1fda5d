"""Reading data files: JSON Lines, JSON lists and CSV, plain or gzipped, and the digest of their content.

A `.json` file whose first line is a whole object is read as JSON Lines, since some packages ship such files.
"""

from __future__ import annotations

import csv
import functools
import gzip
import hashlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from harness.errors import HarnessError, nearest

SUFFIXES = (".jsonl", ".json", ".csv")


def count_and_digest(path: Path) -> tuple[int | None, str]:
    """How many rows a file has (None if only parsing can tell) and the sha256 of its uncompressed bytes, in hex.

    HarnessError if there is no such file, or none of a kind that can be read.
    """
    if not path.is_file():
        beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise HarnessError("no such data file", where=str(path), todo=nearest(path.name, beside))
    if _suffix(path) not in SUFFIXES:
        raise HarnessError(
            "not a data file that can be read", where=str(path), todo=f"use {', '.join(SUFFIXES)} (or .gz)"
        )
    stat = path.stat()
    return _count_and_digest(path, stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=4096)
def _count_and_digest(path: Path, size: int, changed: int) -> tuple[int | None, str]:
    """size and changed are there for the cache: a changed file is read again."""
    whole, count = hashlib.sha256(), 0
    try:
        with _open(path) as f:
            for line in f:
                whole.update(line)
                count += bool(line.strip())
    except (gzip.BadGzipFile, EOFError) as error:
        raise HarnessError("not a complete gzip file", where=str(path), why=str(error)) from None
    return (count if count == 0 or _lines(path) else None), whole.hexdigest()


def read(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a file, in order. HarnessError naming file and line for one that is no JSON object."""
    with io.TextIOWrapper(_open(path), encoding="utf-8-sig", newline="") as f:
        if _suffix(path) == ".csv":
            yield from csv.DictReader(f)
        elif _lines(path):
            yield from (_object(line, f"{path}:{number}") for number, line in enumerate(f, 1) if line.strip())
        else:
            yield from _listed(f.read(), path)


def _suffix(path: Path) -> str:
    return (path.with_suffix("") if path.suffix == ".gz" else path).suffix


def _open(path: Path) -> IO[bytes]:
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]


def _lines(path: Path) -> bool:
    """Whether a line is a row."""
    if _suffix(path) != ".json":
        return _suffix(path) == ".jsonl"
    with _open(path) as f:
        first = f.readline().strip()
    return first.startswith(b"{") and first.endswith(b"}")


def _listed(text: str, path: Path) -> list[dict[str, Any]]:
    try:
        body = json.loads(text)
    except json.JSONDecodeError as error:
        raise HarnessError("not JSON", where=f"{path}:{error.lineno}", why=error.msg) from None
    if not isinstance(body, list) or not all(isinstance(row, dict) for row in body):
        raise HarnessError("not a list of objects", where=str(path), todo="use JSON Lines, or one list of objects")
    return body


def _object(line: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise HarnessError("this line is no JSON", where=where, why=error.msg) from None
    if not isinstance(row, dict):
        raise HarnessError("this line is no JSON object", where=where)
    return row
