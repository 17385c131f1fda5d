"""Right answers for the tasks of the alignment suite that have any; the others have hand-made ones in the tests."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from harness.engines.base import Request


def _first_choice(doc: dict[str, Any], request: Request) -> str:
    """TruthfulQA's first answer is a true one, the only one in MC1."""
    return request.choices[0]


def _true_answer(doc: dict[str, Any], request: Request) -> str:
    """The first true answer that is no false one with its words in another order, which ROUGE-1 cannot tell apart."""
    false = [_bag(answer) for answer in doc["incorrect_answers"]]
    return next(str(answer) for answer in doc["correct_answers"] if _bag(answer) not in false)


def _bag(text: str) -> list[str]:
    return sorted(re.findall(r"\w+", text.lower()))


ORACLES: dict[str, Callable[[dict[str, Any], Request], str]] = {
    "truthfulqa_mc1": _first_choice,
    "truthfulqa_mc2": _first_choice,
    "truthfulqa_gen": _true_answer,
}
