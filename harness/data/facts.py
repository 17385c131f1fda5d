"""The facts of a model from its files: `config.json` and tensor headers of a folder, the header of a GGUF file."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.data import checkpoint
from harness.data.gguf_header import read_metadata
from harness.data.models import ModelSource
from harness.methods.facts import ModelFacts

_WRITES = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
_NOT_LINEAR = ("embed", "norm", "lm_head", "wte", "wpe", "shared")  # parts of names of other matrices
_GGUF_LIKE_LLAMA = ("llama", "qwen2", "qwen3", "mistral", "gemma", "gemma2", "granite")


@functools.cache
def facts_of(model: ModelSource) -> ModelFacts:
    """What the files of a model say; of an adapter, what those of its base say."""
    if model.base is not None:
        return facts_of(model.base)
    return _of_gguf(model.path) if model.kind == "gguf" else _of_folder(model.path)


def _of_folder(folder: Path) -> ModelFacts:
    config = checkpoint.read_json(folder / "config.json") or {}
    inner: Mapping[str, Any] = config.get("text_config") or config
    classes = [str(name) for name in config.get("architectures") or []]
    return ModelFacts(
        kind=str(config.get("model_type") or ""),
        writes=not classes or any(name.endswith(_WRITES) for name in classes),
        layers=_first(inner, "num_hidden_layers", "n_layer"),
        heads=_first(inner, "num_attention_heads", "n_head"),
        tied=config.get("tie_word_embeddings"),
        linear=_linear(folder),
    )


def _first(config: Mapping[str, Any], *names: str) -> int | None:
    return next((config[name] for name in names if isinstance(config.get(name), int)), None)


def _linear(folder: Path) -> dict[str, frozenset[tuple[int, int]]] | None:
    """Matrices by the last part of their layer's name; None where the weights have no header that says so."""
    files = checkpoint.weight_files(folder)
    if any(path.suffix != ".safetensors" for path in files):
        return None
    found: dict[str, set[tuple[int, int]]] = {}
    for path in files:
        for name, entry in checkpoint.tensors(path).items():
            layer = name.removesuffix(".weight")
            if layer != name and len(entry["shape"]) == 2 and not any(part in name for part in _NOT_LINEAR):
                outputs, inputs = entry["shape"]
                found.setdefault(layer.rpartition(".")[2], set()).add((inputs, outputs))
    return {name: frozenset(sizes) for name, sizes in found.items()} or None


def _of_gguf(path: Path) -> ModelFacts:
    """Names and sizes as transformers gives them to the layers of a Llama-like model."""
    about = read_metadata(path)
    kind = str(about.get("general.architecture", ""))

    def number(name: str) -> int | None:
        value = about.get(f"{kind}.{name}")
        return value if isinstance(value, int) else None

    layers, heads, width = number("block_count"), number("attention.head_count"), number("embedding_length")
    inner, pairs = number("feed_forward_length"), number("attention.head_count_kv") or heads
    linear = None
    if kind in _GGUF_LIKE_LLAMA and heads and width and inner and pairs:
        head = number("attention.key_length") or width // heads
        sizes = {
            "q_proj": (width, heads * head),
            "k_proj": (width, pairs * head),
            "v_proj": (width, pairs * head),
            "o_proj": (heads * head, width),
            "gate_proj": (width, inner),
            "up_proj": (width, inner),
            "down_proj": (inner, width),
        }
        linear = {name: frozenset([size]) for name, size in sizes.items()}
    return ModelFacts(kind, True, layers, heads, None, linear)
