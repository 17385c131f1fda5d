"""What models that know nothing score on every task.

    python benchmarks/null_levels.py --mirror DIR [--write] [TASK...]

Prints the level of each such model on each task, and with `--write` puts it into tests/null_levels.yaml, against which
tests/test_null_models.py compares. The reasons in that file are written by hand and are kept.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from harness.engines.base import Request  # noqa: E402 (after the path to tests/)
from harness.evaluation.suite import Task  # noqa: E402
from tests.every_task import SCORED, Answer, questions, scored, task_or_none  # noqa: E402

TABLE = ROOT / "tests" / "null_levels.yaml"
ROWS, FEW = 100, 20  # few where programs are run, worked examples set or expressions simplified
SLOW = {f"math/{name}" for name in ("gsm8k_base", "gsm8k_tulu3", "math500_base", "olympiadbench", "ocw-stem")}
ABOVE = 1e-6  # of a level, so that rounding is no finding


def asked(request: Request) -> str:
    """The last turn of a conversation, or the text."""
    return str(request.messages[-1]["content"]) if request.messages else request.text


GENERATED: Mapping[str, Answer] = {
    "empty": lambda doc, request: "",
    "constant": lambda doc, request: "The answer is \\boxed{2}.\n#### 2",
    "letter": lambda doc, request: "The answer is \\boxed{A}.",
    "echo": lambda doc, request: asked(request),
    "refuse": lambda doc, request: "I'm sorry, but I can't help with that.",
    "call nothing": lambda doc, request: "[]",
}
CHOSEN: Mapping[str, Answer] = {
    "first choice": lambda doc, request: request.choices[0],
    "longest choice": lambda doc, request: max(request.choices, key=len),
}


def null_models(task: Task) -> Mapping[str, Answer]:
    """The models that can answer a task."""
    return GENERATED if task.form.sampling else CHOSEN


def limit(label: str) -> int:
    """How many rows are enough to see a scorer that rewards nothing."""
    return FEW if label.startswith("code/") or label in SLOW else ROWS


def levels(task: Task) -> dict[str, float]:
    """The primary metric of each null model, in its own unit."""
    asked = questions(task)
    found = {
        name: scored(task, asked, model).metrics[task.primary]["value"] for name, model in null_models(task).items()
    }
    return {name: round(float(value), 4) for name, value in found.items()}


def table() -> dict[str, Any]:
    """The committed levels: {"suite/task": {"rows": n, "levels": {model: level}, "reasons": {model: sentence}}}."""
    return yaml.safe_load(TABLE.read_text()) if TABLE.exists() else {}


def write(levels: Mapping[str, Any]) -> None:
    """Replace the committed table."""
    body = yaml.safe_dump({k: levels[k] for k in sorted(levels)}, sort_keys=False, width=110, allow_unicode=True)
    TABLE.write_text(HEAD + body)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tasks", nargs="*", metavar="TASK", help="names as `math/gsm8k`; all, if none is named")
    parser.add_argument("--mirror", type=Path)
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    known = table()
    for label in args.tasks or SCORED:
        rows = limit(label)
        task = task_or_none(label, args.mirror, rows)
        if task is None:
            continue
        found = levels(task)
        print(f"{label} ({rows} rows, chance {task.chance:g}): {found}", flush=True)
        reasons = {m: r for m, r in known.get(label, {}).get("reasons", {}).items() if m in found}
        known[label] = {"rows": rows, "levels": found, "reasons": reasons}
        if args.write:
            write(known)


HEAD = """\
# What models that know nothing score on each task (primary metric, on `rows` rows chosen by hash), and why where that
# is above chance. Levels: python benchmarks/null_levels.py --mirror DIR --write.
"""


if __name__ == "__main__":
    main()
