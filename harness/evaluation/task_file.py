"""What planning must know of an lm-eval task file, read without lm-eval and without running its code.

Which part of the file says how to ask and which how to score is decided here, because a change of the latter must not
ask the model again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from harness.digest import digest
from harness.errors import HarnessError

SCORING = {"process_results", "metric_list", "filter_list", "metadata", "should_decontaminate", "tag", "task_alias"}


@dataclass(frozen=True)
class TaskFile:
    """kind: lm-eval's output type.  split: the one that is measured.  asking, scoring: digests of the two parts."""

    path: Path
    kind: str
    split: str
    shots: int
    asking: str
    scoring: str


class _Loader(yaml.SafeLoader):
    """Reads `!function module.name` as text."""


def _function(loader: _Loader, node: yaml.ScalarNode) -> str:
    return f"!function {loader.construct_scalar(node)}"


_Loader.add_constructor("!function", _function)


def read_task_file(path: Path) -> TaskFile:
    """HarnessError if there is no such file, or it is not an lm-eval task file."""
    config = _read(path)
    split = config.get("test_split") or config.get("validation_split")
    if "task" not in config or not split:
        raise HarnessError(
            "not an lm-eval task file", where=str(path), todo="it needs `task` and `test_split` or `validation_split`"
        )
    parts = [{k: v for k, v in config.items() if (k in SCORING) is scores} for scores in (False, True)]
    return TaskFile(
        path=path,
        kind=config.get("output_type") or "generate_until",
        split=split,
        shots=config.get("num_fewshot") or 0,
        asking=digest(parts[0]),
        scoring=digest(parts[1]),
    )


def _read(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        raise HarnessError("no such task file", where=str(path))
    try:
        config = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise HarnessError("not a task file", where=f"{path}{line}", why=str(error.problem)) from None
    if not isinstance(config, dict):
        raise HarnessError("not an lm-eval task file", where=str(path))
    if "include" in config:
        raise HarnessError("a task file of a suite may not include another", where=str(path), todo="write it out")
    return config
