"""`sstoken`: loss on the answer tokens that the model has learnt most lately and that look most at the prompt.

All tokens still go through the model, so it changes what is learned and saves no compute.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from harness.errors import HarnessError
from harness.methods.base import NO_TARGET, Method

if TYPE_CHECKING:
    from torch import Tensor

    from harness.training.context import Context
    from harness.training.tokens import Tokens


class Params(BaseModel):
    """rho: share of each sequence's answer tokens that is kept.  gamma: weight of the gain over history against that
    of attention.  layer: whose attention, counted as Python does.  warmup: share of the budget in which attention
    alone decides, since the gain over history starts at zero.

    norm: the mean over all kept tokens of a step ("tokens"), or over each sequence's and then over sequences ("rows").
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    rho: float = Field(default=0.6, gt=0, le=1)
    gamma: float = Field(default=0.5, ge=0, le=1)
    layer: int = -1
    warmup: float = Field(default=0.2, ge=0, le=1)
    norm: Literal["tokens", "rows"] = "tokens"


class SsToken(Method):
    """ssToken: Self-modulated and Semantic-aware Token Selection for LLM Fine-tuning, arXiv 2510.18250.

    For answer token i of a sequence with n of them: REL_i = log p(x_i) - log p_history(x_i), history being the model
    before training; attention_i = sum over prompt positions of the mean over heads of one layer's attention, in the
    row of token i's own position. score_i = gamma minmax(REL)_i + (1 - gamma) attention_i, with the minimum and the
    maximum over the sequence. The ceil(rho n) highest scores keep weight 1, the others get 0; [loss tokens].
    Prompt positions are those before i whose token carries no loss, so earlier user turns count as well.

    Defaults are the paper's (which takes rho = 0.8 for one model of 14B) and the release's: its last layer, and its
    warm-up, 10,000 of 50,000 rows. `layer`: which one the paper takes for each model is UNVERIFIED. `norm`: the release
    averages over the kept tokens of a micro-batch, here it is those of a whole step; the paper writes a mean for each
    sequence, `norm: rows`, and which of them gave its numbers is UNVERIFIED.

    Deviations: history comes from the frozen model in the loop rather than from a list made beforehand. The variant
    whose history follows the training by a moving average is not offered. The paper trains LoRA only; here any.
    Attention by request opens the model without its fused kernel, so losses differ from `sft` by rounding unless
    gamma = 1 and warmup = 0, which need none, or rho = 1, which needs nothing at all.
    """

    name: ClassVar[str] = "sstoken"
    paper: ClassVar[str] = "arXiv 2510.18250"
    verified: ClassVar[str] = "worked example; keeping all equals `sft`; attention is the plain model's"
    family: ClassVar[str] = "selection"
    Params: ClassVar[type[BaseModel]] = Params
    knobs: ClassVar[dict[str, tuple[float, float]]] = {"rho": (0.3, 1.0), "gamma": (0.0, 1.0)}

    rho: float
    gamma: float
    layer: int
    warmup: float

    @property
    def needs(self) -> frozenset[str]:  # type: ignore[override]
        history = {"ref"} if self.gamma > 0 else set()
        attention = {f"attention:{self.layer}"} if self.gamma < 1 or self.warmup > 0 else set()
        return frozenset(history | attention) if self.rho < 1 else frozenset()

    def token_weight(self, tok: Tokens, ctx: Context) -> Tensor | None:
        import torch

        if self.rho == 1:
            return None
        gamma = self.gamma if ctx.progress >= self.warmup else 0.0
        gain = tok.logp - tok.ref.logp if gamma > 0 else torch.zeros(len(tok.row), device=tok.row.device)
        seen = attention_to_prompt(tok, self.layer) if gamma < 1 else torch.zeros_like(gain)
        weights = torch.zeros_like(gain)
        for places in ((tok.row == r).nonzero()[:, 0] for r in range(tok.R)):
            if len(places):
                weights[places] = chosen(gain[places], seen[places], gamma, self.rho)
        return weights


def chosen(gain: Tensor, seen: Tensor, gamma: float, rho: float) -> Tensor:
    """1.0 for the tokens of one sequence that are kept, else 0.0. Of equal scores the earlier token is kept."""
    import torch

    low, high = gain.min(), gain.max()
    score = gamma * (gain - low) / (high - low + 1e-8) + (1 - gamma) * seen
    kept = math.ceil(round(rho * len(score), 9))  # 0.07 * 100 is a little more than 7
    return torch.zeros_like(score).index_fill(0, score.argsort(descending=True, stable=True)[:kept], 1.0)


def attention_to_prompt(tok: Tokens, layer: int) -> Tensor:
    """What each target token's own position attends to prompt positions, mean over heads, in 0 to 1; [loss tokens]."""
    import torch

    layers = getattr(tok.out, "attentions", None) or ()
    if not -len(layers) <= layer < len(layers):
        raise HarnessError(
            f"sstoken: this model gives attention weights of {len(layers)} layers, and `layer` is {layer}",
            todo="choose another layer, or `gamma: 1` with `warmup: 0`, which needs none",
        )
    weights = layers[layer].detach().mean(1, dtype=torch.float32)
    answer = torch.nn.functional.pad(tok.batch.targets[:, :-1] != NO_TARGET, (1, 0))
    share, there = tok.gather((weights * ~answer[:, None]).sum(-1), back=-1)
    return share * there
