"""Virtual tokens before every sequence: what prompt tuning, p-tuning and prefix tuning train, and how they are served.

`attach` hooks a plain causal model, so the trainer and the engine `hf` run the same code: as embeddings in front of the
input, or as keys and values that every layer finds in its cache. Positions and masks move up by the virtual tokens,
and their own hidden states are cut off, so whoever calls the model sees no difference. Nothing here is known to vLLM.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import HarnessError, Refused

if TYPE_CHECKING:
    from torch import Tensor

TENSOR = "prompt_embeddings"  # peft's name in adapter_model.safetensors
KINDS = {"PROMPT_TUNING": False, "P_TUNING": False, "PREFIX_TUNING": True}  # whether the tokens are keys and values


def encoder(config: Any, model: Any) -> Any:
    """peft's module that makes the virtual tokens: called with ids [1, n], it gives [1, n, width]."""
    from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING as TUNERS
    from peft.utils.other import _prepare_prompt_learning_config

    config.num_transformer_submodules = 1
    _prepare_prompt_learning_config(config, model.config)
    tuners: Any = TUNERS
    made = tuners[config.peft_type]
    return made(config, model.get_input_embeddings()) if config.peft_type == "PROMPT_TUNING" else made(config)


def wrap(model: Any, config: Any) -> Any:
    """The model with trainable virtual tokens, as `model.soft_prompt`."""
    model.soft_prompt = encoder(config, model)
    model.peft_config = {"default": config}
    attach(model, lambda: tokens(model), cache=KINDS[config.peft_type])
    model.own_adapter = lambda: ({TENSOR: tokens(model)}, config.to_dict())
    return model


def tokens(model: Any) -> Tensor:
    """The virtual tokens of a wrapped model, [n, width]."""
    import torch

    ids = torch.arange(model.peft_config["default"].num_virtual_tokens, device=model.device)[None]
    made: Tensor = model.soft_prompt(ids)[0]
    return made


def attach_saved(model: Any, folder: Path) -> Any:
    """A plain model, hooked with the virtual tokens of a PEFT folder of one of `KINDS`."""
    from safetensors.torch import load_file

    kind = json.loads((folder / "adapter_config.json").read_text())["peft_type"]
    saved = load_file(folder / "adapter_model.safetensors")
    if TENSOR not in saved:
        raise HarnessError(f"the adapter has no tensor `{TENSOR}`", where=str(folder))
    made = saved[TENSOR].to(model.device, model.dtype)
    attach(model, lambda: made, cache=KINDS[kind])
    return model


def attach(model: Any, make: Callable[[], Tensor], *, cache: bool) -> None:
    """Put virtual tokens before every sequence that does not continue one.

    make: [n, width] of the embeddings, or [n, layers x 2 x heads x size] of keys and values, layer by layer, where
    `cache` is true.
    """
    import torch

    cut = 0

    def before(module: Any, args: Any, given: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        nonlocal cut
        kwargs, made, cut = dict(given), make(), 0
        n = len(made)
        old = kwargs.get("past_key_values")
        starts = old is None or old.get_seq_length() == 0
        ids = kwargs.get("input_ids")
        rows = len(kwargs["inputs_embeds"] if ids is None else ids)
        mask, places = kwargs.get("attention_mask"), kwargs.get("position_ids")
        if mask is not None:
            if mask.ndim != 2:
                raise Refused("virtual tokens do not go with masks of a method's own")
            kwargs["attention_mask"] = torch.cat([mask.new_ones(len(mask), n), mask], dim=1)
        if places is not None:
            kwargs["position_ids"] = places + n
        if starts and cache:
            kwargs["past_key_values"] = _cache(model.config, made, rows)
        elif starts:
            cut = n
            embeds = kwargs["inputs_embeds"] if ids is None else module.get_input_embeddings()(ids)
            ahead = made.to(embeds.dtype).expand(rows, -1, -1)
            kwargs["input_ids"], kwargs["inputs_embeds"] = None, torch.cat([ahead, embeds], dim=1)
            if places is not None:
                its = torch.arange(n, device=places.device).expand(len(places), -1)
                kwargs["position_ids"] = torch.cat([its, places + n], dim=1)
        return args, kwargs

    def after(module: Any, args: Any, kwargs: Any, out: Any) -> Any:
        if cut:
            out.last_hidden_state = out.last_hidden_state[:, cut:]
            if out.hidden_states is not None:
                out.hidden_states = tuple(h[:, cut:] for h in out.hidden_states)
        return out

    model.base_model.register_forward_pre_hook(before, with_kwargs=True)
    model.base_model.register_forward_hook(after, with_kwargs=True)


def _cache(config: Any, made: Tensor, rows: int) -> Any:
    """Keys and values [n, layers x 2 x heads x size] as a fresh cache, the same for every row."""
    import torch
    from transformers import DynamicCache

    kind, heads = made.device.type, getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    if torch.is_autocast_enabled(kind):
        made = made.to(torch.get_autocast_dtype(kind))
    layers = made.view(len(made), config.num_hidden_layers, 2, heads, -1).permute(1, 2, 3, 0, 4)
    cache = DynamicCache(config=config)
    for i, (k, v) in enumerate(layers):
        cache.update(k.expand(rows, -1, -1, -1), v.expand(rows, -1, -1, -1), i)
    return cache
