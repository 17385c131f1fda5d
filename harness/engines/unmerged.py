"""Adapters as they are, on a plain model: what the engine `hf` serves without folding them into weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from harness.methods import adapters, soft_prompt

CANNOT_BE_MERGED = frozenset({*soft_prompt.KINDS, adapters.KIND, "BEFT"})


def adapter_kind(folder: Path) -> str:
    """What sort of adapter a folder holds, by peft's names and ours."""
    return str(json.loads((folder / "adapter_config.json").read_text()).get("peft_type"))


def attach(model: Any, folder: Path) -> Any:
    """The model with the adapter of a folder, in evaluation mode."""
    kind = adapter_kind(folder)
    if kind in soft_prompt.KINDS:
        return soft_prompt.attach_saved(model, folder)
    if kind == adapters.KIND:
        return adapters.attach_saved(model, folder)
    import warnings

    from peft import PeftModel

    with warnings.catch_warnings(action="ignore"):  # that some of them could not be merged, which is not done here
        return PeftModel.from_pretrained(model, folder).eval()
