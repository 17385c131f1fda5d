"""A part of the training rows held out, so that what was learned can be compared on rows that were not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.digest import digest
from harness.errors import HarnessError

Row = dict[str, Any]


def hold_out(rows: Sequence[Row], *, share: float, most: int, seed: int) -> tuple[list[Row], list[Row]]:
    """What to train on, and what to hold out: `share` of the rows, at most `most`, at least one; both in their order.

    Which rows is decided by their text and the seed, whatever their order and ids. Rows that ask the same, but for case
    and white space, are never parted, so a held-out answer has not been seen either.
    HarnessError where all rows ask the same.
    """
    groups: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        groups.setdefault(digest([seed, _asked(row)]), []).append(place)
    if len(groups) < 2:
        raise HarnessError(
            "nothing can be held out of the training data: all rows ask the same",
            why=f"there are {len(rows)} of them",
            todo="train on more rows, or leave `tune` out",
        )
    wanted = max(1, min(most, round(share * len(rows))))
    held: set[int] = set()
    for _, places in sorted(groups.items()):
        if len(held) + len(places) <= wanted:
            held.update(places)
    if not held:
        smallest: list[int] = min((places for _, places in sorted(groups.items())), key=len)
        held.update(smallest)
    return [r for i, r in enumerate(rows) if i not in held], [r for i, r in enumerate(rows) if i in held]


def _asked(row: Row) -> list[list[str]]:
    """The conversation up to the last answer."""
    turns = row["messages"]
    last = max(i for i, turn in enumerate(turns) if turn["role"] == "assistant")
    return [[turn["role"], " ".join(str(turn["content"]).lower().split())] for turn in turns[:last]]
