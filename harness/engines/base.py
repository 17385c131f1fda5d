"""The seam of an engine: what a request and a response are, and what an engine does with them.

An engine is opened once for one base model and then serves an ordered list of artifacts of that base, one at a time.
It imports nothing heavy here; vLLM, torch and transformers are imported by the engines themselves.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, Protocol

from harness.digest import digest

Message = Mapping[str, Any]  # {"role": "user", "content": "..."}; `weight` 0 or 1 says whether it carries loss
Kind = Literal["generate", "choose"]

DECIMALS = 4  # of the log-probabilities of generated tokens; engines differ in the second


@dataclass(frozen=True)
class Request:
    """One question to a model. Sampling is always stated; nothing is taken from a model's own defaults.

    messages: a conversation, rendered by the model's chat template with a generation prompt; or None, and then
    text: the prompt as it stands.  prefix: text that the answer is made to begin with (not part of the answer).
    tools: function schemas that the chat template shows in the model's own way; with none, it is not told of tools.
    kind "generate": text up to a stop string, the end token or `max_tokens` new tokens.
    kind "choose": the log-probability of every one of `choices` as the continuation.
    """

    kind: Kind = "generate"
    messages: tuple[Message, ...] | None = None
    text: str = ""
    prefix: str = ""
    choices: tuple[str, ...] = ()
    stop: tuple[str, ...] = ()
    max_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    grammar: str | None = None
    tools: tuple[Mapping[str, Any], ...] = ()

    @functools.cached_property
    def key(self) -> str:
        """What the response file is keyed by: 24 hex characters of everything above."""
        body = {each.name: getattr(self, each.name) for each in fields(self)}  # `asdict` copies deeply: slow
        body["messages"] = None if self.messages is None else [dict(m) for m in self.messages]
        if not self.tools:
            del body["tools"]  # so that the answers to other questions keep their keys
        return digest(body)[:24]

    def but(self, **changes: Any) -> Request:
        """The same request with some fields changed: what a method's `prompt` hook returns."""
        return replace(self, **changes)


@dataclass(frozen=True)
class Response:
    """One answer. `key` is the request's.

    "generate": text, finish ("stop", or "length" where `max_tokens` or the context ended it), tokens: the ids that
    were generated, an end token included, and logprobs: one log-probability per id, without temperature.
    "choose": logprobs: one sum of token log-probabilities per choice, and greedy: whether the choice is what greedy
    decoding would have said.
    Logarithms are natural, rounded to `DECIMALS`. Counts are tokens. Times belong to the step's cost, not here.
    """

    key: str
    text: str = ""
    finish: str = ""
    tokens: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    greedy: tuple[bool, ...] = ()
    prompt_tokens: int = 0
    generated_tokens: int = 0

    def as_json(self) -> dict[str, Any]:
        return {k: v for k, v in asdict(self).items() if v not in ("", (), [])}

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Response:
        return cls(**{**body, **{k: tuple(body[k]) for k in ("tokens", "logprobs", "greedy") if k in body}})


@dataclass(frozen=True)
class EngineSpec:
    """How to open an engine. All of it is in the protocol digest except `memory`, which is placement."""

    name: str = "vllm"
    dtype: str = "bfloat16"
    max_model_len: int = 2048
    too_long: str = "refuse"  # or "wrong": such a prompt is not sent, and its answer is the finish "too_long"
    memory: float = field(default=1.0, compare=False)  # GiB of KV cache on a CPU

    def identity(self) -> dict[str, Any]:
        return {"name": self.name, "dtype": self.dtype, "max_model_len": self.max_model_len, "too_long": self.too_long}


@dataclass(frozen=True)
class Artifact:
    """What training leaves, as an engine sees it.

    base: folder of the base model (safetensors, config, tokenizer).
    path: folder with `artifact.json` in it, or None for the base itself.
    kind: "base"; "full" (weights in HF format under path); "adapter" (a PEFT folder under path).
    digest: of its content, so that two artifacts with equal digests are the same artifact.
    """

    base: Path
    digest: str
    kind: Literal["base", "full", "adapter"] = "base"
    path: Path | None = None
    name: str = ""


@dataclass(frozen=True)
class Activation:
    """How an artifact came to be served: the way taken, seconds, and what the canary saw."""

    digest: str
    way: str  # "base", "reload", "merge+reload", "load", ...
    seconds: float
    canary: Mapping[str, Any]


class Engine(Protocol):
    """What every engine does. One process owns one engine; closing the process is what gives memory back."""

    name: str

    def open(self, base: Path, spec: EngineSpec) -> None:
        """Load the base model. HarnessError if it cannot be."""

    def ahead(self, artifact: Artifact) -> Callable[[], Any] | None:
        """What another process may do for an artifact while the engine still serves the one before, if there is such.

        A function that can be pickled; `activate` takes what it returns.
        """

    def activate(self, artifact: Artifact, prepared: Any = None) -> Activation:
        """Serve this artifact and no other from now on. StepFailed if the canary says otherwise.

        prepared: the result of `ahead(artifact)`; without it that is done here.
        """

    def prompt_tokens(self, request: Request) -> int:
        """Length in tokens of the prompt as it would be sent."""

    def generate(self, requests: Sequence[Request]) -> Iterator[Response]:
        """Answer "generate" requests, each as soon as it is finished, in any order."""

    def loglikelihood(self, requests: Sequence[Request]) -> Iterator[Response]:
        """Answer "choose" requests, in any order."""

    def close(self) -> None:
        """Release what can be released."""
