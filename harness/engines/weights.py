"""Full weights of an artifact, as a folder that vLLM and transformers read; and what they are, as a fingerprint.

An adapter is merged by PEFT on the CPU, in the precision in which the base is stored.
Weights that do not have the base's names and shapes are refused here: an engine that loads them into a running model
would keep the old values of whatever is missing.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from harness.data import checkpoint
from harness.data.convert import quiet
from harness.digest import file_digest
from harness.engines.base import Artifact
from harness.engines.unmerged import CANNOT_BE_MERGED, adapter_kind
from harness.errors import StepFailed

_OTHER = "serve it with the engine `hf`, which opens an artifact on its own"


def merge(base: Path, adapter: Path, folder: Path) -> None:
    """Write base plus adapter to `folder`. StepFailed for a kind that has no place in plain weights."""
    if (kind := adapter_kind(adapter)) in CANNOT_BE_MERGED:
        raise StepFailed(
            f"an adapter of the kind {kind} cannot be merged into weights", kind="user", where=str(adapter), todo=_OTHER
        )
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    with quiet():
        model = AutoModelForCausalLM.from_pretrained(base, dtype="auto", local_files_only=True)
        merged: Any = PeftModel.from_pretrained(model, adapter).merge_and_unload()
        merged.save_pretrained(folder)


def check_fit(artifact: Artifact, folder: Path) -> None:
    """StepFailed unless `folder` has the base's tensors by name and shape (a tied head may be absent) and tokenizer."""
    if folder == artifact.base:
        return
    own = (artifact.path or folder) / "tokenizer.json"
    if own.exists() and file_digest(own) != file_digest(artifact.base / "tokenizer.json"):
        raise StepFailed("the artifact replaces the base's tokenizer", kind="user", where=str(own), todo=_OTHER)
    want, have = _shapes(artifact.base), _shapes(folder)
    wrong = sorted(name for name in want.keys() | have.keys() if want.get(name) != have.get(name))
    if _is_tied(artifact.base):
        wrong = [name for name in wrong if name != "lm_head.weight"]
    if wrong:
        some = ", ".join(f"{n} {have.get(n, 'missing')} for {want.get(n, 'nothing')}" for n in wrong[:3])
        raise StepFailed(
            f"the artifact's weights do not fit its base: {len(wrong)} tensors differ in name or shape",
            kind="user",
            where=artifact.name or str(artifact.path),
            why=some,
            todo=_OTHER,
        )


def fingerprint(folder: Path, dtype: str) -> str:
    """sha256 of the weights as an engine of that dtype holds them: names, shapes and values, not files."""
    total = hashlib.sha256()
    for name, path in sorted((n, p) for p in checkpoint.weight_files(folder) for n in checkpoint.tensors(p)):
        if name == "lm_head.weight" and _is_tied(folder):
            continue
        with safe_open(path, "pt") as f:
            tensor = f.get_tensor(name).to(getattr(torch, dtype)).contiguous()
        total.update(f"{name} {tuple(tensor.shape)}".encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return total.hexdigest()


def _is_tied(folder: Path) -> bool:
    return bool((checkpoint.read_json(folder / "config.json") or {}).get("tie_word_embeddings"))


def _shapes(folder: Path) -> dict[str, list[int]]:
    return {
        name: entry["shape"]
        for path in checkpoint.weight_files(folder)
        for name, entry in checkpoint.tensors(path).items()
    }
