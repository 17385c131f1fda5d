"""The samples of a site, in files that a page loads when they are asked for: one a task, and one a task and cell.

A task's file holds what all cells share (items, targets, prompts); a cell's holds what it answered. Texts are cut at
`LONGEST` characters, and say so. Nothing is scored here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.results.columns import Column
from harness.results.frame import Frame, TaskView
from harness.results.items import Samples, name_items

LONGEST = 20_000
Reader = Callable[[str, TaskView], Iterable[Mapping[str, Any]] | None]
"""(cell, task) -> the lines of samples.jsonl, each perhaps with `prompt` and `output` as texts; None: not kept."""

TEXTS = ("answer", "output", "why", "outcome", "finish")


@dataclass(frozen=True)
class Shard:
    """One file. Columns and cells go by their place in the table and in the frame; cell None: what all cells share."""

    column: int
    cell: int | None
    body: Mapping[str, Any]

    @property
    def name(self) -> str:
        return f"samples/{self.column}/{'items' if self.cell is None else self.cell}"


def shards(frame: Frame, columns: Sequence[Column], read: Reader | None) -> Iterator[Shard]:
    """The files of every task that has samples, one after the other, so that they are never all in memory."""
    for place, column in enumerate(columns):
        if not column.of_tasks:
            yield from _column(place, column, frame, read)


def _column(place: int, column: Column, frame: Frame, read: Reader | None) -> Iterator[Shard]:
    shared = _Items()
    for number, cell in enumerate(frame.cells):
        result = next((r for r in cell.results if is_of(r.task, column)), None)
        if result is None or result.state != "ok":
            continue
        lines = read(cell.view.name, result.task) if read else None
        if lines is not None:
            yield Shard(place, number, shared.add(name_items(lines), column.metric))
        elif result.samples is not None:  # the scores by item are kept where the samples themselves are not
            yield Shard(place, number, shared.add_scores(result.samples))
    if shared.names:
        yield Shard(place, None, shared.body())


def is_of(task: TaskView, column: Column) -> bool:
    """Whether the column is that of this task, metric and protocol."""
    return (task.suite, task.task, task.primary, task.protocol) == (
        column.suite,
        column.task,
        column.metric,
        column.protocol,
    )


class _Items:
    """What the cells of one task share, in the order in which the first of them has it."""

    def __init__(self) -> None:
        self.names: dict[str, int] = {}
        self.shared: dict[str, list[Any]] = {"target": [], "prompt": []}

    def add(self, lines: Mapping[str, Mapping[str, Any]], metric: str) -> dict[str, Any]:
        """The file of one cell: lists that follow the items; a list in which nothing is known is left out."""
        for name, line in lines.items():
            if name not in self.names:
                self._take(name, line)
        followed = [lines.get(name) for name in self.names]
        body: dict[str, list[Any]] = {
            "score": [_score((line or {}).get("scores", {}).get(metric)) for line in followed]
        }
        for field in TEXTS:
            body[field] = [_text((line or {}).get(field)) for line in followed]
        prompts = [_text((line or {}).get("prompt")) for line in followed]
        same = zip(prompts, self.shared["prompt"], strict=True)
        body["prompt"] = [None if mine == first else mine for mine, first in same]
        return {field: values for field, values in body.items() if any(v is not None for v in values)}

    def add_scores(self, samples: Samples) -> dict[str, Any]:
        """The file of a cell of which nothing else is known."""
        for name in samples.items:
            if name not in self.names:
                self._take(name, {})
        scores: list[Any] = [_score(x) for x in (samples.values if samples.values is not None else samples.pairs or ())]
        if samples.items != tuple(self.names):
            known = dict(zip(samples.items, scores, strict=True))
            scores = [known.get(name) for name in self.names]
        return {"score": scores}

    def _take(self, name: str, line: Mapping[str, Any]) -> None:
        self.names[name] = len(self.names)
        for field, values in self.shared.items():
            values.append(_text(line.get(field)))

    def body(self) -> dict[str, Any]:
        known = {field: values for field, values in self.shared.items() if any(v is not None for v in values)}
        return {"item": list(self.names), **known}


def _score(score: Any) -> Any:
    """A number, or for a corpus metric [gold, predicted]; None for what is no number, which JSON does not know."""
    if isinstance(score, bool | int | float) and math.isfinite(score):
        return int(score) if score in (0, 1) else round(float(score), 6)
    if isinstance(score, list | tuple) and len(score) == 2:
        return [value if isinstance(value, int | float) else str(value) for value in score]
    return None


def _text(value: Any) -> str | None:
    if value is None or value == "":
        return None
    text = value if isinstance(value, str) else str(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} … ({len(text) - LONGEST} more characters)"
