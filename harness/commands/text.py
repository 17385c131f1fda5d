"""How commands print: aligned columns, JSON, sizes, and text that a model wrote made safe for a terminal."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

_HIDDEN = ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")  # control, invisible, half a pair, private, other line ends


def columns(rows: Iterable[Sequence[object]], head: Sequence[str]) -> str:
    """Plain aligned columns, two spaces apart."""
    table = [[str(c) for c in row] for row in (head, *rows)]
    widths = [max(len(row[i]) for row in table) for i in range(len(head))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in table)


def as_json(body: Any) -> int:
    """Print JSON; exit code 0. In ASCII, so that no text in it can reach a terminal as it stands."""
    print(json.dumps(body, indent=1))
    return 0


def size(count: float) -> str:
    """`12 B`, `3.4 MB`, `1.2 GB` (powers of 1000)."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def visible(text: str) -> str:
    r"""Text of a model as a terminal may show it: line ends and tabs stay, `\x1b` and its like become such words."""
    return "".join(c if c in "\n\t" or unicodedata.category(c) not in _HIDDEN else _escape(c) for c in text)


def line(text: str) -> str:
    """The same on one line."""
    return visible(text).replace("\n", "\\n").replace("\t", "\\t")


def _escape(char: str) -> str:
    code = ord(char)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def indented(text: str, mark: str = "    ") -> str:
    """Every line of a text behind a mark, so that it cannot be taken for our own words."""
    return "\n".join(mark + each for each in visible(text).split("\n"))
