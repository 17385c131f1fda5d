"""`lofit`: one constant offset for each of a few attention heads, served as a bias of the attention's output layer.

It trains no weight of the base. The task's loss is whoever's in the stack owns it (`[dpo, lofit]`), else that of `sft`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from harness.errors import Refused
from harness.methods.base import Method, Stage, Term, overrides
from harness.methods.facts import ModelFacts

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

    from harness.training.context import Context
    from harness.training.tokens import Tokens

SERVED = ("llama", "granite", "gemma2", "gemma3_text")


class Params(BaseModel):
    """fraction: K over all heads; at least one head is chosen.  l1: of the scales, on their sum.  std: of the start of
    scales and offsets; 0 starts from the base exactly.  scale_lr, offset_lr: in place of the matrix's rate.

    select: "learned" is the method; "random" is its control, heads drawn without a first stage.
    heads: (layer, head) pairs to take as they are, without a first stage (for instance those of another task).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    fraction: float = Field(default=0.1, gt=0, le=1)
    l1: float = Field(default=5e-4, ge=0)
    std: float = Field(default=1e-3, ge=0)
    scale_lr: float = Field(default=5e-3, gt=0)
    offset_lr: float = Field(default=1e-2, gt=0)
    select: Literal["learned", "random"] = "learned"
    heads: tuple[tuple[int, int], ...] = ()


class LoFiT(Method):
    """LoFiT: Localized Fine-tuning on LLM Representations, arXiv 2406.01563.

    z [rows, length, H dh] is what enters an attention's output layer, H query heads (after key-value heads were
    repeated) of dh numbers, at every position. The base stays frozen.

    scales: z <- (1 + A) z with A [H, dh] in every layer, on the task's loss + l1 * sum |A|.
    The K = fraction * layers * H heads of largest ||A||_2 are chosen, ties to the lower layer and head.
    offsets: from the base again, without scales and without l1: z <- z + v with v [dh] on chosen heads only.

    A and v start at Normal(0, std), are fp32, have their own rates and do not decay. Defaults are for a model of 135M
    parameters (270 heads); the paper takes 3 % of the heads of 7B models, with l1 from 5e-4 to 5e-3, 5 epochs a stage.

    Serving: an offset before the output layer is a constant after it, so the artifact is a Hugging Face folder with
    o_proj.bias = sum over heads of W_o[:, head] v[head], `attention_bias: true`, and zeros for the biases of q, k and v
    that come with that setting. Both transformers 5.19 and vLLM 0.32 build o_proj by that setting for Llama (SmolLM2
    among them), Granite, Gemma 2 and Gemma 3 (text). Every other architecture is refused by the plan: Qwen 2 and 3,
    Mistral and Gemma 1 have no such bias in vLLM. The folder has tensors that the base has not, so our vLLM engine
    starts afresh on it and again on what follows, and asks the model whether it holds every bias.

    `lofit.pt` holds {"heads": [K, 2] (layer, head), "offsets": [K, dh], "scores": [layers, H] or None}. Members that
    replace linear layers stand before this one. Deviation: the official code keeps the best 160 heads and then uses
    K of them; here K are chosen at once, which are the same.
    """

    name: ClassVar[str] = "lofit"
    paper: ClassVar[str] = "arXiv 2406.01563"
    verified: ClassVar[str] = "worked example; edits of zero equal the base; the baked bias equals the hooks"
    family: ClassVar[str] = "representation"
    Params: ClassVar[type[BaseModel]] = Params
    knobs: ClassVar[dict[str, tuple[float, float]]] = {"fraction": (0.03, 0.2), "offset_lr": (5e-3, 2e-2)}
    freeze = True

    fraction: float
    l1: float
    std: float
    scale_lr: float
    offset_lr: float
    select: str
    heads: tuple[tuple[int, int], ...]

    def stages(self, ctx: Any) -> list[Stage]:
        learned = self.select == "learned" and not self.heads
        return [Stage("scales"), Stage("offsets")] if learned else [Stage("offsets")]

    def check(self, model: ModelFacts, stack: Sequence[Method]) -> None:
        if model.kind and model.kind not in SERVED:
            raise Refused(
                "`lofit` leaves a bias after the attention's output layer, and "
                f"`{model.kind}` models have no place for it",
                todo=f"use a model of type {', '.join(SERVED)}",
            )
        after = [m for m in stack[list(stack).index(self) + 1 :] if overrides(m, "wrap")]
        if after:
            raise Refused(
                f"`{after[0].name}` stands after `lofit` and may replace the layers that it edits",
                todo=f"put `lofit` after `{after[0].name}`",
            )
        if model.layers and model.heads:
            self._check_heads(model.layers, model.heads)

    def wrap(self, model: Module, ctx: Context) -> Module:
        """The host seeds torch's generator for a wrap, so heads and starts drawn here are the same in every process."""
        import torch

        outputs, count = _outputs(model), model.config.num_attention_heads
        self._check_heads(len(outputs), count)
        everyone = [(layer, head) for layer in range(len(outputs)) for head in range(count)]
        scales = ctx.stage.name == "scales"
        chosen = everyone if scales else self._chosen(everyone, ctx)
        for layer, o in enumerate(outputs):
            mine = [head for at, head in chosen if at == layer]
            if mine:
                o.lofit = torch.nn.Parameter(self.std * torch.randn(len(mine), o.in_features // count))
                o.register_buffer("lofit_heads", torch.tensor(mine), persistent=False)
                o.lofit_hook = o.register_forward_pre_hook(partial(_edit, scales=scales))
        return model

    def train_only(self, names: Sequence[str], ctx: Context) -> dict[str, dict[str, Any]]:
        lr = self.scale_lr if ctx.stage.name == "scales" else self.offset_lr
        return {n: {"lr": lr, "weight_decay": 0.0} for n in names if n.endswith(".lofit")}

    def auxiliary(self, tok: Tokens, ctx: Context) -> dict[str, Term]:
        if ctx.stage.name != "scales" or not self.l1:
            return {}
        total = sum(o.lofit.abs().sum() for o in _outputs(ctx.model))
        return {"l1": Term(total[None], scale=self.l1)}

    def after_stage(self, model: Module, ctx: Context) -> None:
        import torch

        if ctx.stage.name == "scales":
            scores = torch.stack([o.lofit.detach().norm(dim=-1).cpu() for o in _outputs(model)])
            order = scores.flatten().argsort(descending=True, stable=True)[: self._k(scores.numel())]
            heads = [list(divmod(int(i), scores.shape[1])) for i in order.sort().values]
            ctx.memory[self.name] = {"heads": heads, "scores": scores}

    def unwrap(self, model: Module, ctx: Context) -> Module:
        """Offsets become biases. An output layer that another member has widened is asked as a whole."""
        import torch

        heads, offsets = [], []
        for layer, block in enumerate(model.model.layers):
            attention = block.self_attn
            for part in (attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj):
                linear = getattr(part, "base_layer", part)
                if linear.bias is None:
                    linear.bias = torch.nn.Parameter(linear.weight.new_zeros(linear.out_features), False)
            o = attention.o_proj
            if hasattr(o, "lofit"):
                heads += [[layer, head] for head in o.lofit_heads.tolist()]
                offsets.append(o.lofit.detach().cpu())
                o.lofit_hook.remove()
                offset = _spread(o).detach()
                o.eval()
                with torch.no_grad():
                    getattr(o, "base_layer", o).bias += o(offset) - o(torch.zeros_like(offset))
                del o.lofit, o.lofit_heads, o.lofit_hook
        model.config.attention_bias = True
        scores = ctx.memory.get(self.name, {}).get("scores")
        ctx.save("lofit", {"heads": torch.tensor(heads), "offsets": torch.cat(offsets), "scores": scores})
        return model

    # --- heads ----------------------------------------------------------------------------------------------------
    def _k(self, heads: int) -> int:
        return max(1, round(self.fraction * heads))

    def _chosen(self, everyone: Sequence[tuple[int, int]], ctx: Context) -> list[tuple[int, int]]:
        import torch

        if self.heads:
            return sorted(set(self.heads))
        if self.select == "random":
            return [everyone[i] for i in torch.randperm(len(everyone))[: self._k(len(everyone))].sort().values]
        return [(layer, head) for layer, head in ctx.memory[self.name]["heads"]]

    def _check_heads(self, layers: int, heads: int) -> None:
        wrong = [(at, head) for at, head in self.heads if not (0 <= at < layers and 0 <= head < heads)]
        if wrong:
            raise Refused(
                f"`heads` of `lofit` names the head {wrong[0]}, which the model does not have",
                why=f"it has {layers} layers of {heads} heads",
                todo=f"(layer, head) goes from (0, 0) to {(layers - 1, heads - 1)}",
            )


def _outputs(model: Any) -> list[Any]:
    """The output layer of every attention, first layer first."""
    return [block.self_attn.o_proj for block in model.model.layers]


def _spread(o: Any) -> Tensor:
    """Its heads' numbers in their places among all heads, zero elsewhere: [H dh], fp32."""
    width = o.lofit.shape[1]
    return o.lofit.new_zeros(o.in_features // width, width).index_copy(0, o.lofit_heads, o.lofit).flatten()


def _edit(o: Any, inputs: tuple[Tensor, ...], *, scales: bool) -> tuple[Tensor, ...]:
    """What enters an output layer, [..., H dh], scaled or moved in fp32 and given in its own precision."""
    z, change = inputs[0], _spread(o)
    return ((z * (1 + change) if scales else z + change).to(z.dtype), *inputs[1:])
