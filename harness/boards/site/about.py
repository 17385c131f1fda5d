"""What a board says about itself beyond its results."""

from __future__ import annotations

import re
from dataclasses import dataclass

from harness.errors import HarnessError

SAFE_LINK = re.compile(r"(https?://|\.{0,2}/|#|[\w.-]+(/|$))")


@dataclass(frozen=True)
class Point:
    """One past number. day: ISO date, or date and time.  note: what happened then (`accepted`, changed software, ...).

    model, method and column name the row and the column as the table does; value, low, high are in its unit.
    """

    day: str
    model: str
    method: str
    column: str
    value: float
    low: float | None = None
    high: float | None = None
    note: str = ""


@dataclass(frozen=True)
class About:
    """The words of a board. baseline: the method that differences refer to.  notes: sentences under every table.

    reproduce: the command that makes the results again.  links: (text, address); an address is relative or http(s).
    history: past numbers for the trends; without any there is no such page.
    """

    name: str
    title: str
    baseline: str | None = "base"
    notes: tuple[str, ...] = ()
    reproduce: str = ""
    links: tuple[tuple[str, str], ...] = ()
    history: tuple[Point, ...] = ()

    def __post_init__(self) -> None:
        for text, address in self.links:
            if not SAFE_LINK.match(address) or re.match(r"[\w+.-]+:(?!//)", address):
                raise HarnessError(
                    f"the link `{text}` has an address that a page may not have: {address}",
                    todo="give a relative path, or an address with http:// or https://",
                )
