"""The first request of every task is pinned: what is sent changes only on purpose.

tests/golden_prompts.json holds, for each task, the key of that request, which covers every character and setting of it,
and its shape: the request with the row's own texts replaced by the names of their fields, since the rows may not be
passed on with this code. After a change that is meant, and with the task's `version` raised:

    python -m tests.test_golden_prompts --mirror DIR
"""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from harness.data.sources import rows
from harness.engines.base import Request
from harness.evaluation.lm import chosen_rows
from harness.evaluation.suite import Task
from tests.every_task import FORMS, questions, task_or_none, task_or_skip

FIXTURE = Path(__file__).with_name("golden_prompts.json")
GOLDEN = json.loads(FIXTURE.read_text(encoding="utf-8")) if FIXTURE.exists() else {}
ASKED = [label for label, form in FORMS.items() if not form.head]
SHORT = 12  # characters: shorter texts of a row, such as `yes`, stand in prompts for other reasons too
STATED = Request()


def pinned(task: Task) -> dict[str, Any]:
    """The key and the shape of a task's first request. What a request leaves at its default is left out."""
    _, request = questions(task)[0]
    body = {name: value for name, value in asdict(request).items() if value != getattr(STATED, name)}
    fields = own_texts(chosen_rows(task), "")
    if task.shot_source is not None:
        fields |= own_texts(rows(task.shot_source), "example.")
    sent = json.dumps(body, sort_keys=True, ensure_ascii=False)
    there = [text for text in sorted(fields, key=lambda text: (-len(text), text)) if text in sent]
    if there:
        sent = re.sub("|".join(map(re.escape, there)), lambda found: f"<{fields[found[0]]}>", sent)
    return {"key": request.key, "shape": json.loads(sent)}


def own_texts(value: Any, name: str) -> dict[str, str]:
    """The texts that are long enough, as they stand in JSON, each with the name of its field."""
    found: dict[str, str] = {}
    if isinstance(value, dict):
        for key, each in value.items():
            found |= own_texts(each, name + key if name in ("", "example.") else f"{name}.{key}")
    elif isinstance(value, list):
        for each in value:
            found |= own_texts(each, name)
    elif isinstance(value, str):
        texts = {json.dumps(text, ensure_ascii=False)[1:-1] for text in (value, value.strip(), value.rstrip())}
        found = {text: name for text in texts if len(text) >= SHORT}
    return found


@pytest.mark.parametrize("label", ASKED)
def test_the_first_request_is_the_pinned_one(label: str, mirror: Path) -> None:
    task = task_or_skip(label, mirror, 1)
    again = "if that is meant: raise its `version`, then python -m tests.test_golden_prompts --mirror DIR " + label
    assert label in GOLDEN, f"{label} is not pinned; {again}"
    found = pinned(task)
    assert found["shape"] == GOLDEN[label]["shape"], f"the request of {label} has changed; {again}"
    assert found["key"] == GOLDEN[label]["key"], f"the request of {label} has changed in its row's own texts; {again}"


def test_only_tasks_are_pinned() -> None:
    assert set(GOLDEN) <= set(ASKED)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", metavar="suite/task", help="all, if none is named")
    parser.add_argument("--mirror", type=Path, required=True)
    args = parser.parse_args()
    golden = {label: entry for label, entry in GOLDEN.items() if label in ASKED}
    for label in args.tasks or ASKED:
        task = task_or_none(label, args.mirror, 1)
        if task is None:
            print(f"{label}: its data are not at hand")
            continue
        golden[label] = pinned(task)
    text = json.dumps(golden, indent=1, sort_keys=True, ensure_ascii=False)
    FIXTURE.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
