"""Task functions of the tool-use suite: rows become questions, and calls are parsed and compared, never run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from harness.evaluation import api_bank, tool_alpaca
from harness.evaluation.scorers import scores
from harness.evaluation.tool_answers import as_python, check_calls, check_no_call, check_some_call
from harness.evaluation.tool_calls import parse_bracketed, parse_calls, prompt_messages, said
from harness.evaluation.tool_formats import as_tools, parse_native, plain_name

Doc = Mapping[str, Any]


def show_functions(docs: Any) -> Any:
    """Prompt mode: adds the columns `system` (with the function documents) and `request` (the user's words)."""
    shown = []
    for doc in docs:
        system, user = prompt_messages(doc["question"], doc["function"])
        shown.append({**doc, "system": system["content"], "request": user["content"]})
    return type(docs)(shown)


def offer_tools(docs: Any) -> Any:
    """Native mode: adds `tools`, `system` (the row's own, if any) and `request`; names lose their dots."""
    offered = []
    for doc in docs:
        functions = [{**function, "name": plain_name(function["name"])} for function in doc["function"]]
        renamed = {"function": functions, "tools": as_tools(functions)}
        if "ground_truth" in doc:
            truth = [{plain_name(name): allowed for name, allowed in call.items()} for call in doc["ground_truth"]]
            renamed["ground_truth"] = truth
        system, request = said(doc["question"])
        offered.append({**doc, **renamed, "system": system, "request": request})
    return type(docs)(offered)


def dialogue_calls(docs: Any) -> Any:
    """API-Bank: an item for each API call of each dialogue."""
    return type(docs)([item for doc in docs for item in api_bank.items(doc)])


def tool_instructions(docs: Any) -> Any:
    """ToolAlpaca: an item for each instruction of each tool."""
    return type(docs)([item for doc in docs for item in tool_alpaca.items(doc)])


def simple_call(doc: Doc, results: Sequence[str]) -> dict[str, Any]:
    """BFCL's rules in prompt mode: `acc`."""
    return scores("acc", check_calls(doc["function"], doc["ground_truth"], parse_calls(results[0])))


def no_call(doc: Doc, results: Sequence[str]) -> dict[str, Any]:
    """BFCL's irrelevance in prompt mode: `acc` is 1 where nothing is called."""
    return scores("acc", check_no_call(parse_calls(results[0])))


def some_call(doc: Doc, results: Sequence[str]) -> dict[str, Any]:
    """BFCL's relevance in prompt mode: `acc` is 1 where anything is called."""
    return scores("acc", check_some_call(parse_calls(results[0])))


def native_call(doc: Doc, results: Sequence[str]) -> dict[str, Any]:
    """BFCL's rules on calls in the model's own format: `acc`."""
    return scores("acc", check_calls(doc["function"], doc["ground_truth"], parse_native(results[0])))


def no_native_call(doc: Doc, results: Sequence[str]) -> dict[str, Any]:
    """BFCL's irrelevance in the model's own format: `acc` is 1 where nothing is called."""
    return scores("acc", check_no_call(parse_native(results[0])))


def dialogue_call(doc: Doc, results: Sequence[str]) -> dict[str, Any]:
    """API-Bank: `acc`."""
    return scores("acc", api_bank.check(doc["call"], parse_bracketed(results[0])))


def first_action(doc: Doc, results: Sequence[str]) -> dict[str, Any]:
    """ToolAlpaca: `acc`."""
    return scores("acc", tool_alpaca.check(doc["accepted"], results[0]))


def simple_call_target(doc: Doc) -> str:
    """The accepted values of each parameter of one call, as JSON."""
    return json.dumps(doc["ground_truth"][0], ensure_ascii=False)


def calls_target(doc: Doc) -> str:
    """The accepted values of each parameter of each call, as JSON."""
    return json.dumps(doc["ground_truth"], ensure_ascii=False)


def dialogue_call_target(doc: Doc) -> str:
    """The dialogue's own call."""
    return as_python([api_bank.gold_call(doc["call"])])


def first_action_target(doc: Doc) -> str:
    """The first accepted call."""
    return tool_alpaca.gold_answer(doc["accepted"])
