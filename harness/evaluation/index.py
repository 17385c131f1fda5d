"""What lm-eval's tasks are called and what each of them needs, from a file generated once for the pinned lm-eval.

lm-eval's own index takes over ten seconds to build; this one is read in a few milliseconds and without importing
lm-eval. `python -m harness.evaluation.make_index` writes the file again, and a test compares it with the installed
lm-eval.
"""

from __future__ import annotations

import functools
import gzip
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import HarnessError, Refused, nearest

FILE = Path(__file__).with_name("lm_eval_index.json.gz")


@dataclass(frozen=True)
class Entry:
    """One task of lm-eval.

    file: its YAML, relative to lm_eval/tasks.  kind: lm-eval's output type.  dataset, config: on the hub.
    split: the one that is measured.  shots: examples in the prompt; shot_split: where they come from.
    version: the task's own.  metrics: their names.  needs: what it would want of the network or of the machine and
    does not get here, such as "runs the answers as code in this process".
    """

    name: str
    file: str
    kind: str
    dataset: str
    config: str
    split: str
    shots: int
    shot_split: str
    version: str
    metrics: tuple[str, ...]
    needs: tuple[str, ...]

    @property
    def hub(self) -> str:
        """The source as `hub:<id>[:<config>]`."""
        return f"hub:{self.dataset}:{self.config}" if self.config else f"hub:{self.dataset}"


@functools.cache
def _read() -> dict[str, Any]:
    with gzip.open(FILE, "rt", encoding="utf-8") as f:
        body: dict[str, Any] = json.load(f)
    return body


def lm_eval_version() -> str:
    """The version that the index was made from."""
    return str(_read()["lm_eval"])


def names() -> Sequence[str]:
    """All tasks, without groups and tags."""
    return tuple(_read()["tasks"])


def find(name: str) -> Entry:
    """A task by its lm-eval name. HarnessError for a group or an unknown name, with the nearest."""
    body = _read()
    if name in body["tasks"]:
        return _entry(name, body["tasks"][name], body["shared"])
    if name in body["groups"]:
        raise HarnessError(f"`{name}` is a group of lm-eval's, not one task", todo="name the tasks that are in it")
    raise HarnessError(f"lm-eval {body['lm_eval']} has no task `{name}`", todo=nearest(name, body["tasks"]))


def usable(entry: Entry) -> Entry:
    """The entry, if a suite may use it. Refused with what it needs, otherwise."""
    if entry.needs:
        raise Refused(
            f"lm-eval's task `{entry.name}` cannot be run here: it {' and '.join(entry.needs)}",
            todo="write a task file of your own for the same data (suites/README.md), or choose another task",
        )
    return entry


def _entry(name: str, row: Sequence[Any], shared: Mapping[str, Sequence[Any]]) -> Entry:
    numbers = dict(zip(COLUMNS, row, strict=True))
    texts = {c: shared[c][numbers[c]] if c in shared else numbers[c] for c in COLUMNS}
    return Entry(name, **{**texts, "metrics": tuple(texts["metrics"]), "needs": tuple(texts["needs"])})


COLUMNS = ("file", "kind", "dataset", "config", "split", "shots", "shot_split", "version", "metrics", "needs")
