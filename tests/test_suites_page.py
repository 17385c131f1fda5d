"""The table of all tasks in suites/README.md is the one that the suite files give."""

from __future__ import annotations

from pathlib import Path

from harness.commands.suites import page
from harness.evaluation.suite import load_suite, suite_names

PAGE = Path(__file__).parents[1] / "suites" / "README.md"
BEGIN, END = "<!-- made by `harness suites --markdown` -->\n", "<!-- end -->"


def test_the_table_of_tasks_is_up_to_date() -> None:
    rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)[2]
    table = rest.partition(END)[0]
    made = page(map(load_suite, suite_names()))
    assert table.strip() == made, f"put what `harness suites --markdown` prints between the two marks of {PAGE.name}"


def test_every_task_is_in_it_once() -> None:
    made = page(map(load_suite, suite_names()))
    for name in suite_names():
        for task in load_suite(name).tasks:
            assert made.count(f"| `{task}`") == 1
