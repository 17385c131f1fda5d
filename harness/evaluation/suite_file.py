"""What a suite file may say: one pydantic model a block, and the checks that need two values at once.

    name: math
    tasks:
      gsm8k:                    # the name of the column
        version: 1
        file: tasks/math.yaml   # an lm-eval task file, relative to this file; or `lm_eval: <name of a shipped task>`
        ...

Whether the data are at hand is `suite`'s business.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from harness.config import Loaded
from harness.errors import HarnessError, nearest
from harness.matrix.schema import DataEntry, Label, Strict


class Sampling(Strict):
    """How answers are sampled; nothing is taken from a model's or an engine's defaults.

    max_tokens: new tokens at most.  stop: strings that end an answer and are not part of it.
    """

    temperature: float = Field(ge=0)
    max_tokens: int = Field(gt=0)
    stop: list[str]
    top_p: float = Field(default=1.0, gt=0, le=1)


class Scorer(Strict):
    """What scores the answers. version: raised whenever the same answer may get another score."""

    name: str = "lm-eval"
    version: int = Field(default=1, gt=0)


class TaskForm(Strict):
    """One column of results.

    version: raised when the questions change in a way that neither the data's nor the file's digest shows.
    file: an lm-eval task file.  lm_eval: the name of a task that lm-eval ships; one of the two is given.
    data: alternatives for the same rows, the first at hand is used; a shipped task knows its own.
    instead_of: this task is measured only where the data of that task are not at hand.
    regime: the public name of the way of asking.  chat: asked as a conversation, through the model's template.
    shots: worked examples in the prompt; left out, what the task file says.
    sampling: all of it, for tasks whose answers are generated.
    metric: the one shown, named as lm-eval does: `metric` or `metric,filter`.  headline: part of the suite's mean.
    chance: what a guesser gets, in the metric's unit.  licence: of the data.
    """

    version: int = Field(gt=0)
    file: str | None = None
    lm_eval: str | None = None
    data: list[DataEntry] = Field(default_factory=list)
    instead_of: str | None = None
    regime: str = Field(min_length=1)
    chat: bool
    shots: Annotated[int, Field(ge=0)] | None = None
    sampling: Sampling | None = None
    scorer: Scorer = Scorer()
    metric: str = Field(min_length=1)
    headline: bool = True
    chance: float
    licence: str = Field(min_length=1)


class SuiteFile(Strict):
    """The whole of a suite file."""

    name: Label
    about: str = ""
    tasks: dict[Label, TaskForm] = Field(min_length=1)


def check(loaded: Loaded[SuiteFile]) -> Iterator[HarnessError]:
    """Mistakes between the values of a suite file, each with its line."""
    tasks = loaded.value.tasks
    for name, form in tasks.items():
        where = loaded.where(("tasks", name))
        if (form.file is None) == (form.lm_eval is None):
            yield HarnessError(f"task `{name}` needs `file` or `lm_eval`, one of the two", where=where)
        elif form.file is not None and not form.data:
            yield HarnessError(f"task `{name}` has no `data`", where=where, todo="say where its rows come from")
        if form.instead_of is not None and form.instead_of not in tasks:
            place = loaded.where(("tasks", name, "instead_of"))
            todo = nearest(form.instead_of, tasks)
            yield HarnessError(f"there is no task `{form.instead_of}` in this suite", where=place, todo=todo)
        if form.instead_of == name:
            yield HarnessError(f"task `{name}` stands in for itself", where=loaded.where(("tasks", name, "instead_of")))
