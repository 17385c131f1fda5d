"""`otr`: one-token rollout, a policy gradient on next tokens sampled at every prefix of the given answer.

Nothing is generated: each sampled token is judged at once, by whether it is the answer's own, and then forgotten.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from harness.methods.base import Method

if TYPE_CHECKING:
    from torch import Tensor

    from harness.training.context import Context
    from harness.training.tokens import Tokens


class Params(BaseModel):
    """k: tokens sampled at a position.  kappa: temperature they are sampled at.  beta: reward of a token that is not
    the answer's own; that one earns 1.

    norm: the mean over each sequence's tokens and then over sequences ("rows"), or over all tokens of a step
    ("tokens").  sampler: "gold" replaces every sample by the answer's token.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    k: int = Field(default=256, gt=0)
    kappa: float = Field(default=1.3, gt=0)
    beta: float = Field(default=-0.1, lt=1)
    norm: Literal["rows", "tokens"] = "rows"
    sampler: Literal["policy", "gold"] = "policy"


class OTR(Method):
    """One-Token Rollout: Guiding Supervised Fine-Tuning of LLMs with Policy Gradient, arXiv 2509.26313.

    At each loss token t, a_1 ... a_k are drawn, with replacement, from softmax(z_t / kappa), z_t being the logits [V].
    R_j = 1 where a_j is the gold token x_t, else beta. loss_t = -(1/k) sum_j sg(R_j) log p(a_j), p = softmax(z_t);
    [loss tokens]. With n of the k samples gold this is -(n/k) log p(x_t) - (beta/k) sum over the others of log p(a_j).
    A position where none is gold only pushes down what was drawn. Sampling uses the logits of the training pass itself,
    so there is no other.

    k = 256 is what reviewers of the paper give. UNVERIFIED are `kappa` (the paper's is above 1), `beta` (a small
    negative number), `norm` (normalised by the sequence's length; what stands over sequences is not known), and the
    learning rate and batch, which are said to be those of SFT. Gradients are smaller than those of `sft` by about the
    share of gold samples, so its learning rate trains less here: try twice that too.
    The curve has `on_policy`, the mean of n/k, and `never_gold`, the share of positions with n = 0.
    With `sampler: gold` the loss is that of `sft`, under the same `norm`. No deviations are known.
    """

    name: ClassVar[str] = "otr"
    paper: ClassVar[str] = "arXiv 2509.26313"
    verified: ClassVar[str] = "closed form; its mean over draws is `otr_exact`; draws of the answer alone give `sft`"
    Params: ClassVar[type[BaseModel]] = Params
    knobs: ClassVar[dict[str, tuple[float, float]]] = {"kappa": (1.0, 2.0), "beta": (-0.5, 0.0)}

    k: int
    kappa: float
    beta: float
    sampler: str

    def loss(self, tok: Tokens, ctx: Context) -> Tensor:
        import torch

        def of(z: Tensor, target: Tensor) -> Tensor:
            gold = target[:, None]
            if self.sampler == "gold":
                drawn = gold.expand(-1, self.k)
            else:
                policy = (z.detach() / self.kappa).softmax(-1)
                drawn = torch.multinomial(policy, self.k, replacement=True, generator=ctx.rng("otr"))
            hit = drawn == gold
            logp = z.log_softmax(-1).gather(-1, torch.cat([gold, drawn], -1))
            right, wrong = hit.float().mean(-1), logp[:, 1:].masked_fill(hit, 0.0).mean(-1)
            return torch.stack([-right * logp[:, 0] - self.beta * wrong, right], -1)

        loss, right = tok.vocab(of).unbind(-1)
        ctx.log_mean(on_policy=right.detach(), never_gold=(right == 0).float())
        return loss
