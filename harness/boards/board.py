"""board.yaml: the admission rules and the order of a leaderboard. It reads and checks; it publishes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from harness import config
from harness.matrix import Strict


class Admission(Strict):
    """What an entry must fulfil. seeds: at least so many a method.  limits: whether a limited test set is admitted.

    clean_tree: whether the entry must come from a clean source tree.
    """

    seeds: int = Field(gt=0)
    limits: bool
    clean_tree: bool


class Board(Strict):
    """A leaderboard."""

    version: Literal[1]
    name: str
    title: str
    suites: tuple[str, ...]
    admission: Admission
    order_by: Literal["mean"]


def load_board(file: Path) -> Board:
    """Read a board file. Problems with file and line for every mistake in it."""
    return config.load(file, Board).value
