"""What the tests about every task of every suite share: the tasks, and scores of answers that are made up.

Tasks that train a head or ask a judge are left out where answers are scored, since an answer alone does not give theirs
a score.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from harness.engines.base import Request, Response
from harness.errors import HarnessError, Problems
from harness.evaluation import lm
from harness.evaluation.suite import Task, choose_tasks, load_suite, suite_names

Answer = Callable[[Mapping[str, Any], Request], str]

FORMS = {f"{suite}/{name}": form for suite in suite_names() for name, form in load_suite(suite).tasks.items()}
SCORED = [label for label, form in FORMS.items() if not form.head and not form.judge]
IMPROBABLE = -100.0  # the log-probability of the choices that are not said


def task_or_none(label: str, mirror: Path | None, limit: int | None) -> Task | None:
    """A task by `suite/task`, or None where its data are not at hand."""
    suite, name = label.split("/")
    try:
        return choose_tasks(load_suite(suite), only=[name], limit=limit, mirror=mirror)[0][0]
    except (HarnessError, Problems):
        return None


def task_or_skip(label: str, mirror: Path | None, limit: int | None) -> Task:
    """A task; the test is skipped where its data are not at hand."""
    task = task_or_none(label, mirror, limit)
    if task is None:
        pytest.skip(f"the data of {label} are not at hand")
    return task


def documents(task: Task) -> list[dict[str, Any]]:
    """The rows as the task's file sees them, after its `process_docs`."""
    return [dict(document) for document in lm._open(task).eval_docs]


def said(request: Request, text: str) -> Response:
    """An engine's response: the text, or, among choices, certainty of the one that the text is."""
    if request.kind == "generate":
        return Response(request.key, text=text, finish="stop")
    chosen = [choice == text for choice in request.choices]
    assert any(chosen), f"{text!r} is none of {request.choices}"
    return Response(request.key, logprobs=tuple(0.0 if c else IMPROBABLE for c in chosen), greedy=tuple(chosen))


def questions(task: Task) -> list[tuple[dict[str, Any], Request]]:
    """Every request of a task, with the row that it asks about."""
    rows = documents(task)
    return [(rows[doc], request) for doc, asked in lm.requests_by_document(task).items() for request in asked]


def scored(task: Task, asked: list[tuple[dict[str, Any], Request]], answer: Answer) -> lm.Scored:
    """The scores of a model that answers the questions of a task like this."""
    return lm.score(task, {request.key: said(request, answer(row, request)) for row, request in asked})
