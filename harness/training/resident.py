"""The engine that answers while a model trains: one, in a process of its own next to the trainer, started when first
asked.

The process ends with the trainer however that ends: it reads the end of the socket, and while it computes, the kernel
kills it. What it serves are artifacts: `live.py` writes them. This file knows nothing of rollouts.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from itertools import chain
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from harness.engines.base import Artifact, EngineSpec, Request, Response
from harness.errors import HarnessError, StepFailed
from harness.training.generator import Told

_PATIENCE = 10.0  # seconds to end in, once asked to
_PACE = 1.0  # seconds between two words on how many answers there are
_PR_SET_PDEATHSIG = 1


class Resident:
    """A generator backed by an engine. find: the artifact of a model's name.

    process: None until the first request.  phase: bills its start and every change of weights.  told: called about once
    a second while requests are answered, with how many are and how many were asked.
    """

    def __init__(
        self,
        spec: EngineSpec,
        base: Path,
        find: Callable[[str], Artifact],
        phase: Callable[[str], AbstractContextManager[None]] = lambda name: contextlib.nullcontext(),
        told: Callable[[int, int], None] = lambda answered, asked: None,
    ) -> None:
        self.spec, self.base, self.find, self.phase, self.told = spec, base, find, phase, told
        self.process: subprocess.Popen[bytes] | None = None
        self._pipe: Connection | None = None

    def answer(self, requests: Sequence[Request], model: str) -> list[Response]:
        """StepFailed if the engine's process ends before it has answered."""
        self.serve(model)
        found: list[Response] = self._ask("answer", list(requests))
        return found

    def serve(self, model: str) -> None:
        """Make the engine serve a model; nothing is done where it does already."""
        if self.process is None:
            with self.phase("engine"):
                self._start()
        with self.phase("refresh"):
            self._ask("serve", self.find(model), model == "live")

    def close(self) -> None:
        """End the process."""
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None
        if self.process is not None:
            try:
                self.process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            fd = theirs.fileno()
            command = [sys.executable, "-m", "harness.training.resident", str(fd), str(os.getpid())]
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=sys.stderr.fileno(), pass_fds=(fd,)
            )
        self._pipe = Connection(ours.detach())
        self._ask("open", self.spec, self.base)

    def _ask(self, *question: Any) -> Any:
        assert self._pipe is not None
        try:
            self._pipe.send(question)
            while isinstance(result := self._pipe.recv(), Told):
                self.told(*result)
        except (EOFError, BrokenPipeError, ConnectionResetError) as error:
            code = self.process.wait() if self.process else 0
            raise StepFailed(
                f"the engine `{self.spec.name}` that answers for training ended", kind="killed", why=f"exit code {code}"
            ) from error
        if isinstance(result, HarnessError):
            raise result
        return result


class Served:
    """The engine's side: what a question does. tell: takes a `Told` now and then while it answers."""

    def __init__(self, tell: Callable[[Told], None]) -> None:
        self.tell = tell
        self.engine: Any = None
        self.active = ""

    def open(self, spec: EngineSpec, base: Path) -> None:
        from harness.engines import make

        self.engine = make(spec.name)
        self.engine.open(base, spec)

    def serve(self, artifact: Artifact, live: bool) -> None:
        """live: it is the last one moved by some steps, which an engine may take up without proof that it has."""
        if artifact.digest != self.active:
            self.active = ""
            (getattr(self.engine, "refresh", self.engine.activate) if live else self.engine.activate)(artifact)
            self.active = artifact.digest

    def answer(self, requests: Sequence[Request]) -> list[Response]:
        """In their order; requests that are equal in all share an answer."""
        unique = {r.key: r for r in requests}
        generated = self.engine.generate([r for r in unique.values() if r.kind == "generate"])
        chosen = self.engine.loglikelihood([r for r in unique.values() if r.kind == "choose"])
        found: dict[str, Response] = {}
        told = time.monotonic()
        for response in chain(generated, chosen):
            found[response.key] = response
            if time.monotonic() - told >= _PACE:
                self.tell(Told(len(found), len(unique)))
                told = time.monotonic()
        return [found[r.key] for r in requests]


def die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent ends. Linux only; elsewhere the end of the pipe must do."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def main(fd: int, parent: int) -> None:
    """Answer until the other end is closed."""
    die_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the trainer ends us
    pipe = Connection(fd)
    served = Served(pipe.send)
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            what, *rest = pipe.recv()
            try:
                result = getattr(served, what)(*rest)
            except HarnessError as error:
                result = error
            except Exception as error:
                result = StepFailed(f"the engine failed: {type(error).__name__}: {error}", kind="bug")
            pipe.send(result)
    os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
