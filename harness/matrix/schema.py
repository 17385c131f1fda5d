"""What matrix.yaml may say: one pydantic model a block, with every default.

Types, ranges and names of keys are checked here, and nothing that needs two blocks at once (`harness.matrix` does
that). Whether a method, a model or a suite of a name exists is not known here either.
"""

from __future__ import annotations

import re
import shlex
import string
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag, field_validator, model_validator


class Strict(BaseModel):
    """Base of everything that is read from YAML: unknown keys are errors, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _check_label(label: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*", label):
        raise ValueError("a name may hold letters, digits, `_`, `.`, `+` and `-` only, since files are named after it")
    return label


def _check_endpoint(address: str) -> str:
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("an endpoint begins with http:// or https://")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("no key in the address, which is written into results: name a variable in `key_variable`")
    return address.rstrip("/").removesuffix("/chat/completions")


def _shape(value: Any) -> str:
    names = {dict: "<a mapping>", list: "<a list>", str: "<text>", int: "<a whole number>", type(None): "<nothing>"}
    return names.get(type(value), "<something else>")


Label = Annotated[str, AfterValidator(_check_label)]
Shaped = Discriminator(_shape)  # reports only on the form that was written, where a block may have several forms
IsMapping, IsList, IsText, IsNumber, IsNothing = (
    Tag(name) for name in ("<a mapping>", "<a list>", "<text>", "<a whole number>", "<nothing>")
)


class Budget(Strict):
    """What one training may spend; exactly one is given.

    tokens: tokens of the rows put through forward and backward (prompt and completion, padding not counted).
    steps: optimiser steps.
    """

    tokens: int | None = Field(default=None, gt=0)
    steps: int | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _exactly_one(self) -> Budget:
        if (self.tokens is None) == (self.steps is None):
            raise ValueError(f"give `tokens` or `steps`, {'not both' if self.tokens else 'one of them'}")
        return self


PLACEMENT = {"micro_batch", "checkpoint_seconds"}  # settings that cannot change a result, so they are in no key


class TrainSettings(Strict):
    """How a cell is trained, whatever its method. The defaults suit a small model.

    batch_size: rows an optimiser step.  micro_batch: rows a forward pass at most (placement: cannot change the answer).
    warmup: share of the steps.  max_length: tokens a row at most; a longer one is an error.
    precision: "bf16" is autocast over fp32 weights and fp32 optimiser state.
    """

    budget: Budget = Budget(tokens=15_000)
    batch_size: int = Field(default=8, gt=0)
    micro_batch: int = Field(default=8, gt=0)
    lr: float = Field(default=5e-5, gt=0)
    schedule: Literal["constant", "linear", "cosine"] = "linear"
    warmup: float = Field(default=0.1, ge=0, lt=1)
    weight_decay: float = Field(default=0.0, ge=0)
    betas: tuple[float, float] = (0.9, 0.999)
    clip: float | None = Field(default=1.0, gt=0)
    max_length: int = Field(default=1024, gt=0)
    precision: Literal["fp32", "bf16"] = "bf16"
    checkpoint_seconds: float = Field(default=120.0, gt=0)


class TrainBlock(TrainSettings):
    """The matrix's `train:`, shared by all methods. data: a label under `data:`."""

    data: str | None = None


class EngineSettings(Strict):
    """The matrix's `engine:`.

    max_model_len: tokens of prompt and answer.  too_long: a prompt that leaves no room for an answer ends the step with
    an error ("refuse"), or is not sent and counts as a wrong answer ("wrong"). memory: GiB of KV cache on a CPU.
    """

    name: str = "vllm"
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    max_model_len: int = Field(default=2048, gt=0)
    too_long: Literal["refuse", "wrong"] = "refuse"
    memory: float = Field(default=1.0, gt=0)


class JudgeSettings(Strict):
    """The matrix's `judge:`, who reads the answers of judged tasks.

    model: a source as under `models:`, served by the matrix's engine; with an endpoint, its name there.
    endpoint: address of an OpenAI-compatible service, such as `https://host/v1`.  key_variable: the environment
    variable that holds its key.
    at_once: requests in flight.  timeout: seconds a request.  tries: how often one is sent before giving up.
    """

    model: str = Field(min_length=1)
    endpoint: Annotated[str, AfterValidator(_check_endpoint)] | None = None
    key_variable: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] | None = None
    at_once: int = Field(default=4, gt=0, le=256)
    timeout: float = Field(default=120.0, gt=0)
    tries: int = Field(default=6, gt=0)

    @model_validator(mode="after")
    def _key_of_an_endpoint(self) -> JudgeSettings:
        if self.key_variable and not self.endpoint:
            raise ValueError("`key_variable` belongs to an `endpoint`")
        return self


class TuneSettings(Strict):
    """The matrix's `tune:`, a search for the parameters of methods, of equal size for all of them.

    trials: trainings a method and model, the first with the parameters as they stand.  methods: labels or shell
    patterns; without any, every method that trains from the model and is no grid.
    holdout: share of the training rows on which trials are compared, cut from what they train on; rows: at most so
    many.  lr_span: the learning rate is searched from lr / lr_span to lr x lr_span.
    sampler: of Optuna.  seed: of sampler, split and trainings.
    """

    trials: int = Field(gt=1)
    methods: list[str] = []
    holdout: float = Field(default=0.1, gt=0, le=0.5)
    rows: int = Field(default=200, gt=0)
    lr_span: float = Field(default=10.0, gt=1)
    sampler: Literal["tpe", "random"] = "tpe"
    seed: int = Field(default=0, ge=0, lt=2**32)


class ModelEntry(Strict):
    """A model to start from.

    source: hub id, local folder, GGUF file, `package:`, or folder of a PEFT adapter.  name: how tables call it.
    base: what an adapter is merged into; left out, the model that its configuration names.
    """

    source: str = Field(min_length=1)
    name: str | None = None
    base: str | None = None


class DataEntry(Strict):
    """A training set.

    source: `hub:`, `file:`, `mirror:`, `package:` or `make:`.  rows: at most this many.  revision: commit of a hub
    source.  seed: of made data and of the choice of rows.  format: how a row becomes a conversation.  prompt, answer:
    templates with `{column}` in them.  params: of a `make:` source.  where: only rows that have these values.
    """

    source: str = Field(min_length=1)
    where: dict[str, str | int | bool] = {}
    rows: int | None = Field(default=None, gt=0)
    split: str | None = None
    revision: str | None = None
    seed: int = Field(default=0, ge=0)
    format: str = "auto"
    prompt: str | None = None
    answer: str | None = None
    params: dict[str, Any] = {}


Member = Annotated[Annotated[str, IsText] | Annotated[dict[str, dict[str, Any] | None], IsMapping], Shaped]
Stack = Annotated[list[Member], Field(min_length=1)]
Axis = Annotated[list[Any], Field(min_length=1)]


COMMAND_SETTINGS = ("lr", "batch_size", "schedule", "warmup", "weight_decay", "max_length", "precision")
COMMAND_FIELDS = ("model", "data", "output", "seed", "budget", "unit", *COMMAND_SETTINGS)


class CommandTrainer(Strict):
    """A program of any kind that trains.

    command: its line, with {model}, {data}, {output}, {seed}, {budget} (a number, in {unit}: tokens or steps) and what
    of `train:` is named here: {lr}, {batch_size}, {schedule}, {warmup}, {weight_decay}, {max_length}, {precision}.
    version: of the program; raise it when its results may change, so that they are made again.
    """

    command: str
    version: int = Field(default=1, gt=0)

    @field_validator("command")
    @classmethod
    def _check(cls, command: str) -> str:
        parts = shlex.split(command)
        used = [name for part in parts for _, name, _, _ in string.Formatter().parse(part) if name is not None]
        for name in used:
            if name not in COMMAND_FIELDS:
                raise ValueError(f"nothing is known as {{{name}}}; there is {', '.join(COMMAND_FIELDS)}")
        for name in ("model", "data", "output"):
            if name not in used:
                raise ValueError(f"the command never uses {{{name}}}")
        return command


Trainer = Annotated[Annotated[str, IsText] | Annotated[CommandTrainer, IsMapping], Shaped]


class GroupsForm(Strict):
    """One artifact for every value of a column of the training data.

    values: these only, in this order.  min_rows: a group of fewer is refused.
    """

    column: str = Field(min_length=1)
    values: list[str | int | bool] = []
    min_rows: int = Field(default=20, gt=0)


Groups = Annotated[Annotated[str, IsText] | Annotated[GroupsForm, IsMapping], Shaped]


class MethodForm(Strict):
    """One entry of `methods:`.

    stack: method names, with parameters as `{name: {...}}`; without it, the label's parts between `+`, or with a
    command, which brings its own objective, `sft`.
    train: what differs from the matrix's `train:`.  data: likewise.  trainer: the adapter that runs it, by name, or
    `{command: ...}`.
    grid: {"train.lr": [...], "lora.r": [...]}, expanded to every combination.
    start: another method of the matrix, from whose artifact of the same model and seed this one begins.
    groups: a column of the data: one artifact a value, each trained on its rows alone with the whole budget.
    """

    unknown_key: ClassVar[str] = "a method and its parameters are a member of a stack: `stack: [{{{key}: {{...}}}}]`"

    stack: Stack | None = None
    train: TrainSettings | None = None
    data: str | None = None
    trainer: Trainer = "native"
    grid: dict[str, Axis] = {}
    start: str | None = None
    groups: Groups | None = None


MethodEntryForm = Annotated[
    Annotated[MethodForm, IsMapping] | Annotated[Stack, IsList] | Annotated[None, IsNothing],
    Shaped,
]
LabelledMethods = dict[Label, MethodEntryForm]
MethodItem = Annotated[
    Annotated[Label, IsText] | Annotated[Stack, IsList] | Annotated[LabelledMethods, IsMapping],
    Shaped,
]


Limit = Annotated[Annotated[int, Field(gt=0), IsNumber] | Annotated[Literal["smoke"], IsText], Shaped]
Tasks = Annotated[Annotated[list[str], Field(min_length=1), IsList] | Annotated[Literal["all"], IsText], Shaped]


class SuiteForm(Strict):
    """One entry of `suites:`.

    limit: items a task at most, or `smoke` for each task's own small size.
    tasks: some of the suite's tasks, or `all`; left out, those that the suite does not call `extra`.
    made: where the data of a task are not at hand, measure the made task that stands in for it, under its own name.
    """

    limit: Limit | None = None
    tasks: Tasks | None = None
    made: bool = False


SuiteEntryForm = Annotated[Annotated[SuiteForm, IsMapping] | Annotated[None, IsNothing], Shaped]


class Exclude(Strict):
    """Cells to leave out: names or shell patterns; without one of the two, every model or every method."""

    model: str = "*"
    method: str = "*"


class MatrixFile(Strict):
    """The whole of matrix.yaml.

    entries: a folder of finished results, one file a cell, that `harness run` takes over.
    report_to: trackers of experiments that are told of every finished cell; no result depends on them.
    """

    version: Literal[1] = 1
    name: Label | None = None
    models: dict[Label, Annotated[Annotated[str, IsText] | Annotated[ModelEntry, IsMapping], Shaped]] = Field(
        min_length=1
    )
    data: dict[Label, Annotated[Annotated[str, IsText] | Annotated[DataEntry, IsMapping], Shaped]] = {}
    train: TrainBlock = TrainBlock()
    methods: Annotated[
        Annotated[LabelledMethods, Field(min_length=1), IsMapping]
        | Annotated[list[MethodItem], Field(min_length=1), IsList],
        Shaped,
    ]
    tune: TuneSettings | None = None
    seeds: Annotated[
        Annotated[int, Field(gt=0), IsNumber]
        | Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1), IsList],
        Shaped,
    ] = 1
    suites: Annotated[
        Annotated[dict[str, SuiteEntryForm], Field(min_length=1), IsMapping]
        | Annotated[list[str], Field(min_length=1), IsList],
        Shaped,
    ]
    engine: EngineSettings = EngineSettings()
    judge: JudgeSettings | None = None
    baseline: str | None = None
    keep: Literal["all", "adapters", "none"] = "adapters"
    exclude: list[Exclude] = []
    entries: str | None = None
    report_to: list[Literal["tensorboard", "wandb", "mlflow", "trackio"]] = []
