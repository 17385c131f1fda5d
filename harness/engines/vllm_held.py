"""Whether a model in vLLM holds what lies in a folder, asked of the model itself.

vLLM passes over a bias that its model has no place for without a word, and a small one moves the answers by less than
the canary can see. It is asked of the tensors that an artifact has beyond its base's; the canary sees to the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from harness.data import checkpoint


def not_held(model: Any, folder: Path, names: Iterable[str], dtype: str) -> tuple[list[str], list[str]]:
    """Of some tensors of a folder: those that the model has no parameter for, and those that it has other values of.

    Vectors are compared, in the precision of the engine. Matrices are looked for by name alone, as a CPU keeps packed
    copies of them.
    """
    held = dict(model.named_parameters())
    homes = {name: _home(model, held, name) for name in names}
    homeless = [name for name, (home, _) in homes.items() if home not in held]
    stored = _vectors(folder, {part for _, parts in homes.values() for part in parts})
    other = []
    for name, (home, parts) in homes.items():
        if home in held and held[home].ndim == 1:
            values = torch.cat([stored[part] for part in parts if part in stored]).to(getattr(torch, dtype))
            if not torch.equal(held[home].detach().cpu().to(values.dtype)[: len(values)], values):
                other.append(name)
    return homeless, other


def _home(model: Any, held: Mapping[str, Any], name: str) -> tuple[str, list[str]]:
    """The name that the model has for a tensor, and all tensors that it joins under that name (q, k, v), in order."""
    mapper = getattr(model, "hf_to_vllm_mapper", None)
    home = (mapper.map_name(name) if mapper else name) or ""
    layer = f".{name}".split(".")[-2]
    for whole, parts in getattr(model, "packed_modules_mapping", {}).items():
        if layer in parts:
            if home not in held:
                home = home.replace(f".{layer}.", f".{whole}.")
            return home, [name.replace(f".{layer}.", f".{part}.") for part in parts]
    return home, [name]


def _vectors(folder: Path, names: set[str]) -> dict[str, torch.Tensor]:
    found = {}
    for path in checkpoint.weight_files(folder):
        wanted = [n for n, entry in checkpoint.tensors(path).items() if n in names and len(entry["shape"]) == 1]
        with safe_open(path, "pt") as f:
            found.update({name: f.get_tensor(name) for name in wanted})
    return found
