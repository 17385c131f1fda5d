"""`dft`: dynamic fine-tuning, the cross-entropy weighted by the model's own confidence in the gold token."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from harness.methods.base import Method

if TYPE_CHECKING:
    from torch import Tensor

    from harness.training.context import Context
    from harness.training.tokens import Tokens


class DFT(Method):
    """On the Generalization of SFT: A Reinforcement Learning Perspective with Reward Rectification, arXiv 2508.05629.

    loss_t = -sg(p_t) log p_t, where p_t is the probability of gold token t and sg stops the gradient; [loss tokens].
    The mean is over completion tokens, as for `sft`. Gradients are smaller than those of `sft` by about p_t, so a
    learning rate found for `sft` trains less here. No deviations from the paper are known.
    """

    name: ClassVar[str] = "dft"
    paper: ClassVar[str] = "arXiv 2508.05629"
    verified: ClassVar[str] = "TRL's losses and gradients to 1e-5; closed form"

    def loss(self, tok: Tokens, ctx: Context) -> Tensor:
        return -tok.logp.detach().exp() * tok.logp
