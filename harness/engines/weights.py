"""Full weights of an artifact, as a folder that vLLM and transformers read; and what they are, as a fingerprint.

An adapter is merged by PEFT on the CPU, in the precision in which the base is stored.
Weights that lack a tensor of the base's, or one that their own configuration builds, are refused here: an engine would
keep old values or make some up. They may have more than the base (biases); what an engine does with those it decides
by their `structure`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
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

OTHER = "serve it with the engine `hf`, which opens an artifact on its own"

Structure = Mapping[str, list[int]]  # the shape of every tensor by its name in the files


def merge(base: Path, adapter: Path, folder: Path) -> None:
    """Write base plus adapter to `folder`. StepFailed for a kind that has no place in plain weights."""
    if (kind := adapter_kind(adapter)) in CANNOT_BE_MERGED:
        raise StepFailed(
            f"an adapter of the kind {kind} cannot be merged into weights", kind="user", where=str(adapter), todo=OTHER
        )
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    with quiet():
        model = AutoModelForCausalLM.from_pretrained(base, dtype="auto", local_files_only=True)
        merged: Any = PeftModel.from_pretrained(model, adapter).merge_and_unload()
        merged.save_pretrained(folder)


def check_fit(artifact: Artifact, folder: Path) -> None:
    """StepFailed unless `folder` has the base's tensors by name and shape, perhaps with others, and its tokenizer."""
    if folder == artifact.base:
        return
    own = (artifact.path or folder) / "tokenizer.json"
    if own.exists() and file_digest(own) != file_digest(artifact.base / "tokenizer.json"):
        raise StepFailed("the artifact replaces the base's tokenizer", kind="user", where=str(own), todo=OTHER)
    want, have = structure(artifact.base), structure(folder)
    wrong = sorted(name for name in want if want[name] != have.get(name))
    if wrong:
        raise StepFailed(
            f"the artifact's weights do not fit its base: {len(wrong)} tensors differ in name or shape",
            kind="user",
            where=artifact.name or str(artifact.path),
            why=", ".join(f"{n} {have.get(n, 'missing')} for {want[n]}" for n in wrong[:3]),
            todo=OTHER,
        )


def check_built(artifact: Artifact, folder: Path, report: Mapping[str, Collection[Any]]) -> None:
    """StepFailed unless the files are what their own configuration builds, by the report of `hf.load_reported`.

    What the base has too and no configuration builds (old files have such buffers) may stay.
    """
    if folder == artifact.base:
        return
    surplus = set(report["unexpected_keys"]) - structure(artifact.base).keys()
    shapes = (name for name, *_ in report["mismatched_keys"])
    for wrong, what in (
        (report["missing_keys"], "lack {} tensors that their configuration builds"),
        (surplus, "have {} tensors that their configuration does not build"),
        (shapes, "have {} tensors of other shapes than their configuration builds"),
    ):
        if names := sorted(wrong):
            raise StepFailed(
                f"the artifact's weights {what.format(len(names))}",
                kind="user",
                where=artifact.name or str(artifact.path),
                why=", ".join(names[:3]),
                todo="save it again with `save_pretrained`, which writes weights and configuration together",
            )


def structure(folder: Path) -> Structure:
    """What an engine must have room for. A head that is tied to the embedding may be in the files or not."""
    shapes = {
        name: entry["shape"]
        for path in checkpoint.weight_files(folder)
        for name, entry in checkpoint.tensors(path).items()
    }
    if _is_tied(folder):
        shapes.pop("lm_head.weight", None)
    return shapes


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
