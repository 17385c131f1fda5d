"""The gold answer of every task of the tool-use suite, in the form that the task asks for.

There is no single gold call in BFCL: each parameter takes its first allowed value that is not the empty string, and is
left out only where it is not required. Items whose gold answer fails, here as upstream, are the suite's `known_bad`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from harness.engines.base import Request
from harness.evaluation import api_bank, tool_alpaca
from harness.evaluation.tool_answers import as_python, gold_calls

Doc = Mapping[str, Any]


def python(doc: Doc, request: Request) -> str:
    return as_python(gold_calls(doc["function"], doc["ground_truth"]))


def hermes(doc: Doc, request: Request) -> str:
    calls = gold_calls(doc["function"], doc["ground_truth"])
    bodies = [json.dumps({"name": call.name, "arguments": call.arguments}) for call in calls]
    return "\n".join(f"<tool_call>\n{body}\n</tool_call>" for body in bodies)


def sentence(doc: Doc, request: Request) -> str:
    return "None of these functions serves the request."


def any_call(doc: Doc, request: Request) -> str:
    return f"[{doc['function'][0]['name']}()]"


def next_call(doc: Doc, request: Request) -> str:
    return as_python([api_bank.gold_call(doc["call"])])


def first_action(doc: Doc, request: Request) -> str:
    return tool_alpaca.gold_answer(doc["accepted"])


BFCL = ("simple_python", "multiple", "parallel", "parallel_multiple")
LIVE = ("live_simple", "live_multiple", "live_parallel", "live_parallel_multiple")
ORACLES: dict[str, Callable[[Doc, Request], str]] = {
    **dict.fromkeys((*BFCL, *LIVE), python),
    **dict.fromkeys([f"{name}_native" for name in BFCL], hermes),
    **dict.fromkeys(("irrelevance", "live_irrelevance", "irrelevance_native"), sentence),
    "live_relevance": any_call,
    **dict.fromkeys(("api_bank_level1", "api_bank_level2"), next_call),
    **dict.fromkeys(("toolalpaca_calls", "toolalpaca_calls_real"), first_action),
}
