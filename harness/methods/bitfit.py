"""`bitfit`: only bias vectors train; a model that has none is given some, all zero."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from harness.errors import Refused
from harness.methods.base import Method
from harness.methods.facts import ModelFacts

if TYPE_CHECKING:
    from harness.training.context import Context

_FLAGS = {"self_attn": "attention_bias", "mlp": "mlp_bias"}  # a block's part -> the configuration's word for its biases


class BitFit(Method):
    """BitFit: Simple Parameter-efficient Fine-tuning for Transformer-based Masked Language-models, arXiv 2106.10199.

    y = Wx + b, only b trains; [output width] for every linear layer of the decoder. Llama-like models have no biases:
    there, layers that the configuration can declare biases for are given zeros, so training starts from the base, and
    the artifact's configuration says so. Deviation: norms have no biases in such models and stay as they are
    (`ln_tuning` trains their weights).

    Serving: a plain Hugging Face folder with more tensors than its base has, for which the vLLM engine starts afresh.
    It builds q, k, v and o under `attention_bias` in Llama (SmolLM2 among them), Granite, Gemma 2 and Gemma 3 (text),
    and gate, up and down under `mlp_bias` in the first two, which are all that are added here. Where it builds fewer
    than were trained (Qwen 3 has no o there) it refuses the artifact, and the engine `hf` serves it.
    """

    name: ClassVar[str] = "bitfit"
    paper: ClassVar[str] = "arXiv 2106.10199"
    verified: ClassVar[str] = "starts from the base exactly; numerical gradient; folding"
    family: ClassVar[str] = "selective"

    def check(self, model: ModelFacts, stack: Sequence[Method]) -> None:
        """A Llama's configuration may lack both words, which are younger than the model."""
        declares = model.kind == "llama" or any(flag in model.config for flag in _FLAGS.values())
        if model.config and model.biases is False and not declares:
            raise Refused(
                f"`bitfit` trains biases, and `{model.kind}` models have none and no place for any",
                todo="use `ln_tuning`, or a model with biases",
            )

    def wrap(self, model: Any, ctx: Context) -> Any:
        import torch
        from torch import nn

        for name, layer in model.named_modules():
            if isinstance(layer, nn.Linear) and layer.bias is None and _flag(name, model.config):
                layer.bias = nn.Parameter(torch.zeros(layer.out_features))
        return model

    def train_only(self, names: Sequence[str], ctx: Context) -> Iterable[str]:
        return [n for n in names if n.endswith(".bias")]

    def unwrap(self, model: Any, ctx: Context) -> Any:
        for name, _ in model.named_parameters():
            flag = _flag(name.removesuffix(".bias"), model.config) if name.endswith(".bias") else None
            if flag:
                setattr(model.config, flag, True)
        return model


def _flag(name: str, config: Any) -> str | None:
    """The configuration's word for the biases of a layer, if it has one."""
    flag = next((flag for part, flag in _FLAGS.items() if f".{part}." in name), None)
    return flag if flag and hasattr(config, flag) else None
