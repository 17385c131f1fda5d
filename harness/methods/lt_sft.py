"""`lt_sft`: lottery-ticket sparse fine-tuning, and the sum of the sparse deltas that it leaves.

The mask is on gradients, not on weights: every pass runs through the whole model. Deltas are added before training
(`source`) and before saving (`target`), never while a model is served.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from harness.digest import file_digest
from harness.errors import Refused
from harness.methods.base import Method, Stage, Term
from harness.methods.facts import ModelFacts

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module, Parameter

    from harness.training.context import Context
    from harness.training.tokens import Tokens

Sparse = dict[str, dict[str, Any]]  # {parameter: {"at": flat int64 [k], "value": fp32 [k], "shape": (...)}}


class Delta(BaseModel):
    """A `delta.pt` that another cell left. sha256: of the file, so that a step's key follows its content."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: str
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class Params(BaseModel):
    """density: K over the number of maskable entries; 1 masks nothing.  rounds: times of dense, rewind, sparse, each
    choosing its part of K among what was not chosen before.  dense, sparse: shares of the budget of the two phases.

    select: "changed" is the method; "random" is its control, a mask drawn uniformly, without a dense phase.
    l1: 0 for a task, 0.1 in the paper for a language or a domain.  frozen: parts of names of parameters that never
    train.  least: a smaller entry of the delta is zero.  source: deltas that the model is trained on top of.
    target: deltas that stand in their place in what is saved.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    density: float = Field(default=0.05, ge=0, le=1)
    rounds: int = Field(default=1, ge=1, le=5)
    dense: float = Field(default=1.0, gt=0)
    sparse: float = Field(default=2.0, gt=0)
    select: Literal["changed", "random"] = "changed"
    l1: float = Field(default=0.0, ge=0)
    frozen: tuple[str, ...] = ("norm", "ln_")
    least: float = Field(default=1e-7, ge=0)
    source: tuple[Delta, ...] = ()
    target: tuple[Delta, ...] = ()


class LTSFT(Method):
    """Composable Sparse Fine-Tuning for Cross-Lingual Transfer, arXiv 2110.07560.

    Of the maskable parameters (all but norms; a tied embedding once) theta0 [N]:

    1. dense: train all of them, theta1.  2. choose the K = density N entries of largest |theta1 - theta0| over all
    tensors together, ties to the lower place, none that did not move.  3. rewind to theta0, with a new optimiser and
    schedule.  4. sparse: train with every other entry's gradient set to zero before clipping.
    5. phi = theta2 - theta0, entries of at most `least` zeroed, left as `delta.pt`: {"base": fingerprint of theta0,
    "delta": {name: flat int64 places, fp32 values, shape}}; what is served is theta0 + phi.

    l1 adds l1 / N * sum |theta - theta0| once an optimiser step, in both phases. Weight decay is zero throughout, since
    decoupled decay would move masked weights.

    Composition: with `source` the model is trained as theta0 + phi_source, and phi is what training added; saved is
    theta0 + phi_target + phi. A task learned on one domain is so served on another. A delta of another theta0 is
    refused. Beside two deltas `interference.pt` holds the share of phi's entries that the other has too, and on how
    many of these the signs agree.

    Defaults are for models of about 135M parameters; the paper's K is 8 % of mBERT for tasks and 4.3 % for languages,
    at lr 5e-5, and both phases are equally long. Deviations: exactly K entries where the official code may exceed K by
    ties. Swapping source deltas between batches (multi-source training) is not done. A causal model has no task head,
    so there are no densely trained, absolute parts. As all full artifacts the served weights are bfloat16; the delta
    is not. Members that add parameters stand after this one.
    """

    name: ClassVar[str] = "lt_sft"
    paper: ClassVar[str] = "arXiv 2110.07560"
    verified: ClassVar[str] = "worked example; a mask of everything equals `sft` after the rewind"
    family: ClassVar[str] = "mask"
    Params: ClassVar[type[BaseModel]] = Params
    knobs: ClassVar[dict[str, tuple[float, float]]] = {"density": (0.01, 0.1)}

    density: float
    rounds: int
    dense: float
    sparse: float
    select: str
    l1: float
    frozen: tuple[str, ...]
    least: float
    source: tuple[Delta, ...]
    target: tuple[Delta, ...]

    def stages(self, ctx: Any) -> list[Stage]:
        made, start = [], "base"
        for number in range(1, self.rounds + 1):
            suffix = "" if number == 1 else str(number)
            if self.select == "changed":
                made.append(Stage(f"dense{suffix}", init=start, share=self.dense))
            made.append(Stage(f"sparse{suffix}", init=start, share=self.sparse))
            start = f"sparse{suffix}"
        return made

    # --- model ----------------------------------------------------------------------------------------------------
    def check(self, model: ModelFacts, stack: Sequence[Method]) -> None:
        for delta in (*self.source, *self.target):
            delta_file(delta)

    def wrap(self, model: Module, ctx: Context) -> Module:
        """theta0 + phi_source. The targets are read too, so that a wrong one is refused before training."""
        self._base = fingerprint(model)
        for delta in self.target:
            read_delta(delta, self._base)
        for delta in self.source:
            add(model, read_delta(delta, self._base))
        return model

    def train_only(self, names: Sequence[str], ctx: Context) -> dict[str, dict[str, Any]]:
        self._names = [n for n in names if not any(part in n.lower() for part in self.frozen)]
        return {n: {"weight_decay": 0.0} for n in self._names}

    def unwrap(self, model: Module, ctx: Context) -> Module:
        """Takes phi out as a side file, and puts the targets in the place of the sources."""
        import torch

        parameters, delta = dict(model.named_parameters()), {}
        for name, chosen in ctx.memory[self.name].items():
            p = parameters[name].detach()
            at, was = chosen["at"].to(p.device), chosen["was"].to(p.device)
            now = p.reshape(-1)[at]
            moved = now - was
            kept = moved.abs() > self.least
            p.copy_(p.reshape(-1).index_copy(0, at, torch.where(kept, now, was)).view_as(p))
            delta[name] = {"at": at[kept].cpu(), "value": moved[kept].cpu(), "shape": tuple(p.shape)}
        ctx.save("delta", {"base": self._base, "delta": delta})
        for file in self.source:
            add(model, read_delta(file, self._base), sign=-1.0)
        others = {file.sha256: read_delta(file, self._base) for file in self.target}
        for other in others.values():
            add(model, other)
        if others:
            ctx.save("interference", {sha256: interference(delta, other) for sha256, other in others.items()})
        return model

    # --- objective ------------------------------------------------------------------------------------------------
    def auxiliary(self, tok: Tokens, ctx: Context) -> dict[str, Term]:
        if not self.l1:
            return {}
        parameters = self._maskable(ctx.model)
        size = sum(p.numel() for _, p in parameters)
        moved = sum((p - self._origin(ctx, n, p)).abs().sum() for n, p in parameters)
        return {"l1": Term(moved[None], scale=self.l1 / size)}

    def after_backward(self, model: Module, ctx: Context) -> None:
        import torch

        if ctx.stage.name.startswith("dense"):
            return
        if self.select == "random" and ctx.step == 0:
            rng = ctx.rng(self.name)
            self._choose(model, ctx, lambda n, p: torch.rand(p.shape, generator=rng, device=p.device))
        for name, p in self._maskable(model):
            chosen = ctx.memory[self.name].get(name)
            if chosen is None:  # another member held it still while entries were chosen
                p.grad = None
            elif p.grad is not None:
                at = chosen["at"].to(p.device)
                gradient = p.grad.reshape(-1)
                p.grad = torch.zeros_like(gradient).index_copy(0, at, gradient[at]).view_as(p)

    def after_stage(self, model: Module, ctx: Context) -> None:
        if ctx.stage.name.startswith("dense"):
            self._choose(model, ctx, lambda n, p: (p.detach() - ctx.start[n]).abs())

    # --- the mask -------------------------------------------------------------------------------------------------
    def _maskable(self, model: Module) -> list[tuple[str, Parameter]]:
        mine = set(self._names)
        return [(n, p) for n, p in model.named_parameters() if n in mine and p.requires_grad]

    def _choose(self, model: Module, ctx: Context, score: Callable[[str, Parameter], Tensor]) -> None:
        """Keep in memory which entries train, and what they were in theta0. Entries once chosen stay chosen."""
        import torch

        parameters = self._maskable(model)
        before = ctx.memory.get(self.name, {})
        mask = torch.cat([_mark(p, before.get(n)) for n, p in parameters])
        number = int(ctx.stage.name.removeprefix("dense").removeprefix("sparse") or 1)
        goal = round(self.density * len(mask) * number / self.rounds)
        if goal >= len(mask):
            mask[:] = True
        else:
            scores = torch.cat([score(n, p).reshape(-1) for n, p in parameters]).masked_fill(mask, 0.0)
            mask[largest(scores, goal - int(mask.sum()))] = True
        made = {}
        for (name, p), part in zip(parameters, mask.split([p.numel() for _, p in parameters]), strict=True):
            at = part.nonzero()[:, 0]
            made[name] = {"at": at.cpu(), "was": self._origin(ctx, name, p).reshape(-1)[at].cpu()}
        ctx.memory[self.name] = made

    def _origin(self, ctx: Context, name: str, p: Tensor) -> Tensor:
        """theta0 of a parameter: what the stage started from, but for what an earlier round has trained."""
        start: Tensor = ctx.start[name].to(p.device)
        chosen = ctx.memory.get(self.name, {}).get(name)
        if chosen is None:
            return start
        at, was = chosen["at"].to(p.device), chosen["was"].to(p.device)
        return start.reshape(-1).index_copy(0, at, was).view_as(p)


def _mark(p: Tensor, chosen: Mapping[str, Tensor] | None) -> Tensor:
    """Which entries of a parameter are chosen, [entries] bool."""
    import torch

    mask = torch.zeros(p.numel(), dtype=torch.bool, device=p.device)
    if chosen is not None:
        mask[chosen["at"].to(p.device)] = True
    return mask


def largest(values: Tensor, k: int) -> Tensor:
    """Places of the k largest of some values [n] that are above zero, in rising order; of equal ones the first."""
    k = min(k, int((values > 0).sum()))
    if k <= 0:
        return values.new_zeros(0).long()
    least = values.kthvalue(len(values) - k + 1).values
    chosen = values > least
    chosen[(values == least).nonzero()[: k - int(chosen.sum()), 0]] = True
    return chosen.nonzero()[:, 0]


def fingerprint(model: Module) -> str:
    """sha256 over names, shapes and fp32 values of a model's parameters, on the CPU."""
    total = hashlib.sha256()
    for name, p in sorted(model.named_parameters()):
        total.update(f"{name} {tuple(p.shape)}".encode())
        total.update(p.detach().float().contiguous().numpy().data)
    return total.hexdigest()


def delta_file(delta: Delta) -> Path:
    """Its file. Refused if there is none, or if it is not the one that was named."""
    path = Path(delta.file)
    if not path.is_file():
        raise Refused(f"`lt_sft` names a delta, and there is no such file: {delta.file}", todo="check the path")
    if file_digest(path) != delta.sha256:
        raise Refused(
            f"the delta {delta.file} is not the one that `lt_sft` names: its sha256 differs",
            todo=f"write sha256: {file_digest(path)}",
        )
    return path


def read_delta(delta: Delta, base: str) -> Sparse:
    """The entries of a delta file. Refused if it is not the file that was named, or not of this base."""
    import torch

    path = delta_file(delta)
    body: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    if body["base"] != base:
        raise Refused(
            "lt_sft: the delta belongs to other base weights",
            where=delta.file,
            why=f"it was made on {body['base'][:12]}, this base is {base[:12]}",
        )
    entries: Sparse = body["delta"]
    return entries


def add(model: Module, delta: Sparse, sign: float = 1.0) -> None:
    """theta + sign * phi, in place."""
    parameters = dict(model.named_parameters())
    for name, entry in delta.items():
        p = parameters[name].detach()
        value = sign * entry["value"].to(p.device, p.dtype)
        p.copy_(p.reshape(-1).index_add(0, entry["at"].to(p.device), value).view_as(p))


def interference(a: Sparse, b: Sparse) -> dict[str, float | None]:
    """overlap: share of a's entries that b has too.  agreement: share of these on which the signs agree."""
    import torch

    def signs(entry: Mapping[str, Any]) -> Tensor:
        return torch.zeros(math.prod(entry["shape"])).index_copy(0, entry["at"], entry["value"].sign())

    both = same = 0
    for name in a.keys() & b.keys():
        product = signs(a[name]) * signs(b[name])
        both, same = both + int((product != 0).sum()), same + int((product > 0).sum())
    whole = sum(len(entry["at"]) for entry in a.values())
    return {"overlap": both / whole if whole else None, "agreement": same / both if both else None}
