"""`adapters`: small networks in series with attention and MLP, the first parameter-efficient method."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from harness.errors import HarnessError, Refused
from harness.methods.base import Method
from harness.methods.facts import ModelFacts

if TYPE_CHECKING:
    from torch.nn import Module

    from harness.training.context import Context

PARTS = ("self_attn", "mlp")  # of a block, after which a bottleneck stands
KIND = "BOTTLENECK"  # in adapter_config.json; peft has no such type


class Params(BaseModel):
    """width: of the bottleneck (UNVERIFIED default, 48)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    width: int = Field(default=48, gt=0)


class Adapters(Method):
    """Parameter-Efficient Transfer Learning for NLP, arXiv 1902.00751. u <- u + W_up relu(W_down u), base frozen.

    u is the output of attention or of the MLP before it is added to the residual; W_down [width, d], W_up [d, width]
    starts at zero, so training starts from the base exactly. No biases. Deviation: the norms stay frozen. The
    nonlinearity cannot be folded into weights: the artifact is an adapter of our own, served by the engine `hf`.
    """

    name: ClassVar[str] = "adapters"
    paper: ClassVar[str] = "arXiv 1902.00751"
    verified: ClassVar[str] = "starts from the base exactly; numerical gradient; closed form of its size"
    engine: ClassVar[str] = "hf"
    family: ClassVar[str] = "adapter"
    artifact: ClassVar[str] = "adapter"
    Params: ClassVar[type[BaseModel]] = Params
    knobs: ClassVar[dict[str, tuple[float, float]]] = {"width": (8, 256)}
    freeze = True

    width: int

    def check(self, model: ModelFacts, stack: Sequence[Method]) -> None:
        parts = {part for name in model.linears for part in name.split(".")}
        if parts and not parts & set(PARTS):
            raise Refused(
                "`adapters` does not know the blocks of this model",
                why=f"no `self_attn` and no `mlp` in it, but {', '.join(sorted(p for p in parts if not p.isdigit()))}",
                todo="use `lora`, or a model whose blocks have these parts",
            )

    def wrap(self, model: Any, ctx: Context) -> Module:
        return insert(model, self.width)

    def unwrap(self, model: Module, ctx: Context) -> Module:
        raise Refused("`adapters` cannot be folded into plain weights", todo="keep it alone, and start from the base")


def insert(model: Any, width: int) -> Any:
    """A model with a bottleneck after attention and MLP of every block."""
    import torch
    from torch import nn

    def add(part: Any, args: Any, out: Any) -> Any:
        u, rest = (out[0], out[1:]) if isinstance(out, tuple) else (out, None)
        u = u + part.adapter_up(part.adapter_down(u).relu())
        return u if rest is None else (u, *rest)

    parts = [p for n, p in model.named_modules() if n.rpartition(".")[2] in PARTS]
    if not parts:
        raise HarnessError("`adapters` does not know the blocks of this model", why="no `self_attn` and no `mlp` in it")
    d = model.config.hidden_size
    for part in parts:
        here = next(part.parameters())
        part.adapter_down = nn.Linear(d, width, bias=False).to(here.device, here.dtype)
        part.adapter_up = nn.Linear(width, d, bias=False).to(here.device, here.dtype)
        torch.nn.init.zeros_(part.adapter_up.weight)
        part.register_forward_hook(add)
    model.own_adapter = lambda: (
        {n: p for n, p in model.named_parameters() if ".adapter_" in n},
        {"peft_type": KIND, "width": width},
    )
    return model


def attach_saved(model: Any, folder: Path) -> Any:
    """A plain model with the bottlenecks of a folder."""
    from safetensors.torch import load_file

    insert(model, json.loads((folder / "adapter_config.json").read_text())["width"])
    model.load_state_dict(load_file(folder / "adapter_model.safetensors"), strict=False)
    return model.eval()
