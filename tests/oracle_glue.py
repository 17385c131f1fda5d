"""Gold answers to GLUE's tasks, by task: of a choice the right one as the request has it, of a number its text.

STS-B by prompt is not here: its answer is a mean over digits, and no single digit gives 100 % (see test_glue.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from harness.engines.base import Request

PROMPTED = ("cola", "sst2", "mrpc", "qqp", "mnli", "mnli_mismatched", "qnli", "rte", "wnli")
HEADS = tuple(f"{name}_head" for name in PROMPTED if name != "mnli_mismatched")


def right_choice(doc: dict[str, Any], request: Request) -> str:
    return request.choices[doc["label"]]


def number(doc: dict[str, Any], request: Request) -> str:
    return str(doc["label"])


ORACLES: dict[str, Callable[[dict[str, Any], Request], str]] = {
    **dict.fromkeys([*PROMPTED, "made_grammar", "made_sentiment", *HEADS], right_choice),
    "stsb_head": number,
}
