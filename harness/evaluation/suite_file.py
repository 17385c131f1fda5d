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
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from harness.config import Loaded
from harness.errors import HarnessError, nearest
from harness.evaluation.judge.wording import ASPECTS
from harness.matrix.schema import DataEntry, Label, Strict


class Sampling(Strict):
    """How answers are sampled; nothing is taken from a model's or an engine's defaults.

    max_tokens: new tokens at most.  stop: strings that end an answer and are not part of it.  repeats: answers to each
    question, each with a seed of its own; a scorer then gets the list of them.
    """

    temperature: float = Field(ge=0)
    max_tokens: int = Field(gt=0)
    stop: list[str]
    top_p: float = Field(default=1.0, gt=0, le=1)
    repeats: int = Field(default=1, gt=0)


class Scorer(Strict):
    """What scores the answers. version: raised whenever the same answer may get another score."""

    name: str = "lm-eval"
    version: int = Field(default=1, gt=0)


class Smoke(Strict):
    """The small size of a task, for tests and first looks. rows: items, chosen by their content's hash."""

    rows: int = Field(default=100, gt=0)
    repeats: int | None = Field(default=None, gt=0)


class Recipe(Strict):
    """How a head is trained: AdamW over fp32 weights, warm-up, then a linear fall to zero.

    train: the head alone, or `all`, the backbone with it.  warmup: share of the steps.  max_length: tokens of a row;
    what is longer is cut.  seed: of the head's first weights, of the order of rows and of dropout.
    """

    train: Literal["head", "all"]
    epochs: int = Field(gt=0)
    batch_size: int = Field(gt=0)
    lr: float = Field(gt=0)
    warmup: float = Field(ge=0, lt=1)
    weight_decay: float = Field(ge=0)
    max_length: int = Field(gt=0)
    seed: int = Field(ge=0)


class Head(Strict):
    """A classification or regression head is trained for the task on every artifact, and its outputs are scored.

    A task that chooses among answers gets one output a choice, and the label is the number of the right one; a task
    that generates gets a single output, which is fitted to the label by least squares.
    data: alternatives for the same training rows, the first at hand is used; `rows` caps them.
    columns: the sentence or the two sentences of a row.  label: the column of the label.  smoke_rows: training rows at
    the smoke size.
    """

    data: list[DataEntry] = Field(min_length=1)
    columns: list[str] = Field(min_length=1, max_length=2)
    label: str
    recipe: Recipe
    smoke_rows: int = Field(default=64, gt=0)


class Judge(Strict):
    """A judge reads the answers before they are scored.

    form: "pairwise" asks which is better, the answer or the row's reference answer, in both orders; "grade" asks for
    whole numbers from 1 to `scale`.
    question, reference: columns of a row, or parts of one, as in `turns.0`.  reference_name: whose answers those are.
    aspects: what is graded (names in `judge.wording`), by group: `all`, or the values of the column `aspects_by`.
    max_tokens: of the judge's reply.
    """

    form: Literal["pairwise", "grade"]
    question: str
    reference: str | None = None
    reference_name: str | None = None
    aspects: dict[str, Annotated[list[str], Field(min_length=1)]] = Field(default_factory=dict)
    aspects_by: str | None = None
    scale: int = Field(default=10, ge=2, le=100)
    max_tokens: int = Field(default=256, gt=0)

    @model_validator(mode="after")
    def _whole(self) -> Judge:
        if self.form == "pairwise" and not (self.reference and self.reference_name):
            raise ValueError("a pairwise judge needs `reference` and `reference_name`")
        if self.form == "grade" and (not self.aspects or (not self.aspects_by and set(self.aspects) != {"all"})):
            raise ValueError("a grading judge needs `aspects: {all: [...]}`, or groups of them with `aspects_by`")
        for name in [name for names in self.aspects.values() for name in names]:
            if name not in ASPECTS:
                raise ValueError(f"`{name}` is no aspect; {nearest(name, ASPECTS)}")
        return self

    def regime(self) -> dict[str, Any]:
        """What a judge must be calibrated for: all but which columns are read."""
        return self.model_dump(include={"form", "aspects", "scale", "max_tokens"})


class TaskForm(Strict):
    """One column of results.

    version: raised when the questions change in a way that neither the data's nor the file's digest shows.
    file: an lm-eval task file.  lm_eval: the name of a task that lm-eval ships; one of the two is given.
    data: alternatives for the same rows, the first at hand is used; a shipped task knows its own.
    instead_of: this task is measured only where the data of that task are not at hand.
    regime: the public name of the way of asking.  chat: asked as a conversation, through the model's template.
    tools: the column of a processed row with the tools that the model's own chat template is given.
    shots: worked examples in the prompt; left out, what the task file says.  shot_data: where they come from, for a
    task file of our own that does not carry them itself.
    sampling: all of it, for tasks whose answers are generated.
    metric: the one shown, named as lm-eval does: `metric` or `metric,filter`.  also: metrics shown beside it.
    headline: part of the suite's mean.  extra: measured only when a matrix names the task, or says `tasks: all`.
    chance: what a guesser gets, in the metric's unit.  licence: of the data.
    cluster: the column by which items belong together (a shared passage), so that they are not taken as independent.
    published: rows of the published test set; fewer of them is a subset, and the column's heading says so.
    known_bad: items whose own gold answer does not pass, counted all the same.
    head, judge: for tasks that are not scored straight from what an engine says.
    """

    version: int = Field(gt=0)
    file: str | None = None
    lm_eval: str | None = None
    data: list[DataEntry] = Field(default_factory=list)
    instead_of: str | None = None
    regime: str = Field(min_length=1)
    chat: bool
    tools: str | None = None
    shots: Annotated[int, Field(ge=0)] | None = None
    shot_data: list[DataEntry] = Field(default_factory=list)
    sampling: Sampling | None = None
    scorer: Scorer = Scorer()
    metric: str = Field(min_length=1)
    also: list[str] = Field(default_factory=list)
    headline: bool = True
    extra: bool = False
    chance: float
    licence: str = Field(min_length=1)
    cluster: str | None = None
    published: int | None = Field(default=None, gt=0)
    known_bad: list[str | int] = Field(default_factory=list)
    smoke: Smoke = Smoke()
    head: Head | None = None
    judge: Judge | None = None


class SuiteFile(Strict):
    """The whole of a suite file.

    means: named means of some tasks' primary metrics beside the suite's headline, such as "GLUE mirror-9"; shown where
    all parts were measured.
    """

    name: Label
    about: str = ""
    means: dict[str, list[str]] = Field(default_factory=dict)
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
        if form.judge and (form.sampling is None or form.sampling.repeats > 1):
            yield HarnessError(f"task `{name}` is judged, so it needs `sampling` with one answer a row", where=where)
        if form.instead_of is not None and form.instead_of not in tasks:
            place = loaded.where(("tasks", name, "instead_of"))
            todo = nearest(form.instead_of, tasks)
            yield HarnessError(f"there is no task `{form.instead_of}` in this suite", where=place, todo=todo)
        if form.tools and not (form.chat and form.sampling):
            yield HarnessError(f"task `{name}` offers tools, so it needs `chat: true` and `sampling`", where=where)
        if form.head and form.chat:
            yield HarnessError(f"task `{name}` trains a head, which reads no conversations", where=where)
        for column in form.data + form.shot_data + (form.head.data if form.head else []):
            if column.revision and not column.source.startswith("hub:"):
                yield HarnessError(f"task `{name}`: only a source of the hub has a `revision`", where=where)
        if form.instead_of == name:
            yield HarnessError(f"task `{name}` stands in for itself", where=loaded.where(("tasks", name, "instead_of")))
    for mean, parts in loaded.value.means.items():
        for part in parts:
            if part not in tasks:
                place = loaded.where(("means", mean))
                yield HarnessError(f"there is no task `{part}` in this suite", where=place, todo=nearest(part, tasks))
