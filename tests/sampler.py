"""A generator for tests of rollouts: plain torch sampling from the very model that trains, in fp32."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness.engines.base import Request, Response
from harness.engines.prompts import Prompts
from harness.methods.base import Method
from tests.training import Watch


class Sampled(Watch):
    """Stands in a stack as `Watch` does, and is its generator. Answers do not depend on what else is asked.

    sets: every batch of sequences as the loss saw it.  calls: requests of each call.  shift: added to every
    log-probability that is told, as if other weights had sampled.
    """

    def __init__(self, folder: Path, stop_after: int | None = None, shift: float = 0.0) -> None:
        super().__init__(stop_after)
        self.folder, self.shift = folder, shift
        self.calls: list[tuple[str, list[Request]]] = []
        self.sets: list[list[Any]] = []
        self.model: Any = None

    def prompt(self, request: Request, ctx: Any) -> Request:
        self.model, ctx.generator = ctx.model, self
        return request

    def collate(self, seqs: list[Any], ctx: Any) -> list[Any]:
        self.sets.append(seqs)
        return super().collate(seqs, ctx)

    def answer(self, requests: Sequence[Request], model: str) -> list[Response]:
        self.calls.append((model, list(requests)))
        prompts = Prompts(self.folder, 4096)
        groups = [list(same) for _, same in groupby(requests, key=lambda r: r.messages)]
        return [made for group in groups for made in self._sample(group, prompts.encode(group[0]), prompts)]

    @torch.no_grad()
    def _sample(self, group: list[Request], ids: list[int], prompts: Prompts) -> list[Response]:
        draws = [torch.Generator().manual_seed(r.seed) for r in group]
        said, logps, ended = [[] for _ in group], [[] for _ in group], [False] * len(group)  # type: ignore[var-annotated]
        now = torch.tensor([ids] * len(group))
        for _ in range(group[0].max_tokens):
            logits = self.model(input_ids=now).logits[:, -1].float()
            shares = (logits / group[0].temperature).softmax(-1)
            drawn = [int(torch.multinomial(s, 1, generator=g)) for s, g in zip(shares, draws, strict=True)]
            for i, token in enumerate(drawn):
                if not ended[i]:
                    said[i].append(token)
                    logps[i].append(float(logits[i].log_softmax(-1)[token]) + self.shift)
                    ended[i] = token in prompts.ends
            now = torch.cat([now, torch.tensor(drawn)[:, None]], 1)
        texts = [prompts.tokenizer.decode(tokens, skip_special_tokens=True) for tokens in said]
        return [
            Response(
                r.key, texts[i], "stop" if ended[i] else "length", tuple(said[i]), tuple(logps[i]),
                prompt_tokens=len(ids), generated_tokens=len(said[i]),
            )
            for i, r in enumerate(group)
        ]  # fmt: skip


class Letters(Method):
    """Rewards from the text alone: rich in ties and in differences. own: of the row's own answer."""

    name = "letters"

    def __init__(self, own: float = 0.0, reward: Callable[[str], float] | None = None) -> None:
        super().__init__()
        self.own = own
        self.of = reward or (lambda text: float(sum(map(ord, text)) % 3 - 1))

    def reward(self, rolls: Any, ctx: Any) -> Tensor:
        given = zip(rolls.text, rolls["reference"].tolist(), strict=True)
        return torch.tensor([self.own if own else self.of(text) for text, own in given])


constant = functools.partial(Letters, 1.0, lambda text: 1.0)
