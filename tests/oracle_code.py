"""Gold answers of the code suite, as a model would write them under each task's regime."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from harness.engines.base import Request

Doc = Mapping[str, Any]


def completion(doc: Doc, request: Request) -> str:
    return str(doc["canonical_solution"])


def program(doc: Doc, request: Request) -> str:
    return str(doc["code"])


def fenced(code: Callable[[Doc], str]) -> Callable[[Doc, Request], str]:
    return lambda doc, request: f"Here it is:\n```python\n{code(doc)}\n```\nIt does what you ask."


def assertion(doc: Doc, request: Request) -> str:
    return f"assert f({doc['input']}) == {doc['output']}\n"


ORACLES: dict[str, Callable[[Doc, Request], str]] = {
    "humaneval": completion,
    "humaneval_chat": fenced(lambda doc: doc["prompt"] + doc["canonical_solution"]),
    "humaneval_n20": completion,
    "humaneval_plus": completion,
    "mbpp": program,
    "mbpp_chat": fenced(lambda doc: doc["code"]),
    "mbpp_sanitized": program,
    "mbpp_plus": completion,
    "cruxeval_output": assertion,
    "cruxeval_input": assertion,
}
