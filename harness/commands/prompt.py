"""A request in words: its conversation or text as it is sent, or as a model's chat template renders it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.engines.base import Request

WHOLE = 1 << 40  # tokens: only looked at, so no context is too small


def as_dict(request: Request) -> dict[str, Any]:
    """The parts of a request that a person wants to see."""
    return {
        "messages": None if request.messages is None else [dict(m) for m in request.messages],
        **({"tools": list(request.tools)} if request.tools else {}),
        "text": request.text,
        "prefix": request.prefix,
        "choices": list(request.choices),
    }


def in_words(prompt: Mapping[str, Any]) -> str:
    """What `as_dict` gave: turns under `[role]`, or the text as it stands; then what the answer begins with."""
    if prompt["messages"] is None:
        return str(prompt["text"] + prompt["prefix"])
    turns = [f"[{turn['role']}]\n{turn['content']}" for turn in prompt["messages"]]
    if "tools" in prompt:
        turns.insert(0, f"[tools, shown by the model's template]\n{json.dumps(prompt['tools'], ensure_ascii=False)}")
    if prompt["prefix"]:
        turns.append(f"[the answer begins with]\n{prompt['prefix']}")
    return "\n".join(turns)


def rendered(request: Request, model: Path) -> str:
    """What the tokens that a model gets say, its special tokens included. model: folder with its tokenizer."""
    from harness.engines.prompts import Prompts

    prompts = Prompts(model, WHOLE)
    return str(prompts.tokenizer.decode(prompts.encode(request), clean_up_tokenization_spaces=False))
