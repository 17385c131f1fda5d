"""Who answers requests while a model trains or rows are curated: the seam between `ctx` and an engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from harness.engines.base import Request, Response


class Generator(Protocol):
    """model: "live", "base" or the name of an earlier stage. One response a request, in their order."""

    def answer(self, requests: Sequence[Request], model: str) -> list[Response]:
        """Generations or likelihoods of choices, by each request's kind; the two may be mixed."""


class Told(NamedTuple):
    """What an engine in another process says before all answers are there."""

    answered: int
    asked: int
