"""What training leaves: full weights in bfloat16, a PEFT adapter, or the state of a stage that another starts from.

artifact/artifact.json      {"kind": "full" | "adapter" | "stage", "method": [...], ...}
full:    config.json, *.safetensors, the tokenizer's files: a Hugging Face folder
adapter: adapter_config.json, adapter_model.safetensors: a PEFT folder, in fp32
stage:   state.safetensors, fp32, under the names of the plain model; never served
memory.pt where the methods kept something; <name>.pt for each side file a method saved
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from harness.errors import HarnessError

TOKENIZER_FILES = (
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template*",
    "vocab*",
    "merges.txt",
    "*.model",
    "*.tiktoken",
)


def read_artifact(folder: Path) -> dict[str, Any]:
    """artifact.json of a folder. HarnessError if it has none."""
    try:
        body: dict[str, Any] = json.loads((folder / "artifact.json").read_text())
    except (OSError, ValueError) as error:
        raise HarnessError("not an artifact: `artifact.json` cannot be read", where=str(folder)) from error
    return body


def write_artifact(folder: Path, body: Mapping[str, Any], memory: Mapping[str, Any], saved: Mapping[str, Any]) -> None:
    """The parts every kind has."""
    if memory:
        torch.save(dict(memory), folder / "memory.pt")
    for name, value in saved.items():
        torch.save(value, folder / f"{name}.pt")
    (folder / "artifact.json").write_text(json.dumps(body, indent=2, sort_keys=True) + "\n")


def read_memory(folder: Path) -> dict[str, Any]:
    """What the methods kept with a stage."""
    path = folder / "memory.pt"
    if not path.exists():
        return {}
    memory: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return memory


def save_full(model: Any, folder: Path, base: Path, tokenizer: Any = None) -> None:
    """A Hugging Face folder in bfloat16. The model's weights are cast in place, so it is of no use afterwards.

    tokenizer: one that a method put in the base's place; None copies the base's own files as they are.
    """
    model.to(torch.bfloat16).save_pretrained(folder)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
        return
    for path in {p for pattern in TOKENIZER_FILES for p in base.glob(pattern)}:
        shutil.copyfile(path, folder / path.name)


def save_adapter(model: Any, folder: Path) -> None:
    """A PEFT folder of the adapter injected in a model. The order of its configuration is fixed, so that equal
    adapters are equal files; the base's path is not written, since it differs between machines."""
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    if hasattr(model, "own_adapter"):  # what a member's `wrap` put in that peft's layers do not hold
        state, about = model.own_adapter()
    else:
        found = get_peft_model_state_dict(model, save_embedding_layers=False)
        state = {f"base_model.model.{name}": t for name, t in found.items()}
        about = model.peft_config["default"].to_dict()
    tensors = {name: t.detach().float().cpu().contiguous() for name, t in state.items()}
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {**about, "base_model_name_or_path": None, "inference_mode": True}
    plain = {k: sorted(v) if isinstance(v, set) else v for k, v in config.items()}
    (folder / "adapter_config.json").write_text(json.dumps(plain, indent=2, sort_keys=True, default=str) + "\n")


def save_state(model: nn.Module, names: Iterable[str], folder: Path) -> None:
    """Some parameters in fp32, for a later stage to start from."""
    from safetensors.torch import save_file

    parameters = dict(model.named_parameters())
    save_file({plain_name(n): parameters[n].detach().cpu().contiguous() for n in names}, folder / "state.safetensors")


def load_state(model: nn.Module, folder: Path) -> None:
    """Load what `save_state` wrote. Later wraps may have moved names, so plain names are matched."""
    from safetensors.torch import load_file

    if read_artifact(folder)["kind"] != "stage":
        raise HarnessError("a stage can only start from a stage's own state", where=str(folder))
    mine = {plain_name(n): p for n, p in model.named_parameters()}
    with torch.no_grad():
        for name, value in load_file(folder / "state.safetensors").items():
            if name not in mine:
                raise HarnessError(f"the model has no parameter `{name}`", where=str(folder))
            mine[name].copy_(value)


def plain_name(name: str) -> str:
    """A parameter's name without the level that peft puts between a layer and its adapter."""
    return name.replace(".base_layer.", ".")


def folder_bytes(folder: Path) -> int:
    """Size of all files in a folder."""
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
