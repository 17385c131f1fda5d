"""`focal`: the focal loss as a fine-tuning method, in a package of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from harness.methods.base import Method

if TYPE_CHECKING:
    from torch import Tensor

    from harness.training.context import Context
    from harness.training.tokens import Tokens


class Params(BaseModel):
    """gamma: how much less a token counts that the model is sure of. 0 is `sft`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    gamma: float = Field(default=2.0, ge=0)


class Focal(Method):
    """Focal Loss for Dense Object Detection, arXiv 1708.02002, on tokens.

    loss = -(1 - p)^gamma log p, one value a loss token, mean over all of an optimiser step; p the probability of the
    gold token. Deviation: the paper's weight of a class is left out, since tokens have none.
    """

    name: ClassVar[str] = "focal"
    paper: ClassVar[str] = "arXiv 1708.02002"
    verified: ClassVar[str] = "closed form; gamma 0 equals `sft`"
    Params: ClassVar[type[BaseModel]] = Params
    knobs: ClassVar[dict[str, tuple[float, float]]] = {"gamma": (0.5, 5.0)}

    gamma: float

    def loss(self, tok: Tokens, ctx: Context) -> Tensor:
        return -((1 - tok.logp.exp()) ** self.gamma) * tok.logp
