"""board.yaml: what a leaderboard measures, which results it admits, and in which order it shows them.

It reads and checks the file alone; whether entries keep to it is for `checks`, and nothing is published here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from harness.config import Loaded, load
from harness.errors import HarnessError
from harness.matrix.schema import EngineSettings, Strict, SuiteForm

BOARD = "board.yaml"


def _check_digest(text: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{16}", text):
        raise ValueError("a digest has 16 characters of 0-9 and a-f")
    return text


def _check_name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*", text):
        raise ValueError("a name may hold letters, digits, `_`, `.`, `+` and `-` only, since files are named after it")
    return text


Digest = Annotated[str, AfterValidator(_check_digest)]


class Pins(Strict):
    """Digests that a task's results must have: of its rows, of all that is asked and by which engine, of its scorer.

    `harness publish BOARD --protocol` prints them.
    """

    data: Digest
    asked: Digest
    scorer: Digest


class Admission(Strict):
    """What an entry must fulfil.

    seeds: at least so many of every trained row.  limits: whether a limited test set is admitted.
    clean_tree: whether every step must come from a source tree without changes of its own.
    settings: whether methods may be tuned, or run as they are by default.  regimes: of asking; left out, any.
    responses: whether raw responses must be there, so that every sample can be scored again.
    """

    seeds: int = Field(gt=0)
    limits: bool = False
    clean_tree: bool
    settings: tuple[Literal["default", "tuned"], ...] = Field(default=("default", "tuned"), min_length=1)
    regimes: tuple[str, ...] | None = None
    responses: Literal["required", "optional"] = "required"


class Board(Strict):
    """A leaderboard. suites and engine: as in a matrix.  protocol: by task.  reproduce: the command behind its entries,
    if one made them all."""

    version: Literal[1]
    name: Annotated[str, AfterValidator(_check_name)]
    title: str
    suites: dict[str, SuiteForm] = Field(min_length=1)
    engine: EngineSettings = EngineSettings()
    protocol: Mapping[str, Pins] = Field(default_factory=dict)
    admission: Admission
    order_by: Literal["mean"]
    reproduce: str = ""


def load_board(file: Path) -> Board:
    """Read a board file. Problems with file and line for every mistake in it."""
    return load(file, Board, check=_check).value


def open_board(folder: Path) -> Board:
    """The board in a folder. HarnessError where there is none."""
    if not (folder / BOARD).is_file():
        todo = f"copy leaderboards/template/{BOARD} there and edit it"
        raise HarnessError(f"this folder has no {BOARD}", where=str(folder), todo=todo)
    return load_board(folder / BOARD)


def _check(loaded: Loaded[Board]) -> Iterator[HarnessError]:
    board = loaded.value
    for name, suite in board.suites.items():
        if suite.limit is not None and not board.admission.limits:
            yield HarnessError(
                f"suite `{name}` has a limit, and the board admits none",
                where=loaded.where(("suites", name, "limit")),
                todo="leave the limit out, or say `limits: true` under `admission`",
            )
