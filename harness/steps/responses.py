"""The responses of a generate step while they come in: one line each, so that a kill costs at most a batch."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.engines.base import Request, Response
from harness.methods.base import Method, overrides
from harness.planning.planned import PlannedTask
from harness.store import Attempt


class Answering:
    """One task of one artifact: what is to be sent, and the answers so far, those of earlier attempts included.

    A response is kept under the key of the task's own request, whatever the stack's `prompt` hooks made of it.
    """

    def __init__(
        self, planned: PlannedTask, attempt: Attempt, stack: Sequence[Method], requests: Sequence[Request]
    ) -> None:
        self.planned, self.attempt = planned, attempt
        self.sent = {r.key: prompted(stack, r)[-1] for r in requests}
        self.responses: dict[str, Response] = {}
        self.tokens = 0  # of the answers since time was last shared out
        self.seconds = 0.0
        self.published = False
        for earlier in attempt.earlier:
            for response in read_responses(earlier / "responses.jsonl"):
                if response.key in self.sent:
                    self.responses.setdefault(response.key, response)
        self.resumed = len(self.responses)
        self.file = (attempt.work / "responses.jsonl").open("w", encoding="utf-8", buffering=1)
        for response in self.responses.values():
            self._write(response)

    @property
    def missing(self) -> dict[str, Request]:
        """What is still to be sent, by the key of the task's own request."""
        return {key: request for key, request in self.sent.items() if key not in self.responses}

    @property
    def complete(self) -> bool:
        return len(self.responses) == len(self.sent)

    def add(self, key: str, response: Response) -> None:
        """Keep an answer."""
        self.responses[key] = replace(response, key=key)
        self.tokens += response.prompt_tokens + response.generated_tokens
        self._write(self.responses[key])

    def _write(self, response: Response) -> None:
        self.file.write(json.dumps(response.as_json(), ensure_ascii=False, separators=(",", ":")) + "\n")

    def publish(self, how: dict[str, Any]) -> None:
        """how: what is recorded about the engine besides."""
        self.published = True
        self.file.close()
        answers = self.responses.values()
        cost = {
            "seconds": self.seconds,
            "prompt_tokens": sum(r.prompt_tokens for r in answers),
            "generated_tokens": sum(r.generated_tokens for r in answers),
        }
        cut = sum(r.finish == "length" for r in answers) / max(1, len(self.sent))
        unasked = sum(r.finish == "too_long" for r in answers)
        counts = {"requests": len(self.sent), "resumed": self.resumed, "too_long": unasked}
        extra = {**counts, "truncated": cut, **how}
        self.attempt.publish(cost=cost, extra=extra)


def share_out(seconds: float, answering: Sequence[Answering]) -> None:
    """Divide a stretch of time among the tasks that had answers in it, by the tokens of these answers."""
    tokens = sum(a.tokens for a in answering) or 1
    for a in answering:
        a.seconds += seconds * a.tokens / tokens
        a.tokens = 0


def prompted(stack: Sequence[Method], request: Request) -> list[Request]:
    """A request as each member's `prompt` was given it, in stack order, and last as it is sent."""
    seen = [request]
    for m in stack:
        seen.append(m.prompt(seen[-1], None))
    return seen


def answered(stack: Sequence[Method], request: Request, response: Response) -> Response:
    """A response as the stack's `answer` hooks want it scored, in reverse order."""
    text = response.text
    for m, asked in reversed(list(zip(stack, prompted(stack, request), strict=False))):
        if overrides(m, "answer"):
            text = m.answer(text, asked, None)
    return replace(response, text=text)


def read_responses(file: Path) -> Iterator[Response]:
    """The complete lines of a response file; a last line cut short by a kill is left out."""
    if file.exists():
        # Not splitlines(): answers may hold other line separators, which JSON does not escape.
        for line in file.read_text(encoding="utf-8").split("\n")[:-1]:
            yield Response.from_json(json.loads(line))
