"""Reads what is known of a model before it is opened: `ModelFacts`, for the checks of methods when a matrix is planned.

Configuration, tokenizer files and headers of weight files only. What cannot be told for sure is left out, so that no
check refuses a model by a guess: names of experts, for one, are not those that `transformers` gives them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.data import checkpoint
from harness.data.gguf_header import read_metadata, read_tensors
from harness.data.models import ModelSource
from harness.data.templates import template_of
from harness.methods.facts import ModelFacts, Token, TokenizerFacts, Widths

_GGUF_LAYERS = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_GGUF_KINDS = {"gemma3": "gemma3_text"}  # the file's word -> that of `transformers`, where they differ
_HEADS = ("lm_head.weight", "embed_out.weight", "output.weight")
_EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "embed_in.weight", "word_embeddings.weight")
_OUTSIDE = ("emb", "wte", "wpe", "lm_head", "norm", "output", "score", "classifier", "router", "gate.weight")


def facts_of(model: ModelSource, label: str) -> ModelFacts:
    """The facts of a model that was found. HarnessError for a file that cannot be read.

    An adapter is its base, with its own tokenizer where it brings one.
    """
    if model.base is None:
        return _of_gguf(model, label) if model.kind == "gguf" else _of_folder(model, label, model.path)
    base = facts_of(model.base, label)
    own = read_tokenizer(model.path)
    return ModelFacts(**{**vars(base), "chat_template": model.chat_template, "tokenizer": own or base.tokenizer})


def _of_folder(model: ModelSource, label: str, folder: Path) -> ModelFacts:
    whole = checkpoint.read_json(folder / "config.json") or {}
    config = whole.get("text_config") or whole
    shapes = _shapes(folder)
    tied = config.get("tie_word_embeddings", whole.get("tie_word_embeddings"))
    has_head = any(n.endswith(_HEADS) for n in shapes) if shapes else None
    heads, hidden = _count(config, "num_attention_heads", "n_head"), _count(config, "hidden_size", "n_embd")
    embedding = next((s[0] for n, s in shapes.items() if n.endswith(_EMBEDDINGS)), None)
    return ModelFacts(
        name=label,
        kind=str(config.get("model_type", "")),
        layers=_count(config, "num_hidden_layers", "n_layer"),
        heads=heads,
        kv_heads=_count(config, "num_key_value_heads") or heads,
        head_dim=_count(config, "head_dim") or (hidden // heads if hidden and heads else None),
        hidden=hidden,
        intermediate=_count(config, "intermediate_size", "n_inner"),
        context=model.context,
        rows=embedding or _count(config, "vocab_size"),
        causal=not (model.encoder or whole.get("is_encoder_decoder")),
        tied=tied if isinstance(tied, bool) else None if has_head is None else not has_head,
        head=True if tied is not False else has_head,
        chat_template=model.chat_template,
        linears=_linears(shapes, transposed=config.get("model_type") == "gpt2"),
        biases=any(n.endswith(".bias") for n in shapes) if shapes else None,
        config=config,
        tokenizer=read_tokenizer(folder),
    )


def _of_gguf(model: ModelSource, label: str) -> ModelFacts:
    said = read_metadata(model.path)
    kind = str(said.get("general.architecture", ""))
    own = {name.removeprefix(f"{kind}."): value for name, value in said.items() if name.startswith(f"{kind}.")}
    shapes = read_tensors(model.path)
    heads, hidden = _count(own, "attention.head_count"), _count(own, "embedding_length")
    return ModelFacts(
        name=label,
        kind=_GGUF_KINDS.get(kind, kind),
        layers=_count(own, "block_count"),
        heads=heads,
        kv_heads=_count(own, "attention.head_count_kv") or heads,
        head_dim=_count(own, "attention.key_length") or (hidden // heads if hidden and heads else None),
        hidden=hidden,
        intermediate=_count(own, "feed_forward_length"),
        context=model.context,
        rows=shapes.get("token_embd.weight", (None,))[0],
        tied="output.weight" not in shapes,
        head=True,
        chat_template=model.chat_template,
        linears=_gguf_linears(shapes),
        biases=any(n.startswith("blk.") and n.endswith(".bias") for n in shapes),
    )


def _count(config: Mapping[str, Any], *names: str) -> int | None:
    """The first that is a number above zero; some architectures have a list, one a layer, which is no count."""
    found = (config.get(name) for name in names)
    return next((n for n in found if isinstance(n, int) and not isinstance(n, bool) and n > 0), None)


def _shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor by name; empty where the files are not safetensors."""
    files = checkpoint.weight_files(folder)
    if any(path.suffix != ".safetensors" for path in files):
        return {}
    return {name: tuple(entry["shape"]) for path in files for name, entry in checkpoint.tensors(path).items()}


def _linears(shapes: Mapping[str, tuple[int, ...]], *, transposed: bool) -> dict[str, Widths]:
    if any(".experts." in name for name in shapes):
        return {}
    made = {}
    for name, shape in shapes.items():
        if name.endswith(".weight") and len(shape) == 2 and not any(word in name for word in _OUTSIDE):
            made[name.removesuffix(".weight")] = (shape[1], shape[0]) if transposed else (shape[0], shape[1])
    return made


def _gguf_linears(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Widths]:
    made = {}
    for name, shape in shapes.items():
        block, _, rest = name.removeprefix("blk.").partition(".")
        if not name.startswith("blk.") or len(shape) == 1:
            continue
        if (layer := _GGUF_LAYERS.get(rest.removesuffix(".weight"))) is None or len(shape) != 2:
            return {}  # a layer of another kind: its name once opened is not known
        made[f"model.layers.{block}.{layer}"] = (shape[0], shape[1])
    return made


def read_tokenizer(folder: Path) -> TokenizerFacts | None:
    """The tokenizer of a folder, None where it is not in the form of `tokenizer.json`."""
    body = checkpoint.read_json(folder / "tokenizer.json")
    listed = ((body or {}).get("model") or {}).get("vocab")
    if body is None or not listed:
        return None
    said = checkpoint.read_json(folder / "tokenizer_config.json") or {}
    vocab = dict(listed) if isinstance(listed, dict) else {entry[0]: i for i, entry in enumerate(listed)}
    added = {t["id"]: Token(t["content"], bool(t.get("special"))) for t in body.get("added_tokens") or ()}
    vocab |= {token.content: i for i, token in added.items()}
    ids = {}
    for name in ("bos", "eos", "pad", "unk", "mask"):
        token = said.get(f"{name}_token")
        ids[f"{name}_token_id"] = vocab.get(str(token.get("content") if isinstance(token, dict) else token))
    return TokenizerFacts(vocab, added, str(template_of(folder) or ""), **ids)
