"""What is known of a model before it is opened, as methods see it when a matrix is planned.

Plain facts from configuration, tokenizer files and the headers of weight files; `harness.data.facts` reads them. What
the files do not say is None or empty, and a check passes over it: only opening the model can tell.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.errors import Refused

Widths = tuple[int, int]  # output, input


@dataclass(frozen=True)
class Token:
    """A token that was added to a vocabulary. `str` gives its text, as it does in transformers."""

    content: str
    special: bool

    def __str__(self) -> str:
        return self.content


@dataclass(frozen=True)
class TokenizerFacts:
    """A tokenizer without its code. Names are those of transformers, so one function can ask either."""

    vocab: Mapping[str, int]
    added_tokens_decoder: Mapping[int, Token]
    chat_template: str = ""
    bos_token_id: int | None = None
    eos_token_id: int | None = None
    pad_token_id: int | None = None
    unk_token_id: int | None = None
    mask_token_id: int | None = None

    def get_vocab(self) -> Mapping[str, int]:
        """Every token with its id, added ones included."""
        return self.vocab


@dataclass(frozen=True)
class ModelFacts:
    """One model. name: its label in the matrix.  kind: `model_type` of its configuration, such as "llama".

    layers, heads, kv_heads, head_dim, hidden, intermediate, context: counts.  rows: of the embedding.
    causal: it predicts the next token.  tied: the output layer is the embedding.  head: it has an output layer.
    linears: linear layers inside its blocks by module name, with their widths.  biases: whether any of them has a bias.
    config: of the text part, as the file has it; empty for a GGUF.
    """

    name: str
    kind: str = ""
    layers: int | None = None
    heads: int | None = None
    kv_heads: int | None = None
    head_dim: int | None = None
    hidden: int | None = None
    intermediate: int | None = None
    context: int | None = None
    rows: int | None = None
    causal: bool = True
    tied: bool | None = None
    head: bool | None = None
    chat_template: bool = True
    linears: Mapping[str, Widths] = field(default_factory=dict)
    biases: bool | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    tokenizer: TokenizerFacts | None = None


def targeted(method: str, targets: str | Sequence[str], model: ModelFacts) -> dict[str, Widths]:
    """The linear layers that a method's `target_modules` names, as peft reads it; empty where they are not known.

    "all-linear" is all but the output layer; another text is a pattern of whole names; a list has last parts of names.
    Refused for a part that names no layer, and for the output layer or the embedding where they are one.
    """
    if not model.linears or targets == "all-linear":
        return dict(model.linears)
    outside = ("lm_head", "embed_tokens")
    names = (*model.linears, *outside)
    found: set[str] = set()
    for part in [targets] if isinstance(targets, str) else targets:
        mine = {n for n in names if _matches(part, n, pattern=isinstance(targets, str))}
        if not mine:
            ends = dict.fromkeys(n.rpartition(".")[2] for n in model.linears)
            raise Refused(
                f"`{method}` adapts layers named `{part}`, and there are none",
                why=f"its linear layers are {', '.join(ends)}",
                todo='use "all-linear", or a list of the last parts of names',
            )
        found |= mine
    shared = [n for n in outside if n in found]
    if shared and model.tied:
        raise Refused(
            f"`{method}` adapts `{shared[0]}`, whose weights are tied: output layer and embedding are one tensor",
            why="folding the update into one of them would change the other",
            todo=f"leave `{shared[0]}` out of `target_modules`",
        )
    return {n: widths for n, widths in model.linears.items() if n in found}


def _matches(part: str, name: str, *, pattern: bool) -> bool:
    """A file may leave out the prefix `model.` that the module has once it is opened."""
    whole = (name, f"model.{name}")
    return any(re.fullmatch(part, n) for n in whole) if pattern else name == part or name.endswith(f".{part}")
