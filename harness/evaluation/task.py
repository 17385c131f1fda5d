"""One task, resolved: what a column of the tables stands for, and the identities that go into keys and protocols.

What decides the questions and what decides the scores are kept apart, so that a mended scorer never asks again. How a
task is chosen is `suite`'s business.
"""

from __future__ import annotations

import functools
import importlib.metadata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.data.sources import Source
from harness.evaluation import index
from harness.evaluation.suite_file import TaskForm
from harness.evaluation.task_file import TaskFile


@dataclass(frozen=True)
class Task:
    """One column, resolved: everything that decides how it is asked and scored.

    kind: lm-eval's output type.  source: the pinned rows.  shot_source: of the worked examples, if any.
    head_source: the rows that its head is trained on, if it has one.
    file: our task file; entry: lm-eval's; one of the two.  limit: rows at most, chosen by `chosen_rows`.
    means: the named means of its suite that it is part of, with how many parts each has.
    notes: sentences for the column's footnotes.
    judged_by: the identity of the judge, for a task that has one.
    """

    suite: str
    name: str
    form: TaskForm
    kind: str
    source: Source
    shots: int = 0
    shot_source: Source | None = None
    head_source: Source | None = None
    file: TaskFile | None = None
    entry: index.Entry | None = None
    limit: int | None = None
    means: tuple[tuple[str, int], ...] = ()
    notes: tuple[str, ...] = ()
    judged_by: Mapping[str, Any] | None = None

    @property
    def chat(self) -> bool:
        """Whether it is asked as a conversation, which needs a model with a chat template."""
        return self.form.chat

    @property
    def primary(self) -> str:
        """The metric shown in tables."""
        return self.form.metric

    @property
    def headline(self) -> bool:
        """Whether it is part of its suite's headline."""
        return self.form.headline

    @property
    def chance(self) -> float:
        """What a guesser gets, in the unit of the primary metric."""
        return self.form.chance

    @property
    def lacking(self) -> list[Source]:
        """Which of the rows it needs are not at hand."""
        needed = (self.source, self.shot_source, self.head_source)
        return [source for source in needed if source is not None and not source.at_hand]

    @property
    def of(self) -> int | None:
        """How many rows the published test set has; where the suite does not say, how many are at hand, if known."""
        return self.form.published or self.source.count

    @property
    def rows(self) -> int | None:
        """How many rows are asked."""
        there = self.source.count
        return min(self.limit, there) if self.limit and there else self.limit or there

    def asking(self) -> dict[str, Any]:
        """All that decides the questions, for keys: with the same, the same requests are made."""
        asked: dict[str, Any] = {
            "name": self.name,
            "version": self.form.version,
            "regime": self.form.regime,
            "chat": self.chat,
            "data": self.source.digest,
            "shots": [self.shots, self.shot_source.digest if self.shot_source else None],
            "limit": self.limit if self.limit and self.rows == self.limit != self.source.count else None,
            "sampling": self.form.sampling.model_dump() if self.form.sampling else None,
            "lm_eval": lm_eval_version(),
        }
        if self.form.tools:
            asked["tools"] = self.form.tools
        if self.form.head and self.head_source:
            settings = self.form.head.model_dump(mode="json", exclude={"data", "smoke_rows"})
            asked["head"] = {**settings, "data": self.head_source.digest}
        file = self.file.asking if self.file else None
        return {**asked, "task": [self.entry.name, self.entry.version] if self.entry else file}

    def scoring(self) -> dict[str, Any]:
        """All that decides the scores of given answers, for keys."""
        scorer = [self.form.scorer.name, self.form.scorer.version]
        task = [self.entry.name, self.entry.version] if self.entry else self.file.scoring if self.file else None
        scored: dict[str, Any] = {"scorer": scorer, "task": task, "lm_eval": lm_eval_version()}
        if self.form.judge:
            scored["judge"] = {"asked": self.form.judge.model_dump(), **(self.judged_by or {})}
        return scored


@functools.cache
def lm_eval_version() -> str:
    """Of the installed lm-eval, without importing it."""
    return importlib.metadata.version("lm_eval")
