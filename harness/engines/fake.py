"""An engine without a model, for tests: quick, deterministic, and able to fail on request.

An answer depends on the artifact's digest and on the request, and on nothing else. It is public: whoever writes a
runner or a task may test with it.
"""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from harness.engines.base import DECIMALS, Activation, Artifact, EngineSpec, Request, Response
from harness.errors import HarnessError, StepFailed


class FakeEngine:
    """answer: text for a request and an artifact; default a short text made from both.

    fail_at, crash_at: at that request of the engine's life, counted from 1, raise StepFailed or die by SIGKILL.
    calls: what was asked, in order, as ("open" | "activate" | "generate" | "choose" | "close", digest or request key).
    Tokens are words, their ids and log-probabilities are made from them.
    """

    name = "fake"

    def __init__(
        self,
        answer: Callable[[Request, Artifact], str] | None = None,
        *,
        fail_at: int | None = None,
        crash_at: int | None = None,
    ) -> None:
        self._answer = answer or _made_up
        self._fail_at, self._crash_at = fail_at, crash_at
        self._asked = 0
        self._artifact: Artifact | None = None
        self._limit = 0
        self.calls: list[tuple[str, str]] = []

    def open(self, base: Path, spec: EngineSpec) -> None:
        self._limit = spec.max_model_len
        self.calls.append(("open", base.name))

    def ahead(self, artifact: Artifact) -> None:
        return None

    def activate(self, artifact: Artifact, prepared: Any = None) -> Activation:
        self._artifact = artifact
        self.calls.append(("activate", artifact.digest))
        return Activation(artifact.digest, "fake", 0.0, {"verdict": "fake"})

    def prompt_tokens(self, request: Request) -> int:
        return len(_prompt(request).split())

    def generate(self, requests: Sequence[Request]) -> Iterator[Response]:
        self._check(requests)
        for request in requests:
            artifact = self._next("generate", request)
            words, length = self._answer(request, artifact), self.prompt_tokens(request)
            cut = min([words.index(stop) for stop in request.stop if stop in words], default=None)
            tokens = words[:cut].split(" ")
            room = min(request.max_tokens, self._limit - length)
            finish = "length" if len(tokens) > room else "stop"
            text = " ".join(tokens[:room]) if finish == "length" else words[:cut]
            shares = [_share(word) for word in tokens[:room]]
            ids, logprobs = tuple(int(1000 * s) for s in shares), tuple(round(-s, DECIMALS) for s in shares)
            yield Response(request.key, text, finish, ids, logprobs, prompt_tokens=length, generated_tokens=len(ids))

    def loglikelihood(self, requests: Sequence[Request]) -> Iterator[Response]:
        self._check(requests)
        for request in requests:
            artifact = self._next("choose", request)
            values = tuple(-0.01 - 10 * _share(artifact.digest, _prompt(request), choice) for choice in request.choices)
            greedy = tuple(value == max(values) for value in values)
            yield Response(request.key, logprobs=values, greedy=greedy, prompt_tokens=self.prompt_tokens(request))

    def close(self) -> None:
        self.calls.append(("close", ""))

    def _check(self, requests: Sequence[Request]) -> None:
        for request in requests:
            if self.prompt_tokens(request) + 1 > self._limit:
                raise HarnessError(
                    f"a prompt needs {self.prompt_tokens(request) + 1} tokens, the context holds {self._limit}",
                    where=f"request {request.key}",
                    todo="raise engine.max_model_len",
                )

    def _next(self, kind: str, request: Request) -> Artifact:
        self._asked += 1
        if self._asked == self._crash_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if self._asked == self._fail_at:
            raise StepFailed("the fake engine was told to fail", kind="bug", where=f"request {request.key}")
        if self._artifact is None:
            raise StepFailed("no artifact is active", kind="bug")
        self.calls.append((kind, request.key))
        return self._artifact


def _prompt(request: Request) -> str:
    turns = request.messages or ({"content": request.text},)
    return " ".join(str(turn["content"]) for turn in turns) + request.prefix


def _share(*parts: str) -> float:
    """A number in [0, 1) made from the parts."""
    return int(hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12], 16) / 16**12


def _made_up(request: Request, artifact: Artifact) -> str:
    """Twelve short words; the seed counts only where there is a temperature."""
    seed = str(request.seed) if request.temperature > 0 else ""
    text = hashlib.sha256("\0".join((artifact.digest, _prompt(request), seed)).encode()).hexdigest()[:48]
    return " ".join(text[i : i + 4] for i in range(0, 48, 4))
