"""API-Bank's calls: each one of a dialogue is an item, asked after everything that was said before it.

The dialogue is told as a transcript in one message, and the answer is `[ApiName(key='value')]`. Level 1 shows the
documents of the APIs that the dialogue calls (our own wording, `api_bank_documents`), level 2 only the one of
`ToolSearcher`, whose results in the transcript hold the others.

Differs from the original evaluation (Li et al., 2023), which executes the call against a simulator with state and
compares what comes back: here a call is right when its name and all of its parameters are those of the dialogue, as
text without regard to case and spaces. So another search word for `ToolSearcher` is wrong here even where it finds the
same tool, and a formula written otherwise is wrong.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from harness.evaluation.api_bank_documents import DOCUMENTS
from harness.evaluation.tool_answers import Read
from harness.evaluation.tool_calls import Call, Unparsable
from harness.evaluation.tool_rules import shown_name
from harness.evaluation.verdict import Verdict

SEARCH = "ToolSearcher"
_INSTRUCTION = """\
You are the AI of a dialogue, and you can call the APIs described below. Read the dialogue and write the API call that \
comes next, with every parameter as text, in this form and with nothing before or after it:
[ApiName(key1='value1', key2='value2')]
Take the values from the dialogue and from the results of earlier calls. The year is 2023.

APIs, one JSON object a line:
"""


def items(dialogue: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The items of one row: {id, turn, system, request, call}.

    dialogue: {id, level, dialogue: [{role: "User" or "AI", text} or {role: "API", api_name, param_dict, result}]}.
    """
    turns = dialogue["dialogue"]
    called = dict.fromkeys(turn["api_name"] for turn in turns if turn["role"] == "API")
    names = [SEARCH] if dialogue["level"] == 2 else list(called)
    system = _INSTRUCTION + "\n".join(json.dumps({"name": name, **DOCUMENTS[name]}) for name in names)
    for number, turn in enumerate(turns):
        if turn["role"] == "API":
            request = "\n".join(["Dialogue:", *map(_told, turns[:number]), "", "The API call that comes next:"])
            call = {"name": turn["api_name"], "arguments": turn["param_dict"]}
            yield {"id": dialogue["id"], "turn": number, "system": system, "request": request, "call": call}


def check(gold: Mapping[str, Any], read: Read) -> Verdict:
    """Compare an answer with the dialogue's call {name, arguments}.

    Outcomes: pass, no-call, unparsable, extra-call, wrong-function, missing-parameter, unknown-parameter, wrong-value.
    """
    if isinstance(read, Unparsable):
        return Verdict("unparsable" if read.attempted else "no-call", read.reason)
    if not read:
        return Verdict("no-call", "an empty list")
    if len(read) > 1:
        return Verdict("extra-call", f"{len(read)} calls instead of one")
    (call,) = read
    if call.name != gold["name"]:
        return Verdict("wrong-function", f"{shown_name(call.name)} instead of {gold['name']}")
    for parameter in gold["arguments"]:
        if parameter not in call.arguments:
            return Verdict("missing-parameter", parameter)
    for parameter, value in call.arguments.items():
        if parameter not in gold["arguments"]:
            return Verdict("unknown-parameter", shown_name(parameter))
        if _plain(value) != _plain(gold["arguments"][parameter]):
            return Verdict("wrong-value", f"{parameter}: {shown_name(_text(value))}")
    return Verdict("pass")


def gold_call(gold: Mapping[str, Any]) -> Call:
    """The dialogue's own call."""
    return Call(gold["name"], gold["arguments"])


def _told(turn: Mapping[str, Any]) -> str:
    if turn["role"] != "API":
        return f"{turn['role']}: {turn['text']}"
    given = ", ".join(f"{key}={value!r}" for key, value in turn["param_dict"].items())
    return f"API: [{turn['api_name']}({given})] -> {json.dumps(turn['result']['output'], ensure_ascii=False)}"


def _text(value: Any) -> str:
    try:
        return str(value)
    except ValueError:  # an integer with more digits than Python prints
        return f"a huge {type(value).__name__}"


def _plain(value: Any) -> str:
    return " ".join(_text(value).casefold().split())
