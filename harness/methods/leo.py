"""`leo`: only the input embeddings and the output projection train."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict

from harness.methods.base import Method

if TYPE_CHECKING:
    from harness.training.context import Context


class Params(BaseModel):
    """untie: give a model whose output projection is its embedding a projection of its own, which starts as a copy.
    positions: learned position embeddings train as well, where a model has any.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    untie: bool = False
    positions: bool = False


class LEO(Method):
    """Exploring and Evaluating Personalized Models for Code Generation, arXiv 2208.13928: L-EO.

    Input embedding E [V, d] and output projection O [V, d] train, nothing else does; loss and data are the stack's. A
    tied model has one tensor, which gets the sum of both gradients and stays tied: 28,311,552 parameters of
    SmolLM2-135M. E and O do not decay, or tokens that no row holds would drift to zero. The backward pass reaches the
    bottom of the model, so it is about as slow as `sft`: 4N + 2|E| a token, where `sft` has 6N.

    An untied model is saved as one, and its configuration says so. An engine that reloads weights in place keeps the
    tie of the base, so `untie` is served by the engine `hf`.

    UNVERIFIED: that learned position embeddings stay frozen (`positions`); the paper's learning rate is not known (1e-4
    is proposed for 135M, as `train.lr`). The paper stops early on validation loss, for which there is `keep_best`.
    """

    name: ClassVar[str] = "leo"
    paper: ClassVar[str] = "arXiv 2208.13928"
    verified: ClassVar[str] = "parameter counts of SmolLM2-135M; what is frozen stays bit for bit; numerical gradient"
    family: ClassVar[str] = "selective"
    Params: ClassVar[type[BaseModel]] = Params

    later: ClassVar[dict[str, bool]] = {"positions": False}

    untie: bool
    positions: bool

    def __init__(self, **params: Any) -> None:
        super().__init__(**params)
        if self.untie:
            self.engine = "hf"  # type: ignore[misc]

    def wrap(self, model: Any, ctx: Context) -> Any:
        from torch.nn import Parameter

        head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
        if self.untie and head.weight is embedding.weight:
            head.weight = Parameter(head.weight.detach().clone())
            model.config.tie_word_embeddings = False
        return model

    def train_only(self, names: Sequence[str], ctx: Context) -> dict[str, dict[str, Any]]:
        from torch.nn import Embedding

        model: Any = ctx.model
        parts = [model.get_input_embeddings(), model.get_output_embeddings()]
        if self.positions:
            parts += [module for module in model.modules() if isinstance(module, Embedding)]
        ends = {id(p) for part in parts for p in part.parameters()}
        offered = set(names)
        return {n: {"weight_decay": 0.0} for n, p in model.named_parameters() if id(p) in ends and n in offered}
