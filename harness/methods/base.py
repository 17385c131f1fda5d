"""The method seam: what a fine-tuning paper may change, and the order in which the host asks.

A method is one class in one file; with no overrides it is SFT. `ctx` is the run (models, rows, services, clock,
memory); `tok` holds the loss tokens of a batch, computed when read and billed. This file imports no torch, so that
planning stays fast; the host is `harness/training/`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict

from harness.errors import Refused

if TYPE_CHECKING:  # the host's types, for the type checker and the reader only
    from torch import Tensor
    from torch.nn import Module

    from harness.engines.base import Request
    from harness.methods.facts import ModelFacts
    from harness.training.context import Context
    from harness.training.sequences import Seq
    from harness.training.tokens import Tokens

NO_TARGET = -100  # the target of a token that carries no loss
Row = dict[str, Any]  # {"id": str, "messages": [{"role", "content", "weight"?}], ...columns}


@dataclass(frozen=True)
class Term:
    """A part of the objective: scale x sum(value) / sum(count), both sums over the whole optimiser step.

    count None: one per element of value. Every part keeps its own denominator: tokens, rows, pairs, parameters.
    """

    value: Tensor
    count: Tensor | None = None
    scale: float = 1.0


@dataclass(frozen=True)
class Stage:
    """One phase of training: two cached steps, data and train.

    rows: a set named by `curate`, or a function of ctx that may use earlier stages.
    init: "base" (opened and wrapped afresh) or an earlier stage as it stood; optimiser and schedule are always new.
    ref: the frozen model behind `tok.ref`.  run: methods that join the stack for this stage.
    alone: only `run` acts.  share: of the budget, in proportion to those of the other stages.
    settings: lr, schedule, batch where they differ.
    """

    name: str = "train"
    rows: str | Callable[[Context], list[Row]] = "train"
    init: str = "base"
    ref: str = "base"
    run: tuple[Method, ...] = ()
    alone: bool = False
    share: float = 1.0
    settings: Mapping[str, Any] = field(default_factory=dict)


class NoParams(BaseModel):
    """Hyper-parameters of a method that has none."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Method:
    """A fine-tuning method. Override only what the paper changes.

    Class attributes that planning reads (each may be a property of the parameters):
    version: part of the step's key; raise it when results may change.  later: parameters that were added since, with
    the values at which nothing changes; at those they stay out of the key, so that earlier results stay valid.
    paper, family: shown by `harness methods`.  verified: likewise, what its tests compare it with.
    Params: pydantic model with the paper's defaults; read as attributes (`self.r`).  knobs: {name: (low, high)}.
    trains: False for a method that leaves the model as it is (`base`).
    needs: what the plan must supply, or refuse with a reason; `column:NAME` is a column of every row, `pairs` two
    answers a row, `answer` one.
    makes: those of these needs that its `curate` supplies.  sets: the names of rows that `curate` gives beside `train`.
    load: how the base is opened.
    freeze: the base's own weights stay frozen.  norm: how a per-token loss is averaged (tokens, rows, weights).
    pool: rows offered to `pick` at once.  drops: tokens that `pick` weighs 0 leave the input too.
    every: steps between askings of `train_only`.
    rollouts: sampling, which makes a stage RL.  answers: request kinds `respond` takes.  flags: marks in the table.
    artifact: "full" or "adapter", what the host saves when nobody overrides `unwrap` to make it full.
    engine: the only engine that serves what it leaves, where others cannot.
    peft: it puts peft's layers in the place of the model's, which one member of a stack may do.
    """

    name: ClassVar[str] = ""
    version: ClassVar[int] = 1
    later: ClassVar[Mapping[str, Any]] = {}
    paper: ClassVar[str] = ""
    family: ClassVar[str] = "objective"
    verified: ClassVar[str] = ""
    Params: ClassVar[type[BaseModel]] = NoParams
    knobs: ClassVar[Mapping[str, tuple[float, float]]] = {}
    trains: ClassVar[bool] = True
    artifact: ClassVar[str] = "full"
    engine: ClassVar[str] = ""
    peft: ClassVar[bool] = False

    needs: frozenset[str] = frozenset()
    makes: frozenset[str] = frozenset()
    sets: frozenset[str] = frozenset()
    load: Mapping[str, Any] = {}
    freeze: bool = False
    norm: str = "tokens"
    pool: int | None = None
    drops: bool = False
    every: int = 0
    rollouts: Mapping[str, Any] | None = None
    answers: frozenset[str] = frozenset()
    flags: frozenset[str] = frozenset()

    def __init__(self, **params: Any) -> None:
        """ValidationError (pydantic) for an unknown or wrong parameter."""
        self.params = self.Params(**params)
        for name in type(self.params).model_fields:
            setattr(self, name, getattr(self.params, name))

    # --- planning ---------------------------------------------------------------------------------------------
    def check(self, model: ModelFacts, stack: Sequence[Method]) -> None:
        """Refused for a model, or a stack, that it cannot work with; before anything is opened, so without torch.

        A fact that is None or empty is not known: let it pass, and find out in `wrap`.
        """

    # --- data -------------------------------------------------------------------------------------------------
    def curate(self, rows: list[Row], ctx: Context) -> list[Row] | dict[str, list[Row]]:
        """Curation, conversion, synthesis; once, cached as its own step. Rows, or named sets of rows, `train` among
        them. Whoever gives others names them in `sets` and stands last."""
        return rows

    def stages(self, ctx: Any) -> list[Stage]:
        """Exclusive. An empty list opens, wraps and unwraps, nothing more."""
        return [Stage()]

    def prompt(self, request: Request, ctx: Any) -> Request:
        """Every conversation, in training and in evaluation alike."""
        return request

    def collate(self, seqs: list[Seq], ctx: Context) -> list[Seq]:
        """Token level: corrupt, expand, re-tokenise. One `Seq` a sequence."""
        return seqs

    # --- model ------------------------------------------------------------------------------------------------
    def wrap(self, model: Module, ctx: Context) -> Module:
        """Once on each fresh base: adapters (injected in place), heads, surgery. Freezes nothing."""
        return model

    def unwrap(self, model: Module, ctx: Context) -> Module:
        """Its inverse before saving: drop, fold or bake, so that the artifact serves."""
        return model

    def train_only(self, names: Sequence[str], ctx: Context) -> Iterable[str] | dict[str, dict[str, Any]]:
        """Which of the base's and its own parameters train, or {name: optimiser options}."""
        return names

    def optimizer(self, groups: list[dict[str, Any]], ctx: Context) -> Any:
        """Exclusive. An optimiser other than the matrix's; None keeps that one."""
        return None

    def on_embeddings(self, emb: Tensor, batch: Any, ctx: Context) -> Tensor:
        """Noise, soft prompts. emb: [rows, length, width]."""
        return emb

    # --- objective --------------------------------------------------------------------------------------------
    def pick(self, tok: Tokens, ctx: Context) -> Tensor | None:
        """Before the forward pass: weights [rows] or [tokens]; 0 = never run, and the host refills."""
        return None

    def token_weight(self, tok: Tokens, ctx: Context) -> Tensor | None:
        """After the forward pass, from values without their graph: likewise; 0 = out of loss and count."""
        return None

    def loss(self, tok: Tokens, ctx: Context) -> Tensor | Term | dict[str, Term]:
        """Exclusive. Unreduced: one value per loss token, a Term, or {name: Term}."""
        return -tok.logp

    def auxiliary(self, tok: Tokens, ctx: Context) -> dict[str, Term]:
        """Terms beside whoever owns the loss."""
        return {}

    def reward(self, rolls: Any, ctx: Context) -> Tensor:
        """Exclusive; [rows]. Default: the rows' own checker."""
        return ctx.verify(rolls)

    def advantage(self, rolls: Any, ctx: Context) -> Tensor | dict[str, Tensor]:
        """Exclusive; [rows], [tokens] or {column: either}."""
        result: Tensor = rolls["reward"]
        return result

    def after_backward(self, model: Module, ctx: Context) -> None:
        """Once an optimiser step, before clipping."""

    def after_step(self, model: Module, ctx: Context) -> None:
        """Gradients are still there."""

    def after_stage(self, model: Module, ctx: Context) -> None:
        """Choice of heads, masks, thresholds."""

    # --- evaluation -------------------------------------------------------------------------------------------
    def respond(self, model: Module, request: Request, ctx: Any) -> Any:
        """Exclusive; the kinds in `answers`, on the HF engine."""
        raise NotImplementedError

    def answer(self, text: str, request: Request, ctx: Any) -> str:
        """Post-processing, in reverse stack order; sees the request as its own `prompt` was given it."""
        return text


HOOKS = tuple(n for n, m in vars(Method).items() if callable(m) and n[0].islower() and n != "check")
EXCLUSIVE = ("stages", "loss", "reward", "advantage", "optimizer", "respond")


def overrides(method: Method, hook: str) -> bool:
    """Whether a method changes a hook."""
    return getattr(type(method), hook) is not getattr(Method, hook)


def generates(members: Sequence[Method]) -> bool:
    """Whether an engine takes part in what the members do before evaluation."""
    return any(m.rollouts is not None or "generator" in m.needs for m in members)


def owner(stack: Sequence[Method], hook: str) -> Method:
    """The one member that changes an exclusive hook, or a plain Method. Refused when two of them do."""
    own = [m for m in stack if overrides(m, hook)]
    if len(own) > 1:
        names = " and ".join(f"`{m.name}`" for m in own)
        raise Refused(f"{names} both change `{hook}`, and only one member of a stack may", todo="keep one of them")
    return own[0] if own else Method()


def check_stack(stack: Sequence[Method]) -> None:
    """Every rule of composition that can be checked before anything starts. Refused with the names of both owners."""
    for hook in EXCLUSIVE:
        owner(stack, hook)
    for attribute, default in (("norm", Method.norm), ("rollouts", Method.rollouts)):
        setters = [m for m in stack if getattr(m, attribute) != default]
        if len(setters) > 1:
            names = " and ".join(f"`{m.name}`" for m in setters)
            raise Refused(
                f"{names} both set `{attribute}`, and only one member of a stack may", todo="keep one of them"
            )
    freezers = [m for m in stack if m.freeze]
    choosers = [m for m in stack if not m.freeze and overrides(m, "train_only")]
    if freezers and choosers:
        raise Refused(
            f"`{choosers[0].name}` chooses among the base's weights, `{freezers[0].name}` freezes them",
            todo="keep one of them",
        )
    adapted = [m for m in stack if m.peft]
    if len(adapted) > 1:
        names = " and ".join(f"`{m.name}`" for m in adapted)
        raise Refused(f"{names} both replace layers of the model by peft's", todo="keep one of them")
    unfolded = [m for m in stack if m.artifact == "adapter" and m.engine == "hf"]
    changers = [m for m in stack if overrides(m, "wrap") or overrides(m, "unwrap")]
    if unfolded and len(changers) > 1:
        other = next(m for m in changers if m is not unfolded[0])
        raise Refused(
            f"what `{unfolded[0].name}` leaves cannot be folded into the weights that `{other.name}` changes",
            todo="keep one of them",
        )
    curators = [m for m in stack if overrides(m, "curate")]
    splitter = next((m for m in curators[:-1] if m.sets), None)
    if splitter:
        raise Refused(
            f"`{splitter.name}` splits the rows into sets, and `{curators[-1].name}` curates after it",
            todo="let one member split, and put it after those that curate",
        )
    idle = [m for m in stack if not m.trains]
    if idle and len(stack) > 1:
        raise Refused(f"`{idle[0].name}` does not train and cannot be stacked", todo="use it alone")


def check_served(stack: Sequence[Method], engine: str) -> None:
    """Refused where what a member leaves is served by another engine only."""
    bound = next((m for m in stack if m.engine == "hf" and engine == "vllm"), None)
    if bound:
        raise Refused(
            f"what `{bound.name}` leaves cannot be served by the engine `{engine}`",
            todo=f"set engine.name to {bound.engine}, or take another method",
        )


def check_start(label: str, before: Sequence[Method], stack: Sequence[Method], *, trained: bool) -> None:
    """Refused where a method leaves nothing that a stack can start from, or where only the base can carry the stack."""
    if not trained:
        raise Refused(f"`{label}` trains nothing, so it leaves no weights to start from", todo="start from what trains")
    fixed = next((m for m in before if m.artifact == "adapter" and m.engine == "hf"), None)
    if fixed:
        raise Refused(
            f"what `{fixed.name}` leaves cannot be merged into weights, so nothing can start from `{label}`",
            todo="start from another method",
        )
    fixed = next((m for m in stack if m.artifact == "adapter" and m.engine == "hf"), None)
    if fixed:
        raise Refused(
            f"what `{fixed.name}` leaves cannot be merged into weights, so it cannot start from `{label}`",
            todo="leave `start` out: such an adapter is served on the model itself",
        )


def stage_stack(stack: Sequence[Method], stage: Stage) -> tuple[Method, ...]:
    """The members that act in a stage: those it brings stand right after the member that owns `stages`."""
    if stage.alone:
        return stage.run
    at = next((i + 1 for i, m in enumerate(stack) if overrides(m, "stages")), len(stack))
    return (*stack[:at], *stage.run, *stack[at:])
