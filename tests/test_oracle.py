"""Gold answers score 100 % on every task that has any, less the items named in `known_bad`.

A scorer that rejects everything is found here; one that rewards nothing in test_null_models.py. The tests take some
rows of each task; `python -m tests.test_oracle --mirror DIR [suite/task ...]` takes all of them.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from harness.evaluation.suite import Task, suite_names
from tests.every_task import FORMS, Answer, questions, scored, task_or_none, task_or_skip

ROWS = 20


def oracles() -> dict[str, Answer]:
    """By `suite/task`, from tests/oracle_<suite>.py."""
    found: dict[str, Answer] = {}
    for suite in suite_names():
        module = f"tests.oracle_{suite}"
        if importlib.util.find_spec(module):
            found |= {f"{suite}/{name}": answer for name, answer in importlib.import_module(module).ORACLES.items()}
    return found


ORACLES = oracles()


def failures(task: Task, answer: Answer) -> tuple[list[dict[str, Any]], list[str]]:
    """The rows whose gold answer is not right, and why."""
    asked = questions(task)
    result = scored(task, asked, answer)
    rows = {id(row): row for row, _ in asked}.values()
    failed = [(row, s) for row, s in zip(rows, result.samples, strict=True) if not right(s["scores"][task.primary])]
    return [row for row, _ in failed], [
        f"{s['target']!r}: {s['answer']!r} {s['outcome']} {s['why']}" for _, s in failed
    ]


def right(score: float | list[Any]) -> bool:
    """Whether a document's score is full, or, for a metric of the whole set, its prediction is the gold label."""
    return score[0] == pytest.approx(score[1]) if isinstance(score, list) else score == pytest.approx(1.0)


def is_known(row: Mapping[str, Any], task: Task) -> bool:
    """Whether one of the row's own values names it among the bad ones."""
    return any(value in task.form.known_bad for value in row.values() if isinstance(value, (str, int)))


@pytest.mark.parametrize("label", ORACLES)
def test_the_gold_answer_is_right(label: str, mirror: Path) -> None:
    task = task_or_skip(label, mirror, ROWS)
    failed, why = failures(task, ORACLES[label])
    assert all(is_known(row, task) for row in failed), why


def test_every_oracle_is_of_a_task() -> None:
    assert set(ORACLES) <= set(FORMS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tasks", nargs="*", metavar="suite/task")
    parser.add_argument("--mirror", type=Path, required=True)
    args = parser.parse_args()
    for label in args.tasks or ORACLES:
        task = task_or_none(label, args.mirror, None)
        if task is None:
            continue
        started = time.monotonic()
        failed, why = failures(task, ORACLES[label])
        unknown = [w for row, w in zip(failed, why, strict=True) if not is_known(row, task)]
        known = f"{len(failed) - len(unknown)} of {len(task.form.known_bad)} known bad"
        print(
            f"{label}: {len(failed)} of {task.rows} fail, {known}, {time.monotonic() - started:.1f} s",
            flush=True,
        )
        for reason in unknown:
            print(f"    {reason[:300]}")


if __name__ == "__main__":
    main()
