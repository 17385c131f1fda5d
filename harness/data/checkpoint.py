"""A folder in Hugging Face format, looked at without loading it: is it a model, what does it hold, is it whole.

Weights are never read here, only the header of each safetensors file. Nothing is imported from `transformers`.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

from harness.errors import HarnessError

_CONTENT = (".json", ".safetensors", ".bin", ".jinja", ".model", ".txt", ".tiktoken")
_NOT_CONTENT = ("README", "LICENSE", "training_args", "trainer_state", "optimizer", "scheduler")
_READS_ONLY = ("ForMaskedLM", "ForPreTraining", "ForSequenceClassification", "ForTokenClassification")
_ENCODERS = {"albert", "bert", "camembert", "deberta", "deberta-v2", "distilbert", "electra", "ernie", "modernbert"}
_ENCODERS |= {"mpnet", "roberta", "xlm-roberta"}
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "spiece.model", "tekken.json")


def inspect(folder: Path) -> tuple[bool, int | None]:
    """Whether a model folder has a chat template, and its context length in tokens (None if it does not say).

    HarnessError for a folder that is no model, an adapter, or a model that lacks a part or was cut short.
    """
    if (folder / "adapter_model.safetensors").exists() and not (folder / "config.json").exists():
        raise HarnessError(
            "an adapter without its `adapter_config.json`", where=str(folder), todo="copy that file there too"
        )
    if read_json(folder / "config.json") is None:
        raise HarnessError("not a model folder: it has no config.json", where=str(folder))
    weights = weight_files(folder)
    if not weights:
        raise HarnessError("not a model folder: it has no weights (*.safetensors or *.bin)", where=str(folder))
    if not any((folder / name).exists() for name in _TOKENIZERS):
        raise HarnessError("the model folder has no tokenizer", where=str(folder), todo="save its tokenizer there too")
    for path in weights:
        if path.suffix == ".safetensors":
            tensors(path)
    return has_template(folder), context(folder)


def context(folder: Path) -> int | None:
    """The context length in tokens that the configuration states, if it states one."""
    config = read_json(folder / "config.json") or {}
    inner = config.get("text_config") or config
    lengths = (inner.get(name) for name in ("max_position_embeddings", "n_positions", "seq_length"))
    return next((n for n in lengths if isinstance(n, int)), None)


def is_encoder(folder: Path) -> bool:
    """Whether the model reads text and cannot write any: it has no head that predicts the next token.

    Told by the class names of the configuration; by the family where it names none, as DeBERTa's files do not.
    """
    config = read_json(folder / "config.json") or {}
    family = config.get("model_type") in _ENCODERS and not config.get("is_decoder")
    classes = [str(name) for name in config.get("architectures") or []]
    bare = [family and name.endswith("Model") and not name.endswith("LMHeadModel") for name in classes]
    return all(b or name.endswith(_READS_ONLY) for b, name in zip(bare, classes, strict=True)) if classes else family


def content(folder: Path) -> list[Path]:
    """The files that make the model what it is, sorted by name: configuration, weights, tokenizer."""
    weights = set(weight_files(folder))
    return sorted(
        path
        for path in folder.iterdir()
        if path.is_file()
        and path.suffix in _CONTENT
        and not path.name.startswith(_NOT_CONTENT)
        and (path in weights or path.suffix not in (".safetensors", ".bin"))
    )


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files, or the *.bin files where there are none. HarnessError if an index names a missing one."""
    for pattern, index in (
        ("*.safetensors", "model.safetensors.index.json"),
        ("*.bin", "pytorch_model.bin.index.json"),
    ):
        named = set((read_json(folder / index) or {}).get("weight_map", {}).values())
        missing = sorted(name for name in named if not (folder / name).exists())
        if missing:
            raise HarnessError(
                f"weights are missing: {', '.join(missing)}", where=str(folder), why=f"{index} names them"
            )
        found = [p for p in sorted(folder.glob(pattern)) if not p.name.startswith(("adapter_", *_NOT_CONTENT))]
        if found:
            return found
    return []


def tensors(path: Path) -> dict[str, Any]:
    """The header of a safetensors file: {tensor name: {"dtype", "shape", "data_offsets"}}.

    HarnessError if the file is not whole. Format: https://github.com/huggingface/safetensors#format
    """
    try:
        with path.open("rb") as f:
            (length,) = struct.unpack("<Q", f.read(8))
            size = path.stat().st_size
            if 8 + length > size:
                raise ValueError("it ends inside its header")
            header: dict[str, Any] = json.loads(f.read(length))
    except (ValueError, struct.error) as error:
        raise HarnessError("damaged weights file", where=str(path), why=str(error), todo="copy it again") from error
    header.pop("__metadata__", None)
    end = 8 + length + max((entry["data_offsets"][1] for entry in header.values()), default=0)
    if end != size:
        raise HarnessError(
            "damaged weights file", where=str(path), why=f"it has {size:,} bytes of {end:,}", todo="copy it again"
        )
    return header


def read_json(path: Path) -> dict[str, Any] | None:
    """A JSON object in a file; None if there is no such file; HarnessError if it cannot be parsed."""
    if not path.is_file():
        return None
    try:
        body: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise HarnessError("this file is not valid JSON", where=str(path), why=str(error)) from error
    return body


def has_template(folder: Path) -> bool:
    """Whether a folder brings a chat template, in a file of its own or with its tokenizer."""
    if (folder / "chat_template.jinja").exists() or (folder / "chat_template.json").exists():
        return True
    return bool((read_json(folder / "tokenizer_config.json") or {}).get("chat_template"))
