"""`lora`: low-rank adapters through peft, injected in place so that other members of a stack see the plain model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from harness.errors import HarnessError
from harness.methods.base import Method
from harness.methods.facts import ModelFacts, targeted

if TYPE_CHECKING:
    from torch.nn import Module

    from harness.training.context import Context


class Params(BaseModel):
    """r: rank.  alpha: the update is scaled by alpha / r, or by alpha / sqrt(r) with use_rslora (arXiv 2312.03732).

    dropout: on the adapter's input; above zero a step is never split, since masks depend on the batch's layout.
    target_modules: "all-linear" is every linear layer but the output head; or the last parts of module names.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    r: int = Field(default=16, gt=0)
    alpha: float = Field(default=32.0, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    target_modules: str | tuple[str, ...] = "all-linear"
    use_rslora: bool = False


class LoRA(Method):
    """LoRA: Low-Rank Adaptation of Large Language Models, arXiv 2106.09685. y = Wx + (alpha / r) BAx, W frozen.

    B starts at zero, so training starts from the base exactly. The paper adapts attention only; adapting every linear
    layer is what later practice found to be needed, and the default here.
    """

    name: ClassVar[str] = "lora"
    paper: ClassVar[str] = "arXiv 2106.09685"
    verified: ClassVar[str] = "TRL's trainer with peft, step by step; starts from the base exactly; folding"
    family: ClassVar[str] = "adapter"
    artifact: ClassVar[str] = "adapter"
    Params: ClassVar[type[BaseModel]] = Params
    knobs: ClassVar[dict[str, tuple[float, float]]] = {"r": (4, 128), "alpha": (4, 256)}
    peft: ClassVar[bool] = True
    freeze = True

    r: int
    alpha: float
    dropout: float
    target_modules: str | tuple[str, ...]
    use_rslora: bool

    @property
    def needs(self) -> frozenset[str]:  # type: ignore[override]
        return frozenset({"whole_batch"}) if self.dropout else frozenset()

    def check(self, model: ModelFacts, stack: Sequence[Method]) -> None:
        targeted(self.name, self.target_modules, model)

    def config(self) -> Any:
        """peft's configuration of this adapter."""
        from peft import LoraConfig

        targets = self.target_modules
        return LoraConfig(
            task_type="CAUSAL_LM",
            r=self.r,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            target_modules=targets if isinstance(targets, str) else list(targets),
            use_rslora=self.use_rslora,
        )

    def wrap(self, model: Module, ctx: Context) -> Module:
        from peft import inject_adapter_in_model

        try:
            injected: Module = inject_adapter_in_model(self.config(), model)
        except ValueError as error:
            raise HarnessError(
                f"lora: no layer of this model is named {self.target_modules!r}",
                why=str(error).splitlines()[0],
                todo='use "all-linear", or the last parts of this model\'s layer names',
            ) from error
        return injected

    def unwrap(self, model: Module, ctx: Context) -> Module:
        """The update added into the weights, and the plain layers put back."""
        from peft.tuners.tuners_utils import BaseTunerLayer

        for name, layer in [(n, m) for n, m in model.named_modules() if isinstance(m, BaseTunerLayer)]:
            layer.merge()
            model.set_submodule(name, layer.get_base_layer())
        del model.peft_config
        return model
