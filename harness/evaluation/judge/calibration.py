"""The test that a judge must pass before its scores are shown: pairs with an obvious answer, and identical pairs.

A comparing judge sees each obvious pair in both orders and must prefer the same answer each time; of a pair of
identical answers it must say that it is a tie. A grading judge must grade the better answer higher. In many pairs the
worse answer is the longer one. The pairs are our own, in suites/judge_calibration.jsonl, and are no test of taste: a
judge that fails them cannot do the work at all.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.digest import file_digest
from harness.engines.base import Request, Response
from harness.evaluation.judge.cases import ALL, Case, asked
from harness.evaluation.judge.grading import judge_grade
from harness.evaluation.judge.verdicts import read_verdict
from harness.evaluation.suite_file import Judge
from harness.packaged import packaged

PASS = 0.9  # share of the checks


@dataclass(frozen=True)
class Item:
    """A question with a better and a worse answer; two identical ones where neither is better."""

    id: str
    category: str
    question: str
    better: str
    worse: str

    @property
    def identical(self) -> bool:
        return self.better == self.worse


@dataclass(frozen=True)
class Calibration:
    """What came of it: how many of the checks were right, how many replies could not be read, what was wrong."""

    right: int
    of: int
    unreadable: int
    wrong: tuple[str, ...]

    @property
    def passed(self) -> bool:
        return self.right >= math.ceil(PASS * self.of)

    @property
    def reason(self) -> str:
        """The sentence for a footnote."""
        junk = f"; {self.unreadable} replies could not be read" if self.unreadable else ""
        needed = math.ceil(PASS * self.of)
        return f"judge failed calibration ({self.right} of {self.of} checks, {needed} needed{junk})"

    def as_json(self) -> dict[str, Any]:
        return {"right": self.right, "of": self.of, "unreadable": self.unreadable, "wrong": list(self.wrong)}

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Calibration:
        return cls(**{**body, "wrong": tuple(body["wrong"])})


def calibration_file() -> Path:
    return packaged("suites/judge_calibration.jsonl")


def identity() -> dict[str, Any]:
    """What of the test is in the identity of a judged number."""
    return {"pairs": file_digest(calibration_file())[:16], "pass": PASS}


def items() -> list[Item]:
    """The pairs, in the order of the file."""
    return [Item(**json.loads(line)) for line in calibration_file().read_text(encoding="utf-8").splitlines()]


def calibration_requests(form: Judge) -> list[Request]:
    """All that a judge of this form is asked, each once."""
    found = [r for _, cases in _checks(form) for case in cases for r in asked(form, case)]
    return list({request.key: request for request in found}.values())


def assess(form: Judge, replies: Mapping[str, Response]) -> Calibration:
    """replies: to `calibration_requests`, by key."""
    results = [(item, *_check(form, cases, replies)) for item, cases in _checks(form)]
    right = sum(sum(good) for _, good, _ in results)
    of = sum(len(good) for _, good, _ in results)
    wrong = tuple(item.id for item, good, _ in results if not all(good))
    return Calibration(right, of, sum(junk for _, _, junk in results), wrong)


def _checks(form: Judge) -> list[tuple[Item, tuple[Case, ...]]]:
    """The cases of each pair: itself for a comparison (the two orders are asked anyway), both answers for grades."""
    found: list[tuple[Item, tuple[Case, ...]]] = []
    for item in items():
        group = item.category if form.aspects_by else ALL
        if form.form == "pairwise":
            found.append((item, (Case(item.question, item.better, item.worse),)))
        elif not item.identical and group in form.aspects:
            found.append((item, tuple(Case(item.question, text, "", group) for text in (item.better, item.worse))))
    return found


def _check(form: Judge, cases: Sequence[Case], replies: Mapping[str, Response]) -> tuple[list[bool], int]:
    """(whether each check came out right, how many replies could not be read)."""
    if form.form == "grade":
        better, worse = (judge_grade(form, case, replies) for case in cases)
        junk = sum(g.outcome == "unparsable" for g in (better, worse))
        return [not junk and better.mean > worse.mean], junk
    (case,) = cases
    if case.answer == case.reference:
        verdict = read_verdict(replies[asked(form, case)[0].key])
        return [verdict.better == "tie"], int(verdict.better is None)
    first, second = (read_verdict(replies[request.key]) for request in asked(form, case))
    return [first.better == "1", second.better == "2"], sum(v.better is None for v in (first, second))
