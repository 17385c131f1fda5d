"""From a request to token ids, the same way for every engine.

A conversation is rendered by the model's chat template, which writes its own special tokens; a plain text gets the
tokenizer's begin token unless it has it already. Choices are cut from their context as lm-eval cuts them
(`TemplateLM._encode_pair`), so that log-probabilities compare with published ones. Prompts are never cut.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.engines.base import Request
from harness.errors import HarnessError


class Prompts:
    """Encodes requests for one model.

    folder: has the tokenizer.  limit: tokens that prompt and answer may have together.
    `ends`: ids of every token that ends an answer: the tokenizer's and those of the model's own configuration.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        from transformers import AutoTokenizer

        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self.limit = limit
        self.ends = _ends(folder, self.tokenizer.eos_token_id)
        begin = self.tokenizer.bos_token_id
        self._begin: list[int] = [begin] if begin is not None and begin in self.tokenizer("")["input_ids"] else []

    def encode(self, request: Request) -> list[int]:
        """The ids of the prompt as it is sent. HarnessError if messages are given and the model has no template."""
        return self._ids(self._text(request), plain=request.messages is None)

    def pairs(self, request: Request) -> list[tuple[list[int], list[int]]]:
        """For each choice the ids of the context and of the choice itself, which is never empty."""
        text, plain = self._text(request), request.messages is None
        if not request.choices:
            raise HarnessError("there are no choices to choose from", where=f"request {request.key}")
        kept = text.rstrip()
        pairs = []
        for choice in request.choices:
            context = self._ids(kept, plain)
            whole = self._ids(text + choice, plain)
            if not context:  # nothing to condition on: the model's own begin or end token stands in, as in lm-eval
                context, whole = [self._stand_in()], [self._stand_in(), *whole]
            if not whole[len(context) :]:
                raise HarnessError(f"the choice {choice!r} has no token of its own", where=f"request {request.key}")
            pairs.append((context, whole[len(context) :]))
        return pairs

    def checked(self, requests: Sequence[Request]) -> list[list[int]]:
        """The ids of every prompt. HarnessError if one leaves no room for an answer, before any is sent."""
        encoded = [self.encode(request) for request in requests]
        for request, ids in zip(requests, encoded, strict=True):
            self._fits(request, len(ids) + 1)
        return encoded

    def checked_pairs(self, requests: Sequence[Request]) -> list[list[tuple[list[int], list[int]]]]:
        """`pairs` of every request. HarnessError if one does not fit, before any is sent."""
        encoded = [self.pairs(request) for request in requests]
        for request, pairs in zip(requests, encoded, strict=True):
            self._fits(request, max(len(context) + len(choice) for context, choice in pairs) + 1)
        return encoded

    def room(self, request: Request, ids: Sequence[int]) -> int:
        """How many tokens the answer may have: `max_tokens`, or what the context leaves.

        An answer that ends at the context ends as one that reaches `max_tokens`: with the finish "length".
        """
        return min(request.max_tokens, self.limit - len(ids))

    def _fits(self, request: Request, needed: int) -> None:
        if needed > self.limit:
            raise HarnessError(
                f"a prompt needs {needed:,} tokens with its answer, and the context holds {self.limit:,}",
                where=f"request {request.key}",
                todo="raise engine.max_model_len if the model's context allows it, or use fewer shots or shorter rows",
            )

    def _text(self, request: Request) -> str:
        if request.messages is None:
            return request.text + request.prefix
        if not self.tokenizer.chat_template:
            raise HarnessError(
                "the model has no chat template, and the request is a conversation",
                where=f"request {request.key}",
                todo="use tasks with plain prompts, or a model with a chat template",
            )
        turns = [{k: v for k, v in message.items() if k != "weight"} for message in request.messages]
        from jinja2 import TemplateError

        try:
            shown = {"tools": list(request.tools)} if request.tools else {}
            text = self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True, **shown)
        except TemplateError as error:
            raise HarnessError(
                "the model's chat template refuses a conversation", where=f"request {request.key}", why=str(error)
            ) from error
        return str(text) + request.prefix

    def _ids(self, text: str, plain: bool) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return [*self._begin, *ids] if plain and ids[:1] != self._begin else ids

    def _stand_in(self) -> int:
        begin = self.tokenizer.bos_token_id
        return int(begin if begin is not None else self.tokenizer.eos_token_id)


def _ends(folder: Path, end: int | None) -> tuple[int, ...]:
    found = set() if end is None else {end}
    for name in ("config.json", "generation_config.json"):
        path = folder / name
        value = json.loads(path.read_text(encoding="utf-8")).get("eos_token_id") if path.exists() else None
        found |= set(value if isinstance(value, list) else [] if value is None else [value])
    return tuple(sorted(found))
