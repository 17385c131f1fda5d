"""The gold answer of every task of the math suite, in the form that the task asks for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from harness.engines.base import Request
from harness.evaluation.scorers import math

Doc = Mapping[str, Any]


def after_hashes(doc: Doc, request: Request) -> str:
    return str(doc["answer"])


def tulu3(doc: Doc, request: Request) -> str:
    return f"The answer is {math.gold_gsm8k(doc)}."


def in_box(gold: Callable[[Doc], object]) -> Callable[[Doc, Request], str]:
    return lambda doc, request: rf"So the answer is \boxed{{{gold(doc)}}}."


def minerva(doc: Doc, request: Request) -> str:
    return f"{doc['solution']}\nFinal Answer: The final answer is ${doc['answer']}$. I hope it is correct."


ORACLES: dict[str, Callable[[Doc, Request], str]] = {
    "gsm8k": after_hashes,
    "gsm8k_base": after_hashes,
    "gsm8k_tulu3": tulu3,
    "gsm8k_boxed": in_box(math.gold_gsm8k),
    "math500": in_box(lambda doc: doc["answer"]),
    "math500_base": minerva,
    "asdiv": in_box(math.gold_asdiv),
    "gsm_hard": in_box(lambda doc: doc["target"]),
    "aqua": in_box(lambda doc: doc["correct"]),
    "aqua_letters": lambda doc, request: request.choices[math.aqua_correct(doc)],
    "olympiadbench": in_box(math.gold_olympiadbench),
    "ocw-stem": in_box(math.gold_ocw_stem),
    "made_word_problems": after_hashes,
}
