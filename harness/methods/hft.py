"""`hft`: half fine-tuning, which trains a random, balanced half of the matrices and leaves the other half as it was.

Only the choice of parameters changes; the loss is whoever's the stack says. What is forgotten shows in tasks that the
base could do already, which the matrix has to name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from harness.errors import Refused
from harness.methods.base import Method

if TYPE_CHECKING:
    from torch import Generator
    from torch.nn import Module

    from harness.training.context import Context

_LAYER = re.compile(r"(?P<layer>(?:.*?\.)?\d+)\.(?P<rest>.+)")  # the first number of a name is its layer's


class Params(BaseModel):
    """p: the share of matrices that trains.

    strategy: "category" balances attention, feed-forward and norms within each layer; "layer" trains a share of the
    layers, "model" a share of all matrices, both ablations of the paper.  balance: "matrices" counts matrices; "params"
    draws among those of equal size only (one of q and o, one of k and v), so that a share of the parameters trains.
    final_norm: whether the norms outside the layers train.  every: optimiser steps between draws; 0 draws once a stage.
    draw: number of the draw, which makes it another one for the same seed.  reset: the paper's pilot, which trains
    everything and puts the half that is not chosen back at the end.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    p: float = Field(default=0.5, gt=0, le=1)
    strategy: Literal["category", "layer", "model"] = "category"
    balance: Literal["matrices", "params"] = "matrices"
    final_norm: bool = True
    every: int = Field(default=0, ge=0)
    draw: int = Field(default=0, ge=0)
    reset: bool = False

    @model_validator(mode="after")
    def _one_draw_is_reset(self) -> Params:
        if self.reset and self.every:
            raise ValueError("`reset` puts one half back, so it cannot stand with `every`, which draws several")
        return self


class HFT(Method):
    """HFT: Half Fine-Tuning for Large Language Models, arXiv 2404.18466.

    theta <- theta - eta * grad for the chosen half, and theta as it was for the rest, which reaches no optimiser and so
    is moved by no decay. Chosen in each of L layers, at p = 0.5: 2 of {q, k, v, o}; of {gate, up, down} 1 in floor(L/2)
    random layers and 2 in the others; 1 of the two norms. Embeddings and the output head always train. In general a
    layer trains floor(p n) of a category's n matrices, and one more in so many random layers as p asks. A bias goes
    with its matrix, a fused matrix is one matrix; of two matrices of unequal size (a fused q, k, v and o) each trains
    in half of the layers. `hft.pt` holds, for the step of each draw, {name: trains} and the share of parameters.

    2 of 4 matrices is not half of the parameters where q and o are larger than k and v: a draw of SmolLM2-135M trains
    25 to 75 % of its attention. `balance="params"` makes it half.

    Unverified: that a half is chosen once a training stage (one note says each epoch: `every`, in steps, since how many
    make an epoch is known to the data alone; a parameter that is frozen loses its optimiser state), and that the final
    norm trains (`final_norm`). The paper's learning rate and epochs are not known; those of `sft` are taken. A chain of
    cells should give each its own `draw`. Only full fine-tuning: refused beside a member that freezes the base.
    """

    name: ClassVar[str] = "hft"
    paper: ClassVar[str] = "arXiv 2404.18466"
    verified: ClassVar[str] = "parameter counts of SmolLM2-135M; p = 1 equals `sft`; the frozen half stays bit for bit"
    family: ClassVar[str] = "mask"
    Params: ClassVar[type[BaseModel]] = Params
    knobs: ClassVar[dict[str, tuple[float, float]]] = {"p": (0.3, 0.7)}

    p: float
    strategy: str
    balance: str
    final_norm: bool
    draw: int
    reset: bool

    def train_only(self, names: Sequence[str], ctx: Context) -> Iterable[str]:
        sizes = {n: p.numel() for n, p in ctx.model.named_parameters() if n in set(names)}
        with ctx.on_cpu():  # so that a seed means the same half on every machine
            rng = ctx.rng(f"hft/{self.draw}")
        chosen = self.choose(sizes, rng)
        share = sum(sizes[n] for n in chosen) / sum(sizes.values())
        draws = dict(ctx.saved.get(self.name, {}))
        draws[ctx.step] = {"trains": {n: n in chosen for n in names}, "share": share}
        ctx.save(self.name, draws)
        return list(names) if self.reset else [n for n in names if n in chosen]

    def after_stage(self, model: Module, ctx: Context) -> None:
        if not self.reset:
            return
        import torch

        trains, parameters = ctx.saved[self.name][0]["trains"], dict(model.named_parameters())
        with torch.no_grad():
            for name in [n for n, on in trains.items() if not on]:
                parameters[name].copy_(ctx.start[name])

    def choose(self, sizes: Mapping[str, int], rng: Generator) -> set[str]:
        """The names that train. sizes: number of entries of each parameter, in the model's order."""
        blocks, outside = _blocks(sizes)
        if not blocks:
            raise Refused("`hft` found no numbered layers in this model, and chooses within layers")
        chosen = {n for n in outside if self.final_norm or not _is_norm(n)}
        if self.strategy == "category":
            picked = self._by_category(blocks, rng)
        elif self.strategy == "layer":
            layers = list(dict.fromkeys(b.layer for b in blocks))
            some = set(_some(layers, round(self.p * len(layers)), rng))
            picked = [b for b in blocks if b.layer in some]
        else:
            picked = _some(blocks, round(self.p * len(blocks)), rng)
        return chosen | {n for b in picked for n in b.names}

    def _by_category(self, blocks: Sequence[_Block], rng: Generator) -> list[_Block]:
        """Each kind of matrices of the model at a time: a set in every layer that has them, of equal length."""
        kinds: dict[Any, dict[str, list[_Block]]] = {}
        for b in blocks:
            size = b.size if self.balance == "params" else None
            kinds.setdefault((b.category, size), {}).setdefault(b.layer, []).append(b)
        picked: list[_Block] = []
        for layers in kinds.values():
            for n, sets in groupby(sorted(layers.values(), key=len), key=len):
                shuffled = _shuffled(list(sets), rng)
                least = math.floor(self.p * n + 1e-9)  # so that 0.3 of 10 is 3
                fewer = len(shuffled) - math.ceil((self.p * n - least) * len(shuffled) - 1e-9)
                for rank, matrices in enumerate(shuffled):
                    count = least if rank < fewer else least + 1
                    if n == 2 and count == 1 and matrices[0].size != matrices[1].size:
                        picked.append(matrices[rank % 2])
                    else:
                        picked += _some(matrices, count, rng)
        return picked


class _Block:
    """A matrix with its bias. category: attention, feed-forward, norm, or other."""

    def __init__(self, layer: str, rest: str) -> None:
        self.layer, self.names, self.size = layer, list[str](), 0
        words = rest.lower()
        kinds = {"attention": ("attn", "attention"), "feed-forward": ("mlp", "ffn", "feed_forward", "fc", "experts")}
        found = [kind for kind, parts in kinds.items() if any(part in words for part in parts)]
        self.category = "norm" if _is_norm(rest) else found[0] if found else "other"


def _blocks(sizes: Mapping[str, int]) -> tuple[list[_Block], list[str]]:
    """The matrices of all layers, and the names of what stands outside the layers."""
    made: dict[tuple[str, str], _Block] = {}
    outside = []
    for name, size in sizes.items():
        parts = _LAYER.fullmatch(name)
        if parts is None:
            outside.append(name)
            continue
        module = parts["rest"].removesuffix(".weight").removesuffix(".bias")
        block = made.setdefault((parts["layer"], module), _Block(parts["layer"], parts["rest"]))
        block.names.append(name)
        block.size += size
    return list(made.values()), outside


def _is_norm(name: str) -> bool:
    return any(part in name.lower() for part in ("norm", "ln_"))


def _shuffled(things: Sequence[Any], rng: Generator) -> list[Any]:
    import torch

    return [things[i] for i in torch.randperm(len(things), generator=rng).tolist()]


def _some(things: Sequence[Any], count: int, rng: Generator) -> list[Any]:
    return _shuffled(things, rng)[:count]
