"""Models that know nothing: none scores above its committed level on any task, and what is above chance has a reason.

A scorer that rewards nothing is found here; one that rejects everything in test_oracle.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.null_levels import ABOVE, levels, table
from tests.every_task import FORMS, SCORED, task_or_skip

TABLE = table()
AGAIN = "python benchmarks/null_levels.py --mirror DIR --write {}, and say why in tests/null_levels.yaml"


@pytest.mark.parametrize("label", SCORED)
def test_no_null_model_scores_above_its_level(label: str, mirror: Path) -> None:
    task = task_or_skip(label, mirror, TABLE[label]["rows"] if label in TABLE else 1)
    assert label in TABLE, f"the task has no levels: {AGAIN.format(label)}"
    allowed = TABLE[label]["levels"]
    above = {model: level for model, level in levels(task).items() if level > allowed[model] + ABOVE}
    assert not above, f"above the committed {allowed}: mend the scorer, or {AGAIN.format(label)}"


@pytest.mark.parametrize("label", TABLE)
def test_a_level_above_chance_has_a_reason(label: str) -> None:
    above = {model for model, level in TABLE[label]["levels"].items() if level > FORMS[label].chance}
    assert above <= {model for model, reason in TABLE[label]["reasons"].items() if reason}


def test_levels_are_of_tasks() -> None:
    assert set(TABLE) <= set(SCORED)
