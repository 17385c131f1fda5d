"""What is put before a judge: each row's question with the answer that was stored, and the reference answer if any.

Which comparisons or grades are asked of a case follows from the task's `judge:` alone, so asking and scoring agree.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.engines.base import Request
from harness.errors import HarnessError
from harness.evaluation.judge import wording
from harness.evaluation.samples import Sample
from harness.evaluation.suite_file import Judge

ALL = "all"  # the group of every row, where rows are not told apart


@dataclass(frozen=True)
class Case:
    """One thing to judge.  reference: "" for grades.  group: which aspects it is graded on."""

    question: str
    answer: str
    reference: str = ""
    group: str = ALL


def cases(form: Judge, rows: Sequence[Mapping[str, Any]], samples: Sequence[Sample]) -> list[Case]:
    """A case for every sample. rows: those of the task, which `doc` of a sample counts. HarnessError for a bad row."""
    return [_case(form, rows[sample["doc"]], sample["answer"]) for sample in samples]


def _case(form: Judge, row: Mapping[str, Any], answer: str) -> Case:
    group = str(_pick(row, form.aspects_by)) if form.aspects_by else ALL
    if form.form == "grade" and group not in form.aspects:
        raise HarnessError(f"no aspects are named for rows whose `{form.aspects_by}` is `{group}`")
    reference = str(_pick(row, form.reference)) if form.reference else ""
    return Case(_plain(str(_pick(row, form.question))), _plain(answer), _plain(reference), group)


def _pick(row: Mapping[str, Any], path: str) -> Any:
    """A column, or a part of one: `turns.0`."""
    value: Any = row
    for part in path.split("."):
        try:
            value = value[int(part)] if isinstance(value, list) else value[part]
        except (KeyError, IndexError, ValueError, TypeError):
            raise HarnessError(f"a row has no `{path}`", why=f"its columns are {', '.join(row)}") from None
    return value


def _plain(text: str) -> str:
    """Text that can be written down: a lone surrogate cannot."""
    return text.encode("utf-8", "replace").decode("utf-8")


def asked(form: Judge, case: Case) -> tuple[Request, ...]:
    """What is asked of one case: (answer first, reference first) for a comparison, one request for grades."""
    if form.form == "grade":
        aspects = form.aspects[case.group]
        return (wording.grade(case.question, case.answer, aspects, form.scale, max_tokens=form.max_tokens),)
    orders = ((case.answer, case.reference), (case.reference, case.answer))
    return tuple(wording.compare(case.question, *order, max_tokens=form.max_tokens) for order in orders)


def all_asked(form: Judge, judged: Sequence[Case]) -> list[Request]:
    """Every request of many cases, each once."""
    return list({request.key: request for case in judged for request in asked(form, case)}.values())
