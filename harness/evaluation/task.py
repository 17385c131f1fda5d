"""One task, resolved: what a column of the tables stands for, and the identities that go into keys and protocols.

What decides the questions and what decides the scores are kept apart, so that a mended scorer never asks again. How a
task is chosen is `suite`'s business.
"""

from __future__ import annotations

import functools
import importlib.metadata
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
    file: our task file; entry: lm-eval's; one of the two.  limit: rows at most, chosen by `chosen_rows`.
    notes: sentences for the column's footnotes.
    """

    suite: str
    name: str
    form: TaskForm
    kind: str
    source: Source
    shots: int = 0
    shot_source: Source | None = None
    file: TaskFile | None = None
    entry: index.Entry | None = None
    limit: int | None = None
    notes: tuple[str, ...] = ()

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
    def of(self) -> int | None:
        """How many rows the test set has, None where only reading can tell."""
        return self.source.count

    @property
    def rows(self) -> int | None:
        """How many rows are asked."""
        return min(self.limit, self.of) if self.limit and self.of else self.limit or self.of

    def asking(self) -> dict[str, Any]:
        """All that decides the questions, for keys: with the same, the same requests are made."""
        asked: dict[str, Any] = {
            "name": self.name,
            "version": self.form.version,
            "regime": self.form.regime,
            "chat": self.chat,
            "data": self.source.digest,
            "shots": [self.shots, self.shot_source.digest if self.shot_source else None],
            "limit": self.limit if self.limit and (self.of is None or self.limit < self.of) else None,
            "sampling": self.form.sampling.model_dump() if self.form.sampling else None,
            "lm_eval": lm_eval_version(),
        }
        if self.entry:
            return {**asked, "task": [self.entry.name, self.entry.version]}
        return {**asked, "task": self.file.asking if self.file else None}

    def scoring(self) -> dict[str, Any]:
        """All that decides the scores of given answers, for keys."""
        scorer = [self.form.scorer.name, self.form.scorer.version]
        task = [self.entry.name, self.entry.version] if self.entry else self.file.scoring if self.file else None
        return {"scorer": scorer, "task": task, "lm_eval": lm_eval_version()}


@functools.cache
def lm_eval_version() -> str:
    """Of the installed lm-eval, without importing it."""
    return importlib.metadata.version("lm_eval")
