"""A generator for tests of curation that answers sums, grades answers and compares two, with errors on request."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Sequence
from typing import Any

from harness.engines.base import Request, Response

TRUE, FALSE = 0.0, -60.0  # log-probabilities of what a perfect model says and does not say


class Sums:
    """Knows every sum in `What is a + b?`.

    wrong: how often a sampled answer, a grade or a verdict is wrong; a chosen letter has that probability.
    proposals: what a tuned model says instead of the sum, by question.  calls: (model, request), in order.
    """

    def __init__(self, wrong: float = 0.0, proposals: dict[str, str] | None = None) -> None:
        self.wrong, self.proposals = wrong, proposals or {}
        self.calls: list[tuple[str, Request]] = []

    def answer(self, requests: Sequence[Request], model: str) -> list[Response]:
        self.calls += [(model, request) for request in requests]
        return [self._one(request, model) for request in requests]

    def _one(self, request: Request, model: str) -> Response:
        text = str((request.messages or ())[-1]["content"])
        if request.choices:
            right = _letter(text)
            share = math.log(1 - self.wrong) if self.wrong else TRUE
            rest = math.log(self.wrong / (len(request.choices) - 1)) if self.wrong else FALSE
            return Response(request.key, logprobs=tuple(share if c == right else rest for c in request.choices))
        draw = random.Random(f"{request.key} {request.seed}")
        slip = request.temperature > 0 and draw.random() < self.wrong
        if "Reply with the letter." in text:
            right = _letter(text)
            return Response(request.key, text={"A": "B", "B": "A"}.get(right, "C") if slip else f"{right})")
        asked = text.partition("\n")[0]
        said = self.proposals.get(asked, total(asked)) if model != "base" else total(asked)
        if slip:
            said = str(draw.randrange(1000, 9999))
        reasoned = "final answer on a new line" in text
        return Response(request.key, text=f"I add them.\nAnswer: {said}" if reasoned else said, finish="stop")


class Apart:
    """An NLI model: texts contradict each other if their last lines differ."""

    def __init__(self) -> None:
        self.pairs: list[tuple[str, str]] = []
        self.read = 0

    def contradiction(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        self.pairs += pairs
        self.read += sum(len(text.split()) for pair in pairs for text in pair)
        return [float(a.split("\n")[-1] != b.split("\n")[-1]) for a, b in pairs]


def total(question: str) -> str:
    """The answer to `What is a + b?`."""
    return str(sum(map(int, re.findall(r"\d+", question))))


def sums(n: int, swapped: float = 0.0) -> tuple[list[dict[str, Any]], set[str]]:
    """Rows that ask sums; a share of them has a wrong answer. And the ids of those."""
    bad = {f"r{i:02}" for i in range(n) if (i * 7) % n < swapped * n}
    rows = []
    for i in range(n):
        asked, row = f"What is {i} + {3 * i + 1}?", f"r{i:02}"
        said = "7777" if row in bad else total(asked)
        turns = [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]
        rows.append({"id": row, "messages": turns})
    return rows, bad


def _letter(text: str) -> str:
    """What a perfect model answers to a grade or a comparison."""
    grade = re.search(r"Question:\n(.*)\n\nProposed answer:\n(.*?)\n\n.*Choose one:\n(.*)\nReply", text, re.S)
    if not grade:
        return _better(text)
    x, y, options = grade.groups()
    right = y == f"{_better(x)} is the better one." if "two answers" in x else y == total(x)
    wanted = "Correct" if right else "Incorrect"
    return next(line[0] for line in options.split("\n") if line[3:] == wanted)


def _better(compared: str) -> str:
    found = re.search(r"^(.*?)\n\nHere.*\n\nA\) (.*?)\n\nB\) (.*?)\n\nWhich", compared, re.S)
    assert found, compared
    asked, first, _ = found.groups()
    return "A" if first == total(asked) else "B"
