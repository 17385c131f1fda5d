"""Rows from files of JSON lines."""

from __future__ import annotations

import json
from pathlib import Path

from harness.errors import HarnessError
from harness.methods.base import Row


def read_rows(path: Path) -> list[Row]:
    """All rows. HarnessError, with file and line, for a line that is no object, a row without an `id`, an id used
    twice, and a file without rows."""
    rows: list[Row] = []
    seen: set[str] = set()
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise HarnessError("the training data cannot be read", where=str(path), why=error.strerror or "") from error
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            row = _parse(line, f"{path}:{number}")
            if row["id"] in seen:
                raise HarnessError(f"the id {row['id']!r} is used twice", where=f"{path}:{number}")
            seen.add(row["id"])
            rows.append(row)
    if not rows:
        raise HarnessError("the data set is empty", where=str(path), todo="check the source and its filters")
    return rows


def _parse(line: str, where: str) -> Row:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise HarnessError("not a line of JSON", where=where, why=str(error)) from error
    if not isinstance(row, dict) or "id" not in row:
        raise HarnessError("a row is an object with an `id`", where=where)
    return {**row, "id": str(row["id"])}
