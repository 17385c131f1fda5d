"""`dpo`: direct preference optimisation on pairs of answers. The pairs and the frozen reference are the host's."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from harness.methods.base import Method, Term

if TYPE_CHECKING:
    from harness.training.context import Context
    from harness.training.tokens import Tokens


class Params(BaseModel):
    """beta: how strongly the policy is held to the reference. The paper uses 0.1, and 0.5 for summaries."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    beta: float = Field(default=0.1, gt=0)


class DPO(Method):
    """Direct Preference Optimization: Your Language Model is Secretly a Reward Model, arXiv 2305.18290.

    loss = -log sigmoid(beta (g_chosen - g_rejected)), one value a pair, mean over pairs, where the gain g of an answer
    is the sum over its tokens of log p(token) - log p_ref(token); margins [pairs]. The reference is the model that the
    stage starts from. It is log 2 at the start for every beta, and there the gradient is beta / 2 times that of
    log p(rejected) - log p(chosen).

    A gain is a sum over tokens and not a mean, so long answers weigh more, as in the paper. Token weights given by
    other members of a stack multiply the terms of that sum. Deviations: the optimiser and the learning rate are the
    matrix's (the paper: RMSprop, 1e-6, 150 steps of warm-up, 64 pairs a step).
    """

    name: ClassVar[str] = "dpo"
    paper: ClassVar[str] = "arXiv 2305.18290"
    verified: ClassVar[str] = (
        "TRL's losses and gradients to 1e-5, its trainer step by step; a plain torch loop; closed form"
    )
    family: ClassVar[str] = "preference"
    Params: ClassVar[type[BaseModel]] = Params
    knobs: ClassVar[dict[str, tuple[float, float]]] = {"beta": (0.01, 1.0)}
    needs = frozenset({"ref", "pairs"})

    beta: float

    def loss(self, tok: Tokens, ctx: Context) -> Term:
        from torch.nn.functional import logsigmoid

        gain = tok.logp - tok.ref.logp
        margin = tok.view("chosen").row_sum(gain) - tok.view("rejected").row_sum(gain)
        return Term(-logsigmoid(self.beta * margin))
