"""An engine in a process of its own, called as if it were here: vLLM changes the process that it runs in."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from harness.engines import make
from harness.engines.base import Activation, Artifact, Engine, EngineSpec, Request, Response


class EngineProcess:
    """Has the methods of an engine. `run(function, ...)` calls function(engine, ...) over there."""

    def __init__(self, name: str) -> None:
        self.name = name
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(name, other), daemon=True)
        self._process.start()

    def run(self, function: Callable[..., Any], *args: Any) -> Any:
        self._pipe.send((function, args))
        good, value = self._pipe.recv()
        if not good:
            raise value
        return value

    def open(self, base: Path, spec: EngineSpec) -> None:
        self.run(_call, "open", base, spec)

    def activate(self, artifact: Artifact, prepared: Any = None) -> Activation:
        result: Activation = self.run(_call, "activate", artifact, prepared)
        return result

    def prompt_tokens(self, request: Request) -> int:
        return int(self.run(_call, "prompt_tokens", request))

    def generate(self, requests: Sequence[Request]) -> Iterator[Response]:
        yield from self.run(_all, "generate", requests)

    def loglikelihood(self, requests: Sequence[Request]) -> Iterator[Response]:
        yield from self.run(_all, "loglikelihood", requests)

    def close(self) -> None:
        self.run(_call, "close")
        self._process.kill()  # as the product does: what a process holds is given back when it ends
        self._process.join()


def _call(engine: Engine, method: str, *args: Any) -> Any:
    return getattr(engine, method)(*args)


def _all(engine: Engine, method: str, requests: Sequence[Request]) -> list[Response]:
    return list(getattr(engine, method)(requests))


def _serve(name: str, pipe: Connection) -> None:
    engine = make(name)
    while True:
        try:
            function, args = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send((True, function(engine, *args)))
        except Exception as error:
            pipe.send((False, error))
