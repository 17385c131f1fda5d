"""What a check found amiss: always a file and a field of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Finding:
    """file: relative to the board.  field: dotted, inside that file.  what: one sentence."""

    file: str
    field: str
    what: str

    def __str__(self) -> str:
        return f"{self.file}: {self.field}: {self.what}"
