"""Grades on several aspects become one grade an item, and a mean for every aspect.

An aspect for which no grade can be read counts as the lowest, and its item is called unparsable, so that the
denominator is always all items.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.engines.base import Response
from harness.evaluation.judge.cases import Case, asked
from harness.evaluation.judge.verdicts import read_grades
from harness.evaluation.suite_file import Judge

LOWEST = 1


@dataclass(frozen=True)
class Graded:
    """One item: its grade on each of its aspects.  outcome: graded or unparsable."""

    grades: Mapping[str, int]
    outcome: str
    why: str

    @property
    def mean(self) -> float:
        return sum(self.grades.values()) / len(self.grades)


def judge_grade(form: Judge, case: Case, replies: Mapping[str, Response]) -> Graded:
    """replies: by the key of the request. KeyError if it is missing."""
    (request,) = asked(form, case)
    read = read_grades(replies[request.key], form.aspects[case.group], form.scale)
    grades = {name: LOWEST if value is None else value for name, value in read.values.items()}
    if not read.complete:
        return Graded(grades, "unparsable", f"the judge {read.why}")
    return Graded(grades, "graded", ", ".join(f"{name} {value}" for name, value in grades.items()))


def scores_of(graded: Graded) -> dict[str, float]:
    """The scores of one item, by metric."""
    grades = {name: float(value) for name, value in graded.grades.items()}
    return {"grade": graded.mean, "unparsable": float(graded.outcome == "unparsable"), **grades}


def metrics_of(items: Sequence[Graded]) -> dict[str, dict[str, Any]]:
    """Means over the items that have each metric."""
    values: dict[str, list[float]] = {}
    for item in items:
        for name, value in scores_of(item).items():
            values.setdefault(name, []).append(value)
    return {name: {"value": sum(found) / len(found), "n": len(found)} for name, found in values.items()}
