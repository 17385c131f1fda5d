"""Whatever a model or an engine returns is scored: a number and an outcome, never an exception."""

from __future__ import annotations

import math
import random
import time
from pathlib import Path

import pytest

from harness.engines.base import Request, Response
from harness.evaluation import lm
from tests.every_task import FORMS, SCORED, questions, task_or_skip

SECONDS = 150.0  # for all of them, on a machine that others use too; an answer may take a few
NOISE = random.Random(0).randbytes(2_000)
TEXTS = {
    "empty": "",
    "a million digits": "9" * 1_000_000,
    "a million words": "word " * 200_000,
    "binary": NOISE.decode("latin-1"),
    "control characters": "".join(map(chr, range(32))) * 50,
    "lone surrogates": "\ud800 [\udfff()] \\boxed{\udc00}",
    "brackets": "[" * 10_000 + "]" * 10_000,
    "open brackets": "f(x=" + "[{(" * 5_000,
    "braces": "\\boxed{" + "{" * 10_000 + "}" * 10_000 + "}",
    "signs": "[f(x=" + "-" * 20_000 + "1)]",
    "NaN": "NaN \\boxed{nan} #### nan [f(x=nan)]",
    "infinity": "inf \\boxed{\\infty} #### 1e999 [f(x=1e999)]",
    "power tower": "\\boxed{9^{9^{9^{9}}}} [f(x=9**9**9**9)]",
    "code fences": "```python\n" * 5_000,
}
NUMBERS = (math.nan, -math.inf, 0.0)


@pytest.mark.parametrize("label", SCORED)
def test_bad_answers_are_scored(label: str, mirror: Path) -> None:
    sampling = FORMS[label].sampling
    rows = math.ceil(len(TEXTS) / sampling.repeats) if sampling else len(NUMBERS)
    task = task_or_skip(label, mirror, rows)
    started = time.monotonic()
    requests = [request for _, request in questions(task)]
    scored = lm.score(task, {r.key: bad(r, number) for number, r in enumerate(requests)})
    assert time.monotonic() - started < SECONDS
    assert isinstance(scored.metrics[task.primary]["value"], float)
    if requests[0].kind == "generate":
        assert all(sample["outcome"] for sample in scored.samples)


def bad(request: Request, number: int) -> Response:
    """One of the bad texts, or log-probabilities that are all the same."""
    if request.kind == "generate":
        return Response(request.key, text=list(TEXTS.values())[number % len(TEXTS)], finish="length")
    size = len(request.choices)
    return Response(request.key, logprobs=(NUMBERS[number % len(NUMBERS)],) * size, greedy=(False,) * size)
