"""`otr_exact`: one-token rollout in expectation, with the whole distribution in place of samples from it."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from harness.methods.base import Method

if TYPE_CHECKING:
    from torch import Tensor

    from harness.training.context import Context
    from harness.training.tokens import Tokens


class Params(BaseModel):
    """kappa: temperature of the distribution that weighs the tokens.  beta: reward of a token that is not the answer's
    own; that one earns 1.

    norm: the mean over each sequence's tokens and then over sequences ("rows"), or over all tokens of a step
    ("tokens").
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kappa: float = Field(default=1.3, gt=0)
    beta: float = Field(default=-0.1, lt=1)
    norm: Literal["rows", "tokens"] = "rows"


class OTRExact(Method):
    """The expectation of One-Token Rollout, arXiv 2509.26313, over its samples; proposed by the paper's reviewers.

    loss_t = -[sg(q(x_t)) log p(x_t) + beta sum_{a != x_t} sg(q(a)) log p(a)], where z_t are the logits [V], x_t is the
    gold token, p = softmax(z_t) and q = softmax(z_t / kappa); [loss tokens]. Its gradient is the mean of that of `otr`,
    without the variance of sampling. At kappa = 1 the gradient is (1 - beta) times that of `dft`, and with beta = 0 as
    well the loss is `dft`'s under the same `norm`.

    UNVERIFIED as for `otr`: `kappa`, `beta` and `norm`. The curve has `on_policy`, the mean of q(x_t).
    """

    name: ClassVar[str] = "otr_exact"
    paper: ClassVar[str] = "arXiv 2509.26313"
    verified: ClassVar[str] = "closed form; at temperature 1 a multiple of the gradient of `dft`"
    Params: ClassVar[type[BaseModel]] = Params
    knobs: ClassVar[dict[str, tuple[float, float]]] = {"kappa": (1.0, 2.0), "beta": (-0.5, 0.0)}

    kappa: float
    beta: float

    def loss(self, tok: Tokens, ctx: Context) -> Tensor:
        import torch

        def of(z: Tensor, target: Tensor) -> Tensor:
            gold = target[:, None]
            logp = z.log_softmax(-1)
            cold = z.detach() / self.kappa
            policy = cold.log_softmax(-1).exp()
            right = policy.gather(-1, gold)[:, 0]
            wrong = (policy.scatter(-1, gold, 0.0) * logp).sum(-1)
            return torch.stack([-right * logp.gather(-1, gold)[:, 0] - self.beta * wrong, right], -1)

        loss, right = tok.vocab(of).unbind(-1)
        ctx.log_mean(on_policy=right.detach())
        return loss
