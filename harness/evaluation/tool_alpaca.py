"""ToolAlpaca's instructions, scored by the first call: an item an instruction, its tool's functions in the system turn.

The answer has the form of the original (Tang et al., 2023): a line `Action:` with a function's name, a line
`Action Input:` with a JSON object. No tool is run, so only the first call can be asked for: the later ones depend on
its result, and stand in the data with placeholders such as `${animeId from searchAnime}`. An instruction whose accepted
calls depend on nothing (the weather in three cities) may begin with any of them.

Right is a call with the name and exactly the parameters of an accepted one, as text without regard to case and spaces;
any value passes where the data have a placeholder, and the wording of a question to the user is free. Keys that a
tool's `Authentication` masks are not compared. The original instead runs the whole dialogue against a simulator or the
real service and lets GPT-4 judge it, so these are not ToolAlpaca scores.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from harness.evaluation.tool_calls import MAX_ANSWER, Call, Unparsable, too_deep
from harness.evaluation.tool_rules import shown_name
from harness.evaluation.verdict import Verdict

ASK = "getDetails"  # the data set's own function for asking the user
ANY = "${}"  # stands for a value that only an earlier result or the user could give
_PLACEHOLDER = re.compile(r'"?\$\{[^}]*\}"?')
_ACTION = re.compile(r"(?:^|\n)[ \t]*Action:[ \t]*([^\n]*)")
_INPUT = re.compile(r"(?:^|\n)[ \t]*Action Input:\s*")
_INSTRUCTION = """\
You can call the functions of a tool to serve the user's request. Write the first call that you would make, in these \
two lines and with nothing after them:
Action: the function's name
Action Input: its parameters, as a JSON object

Functions:
"""
_ASKING = """\
getDetails: Ask the user for what is needed and was not said.
Parameters: {"Question": "Required. string. The question to the user."}"""


def items(tool: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The items of one row, which is a tool: {id, tool, system, request, accepted}; see `check` for the last."""
    documents = {name: text for name, text in tool["Function_Description"].items() if name != "components"}
    shown = [f"{name}: {text}" for name, text in documents.items()]
    system = _INSTRUCTION + "\n\n".join([*shown, _ASKING])
    secret = list(tool.get("Authentication") or {})
    for number, (request, golden) in enumerate(zip(tool["Instructions"], tool["Golden_Answers"], strict=True)):
        yield {
            "id": f"{tool['Name']}/{number}",
            "tool": tool["Name"],
            "system": system,
            "request": request,
            "accepted": list(_accepted(golden, secret)),
        }


def check(accepted: Sequence[Mapping[str, Any]], text: str) -> Verdict:
    """Compare the first call of an answer with the accepted ones: [{name, arguments, ignored: [parameter]}].

    Outcomes: pass, no-call, unparsable, wrong-function, missing-parameter, unknown-parameter, wrong-value.
    """
    call = first_call(text)
    if isinstance(call, Unparsable):
        return Verdict("unparsable" if call.attempted else "no-call", call.reason)
    verdicts = [_check(gold, call) for gold in accepted]
    passed = next((v for v in verdicts if v.passed), None)
    return passed or next((v for v in verdicts if v.outcome != "wrong-function"), verdicts[0])


def first_call(text: str) -> Call | Unparsable:
    """The first call in an answer. Never raises."""
    text = text[:MAX_ANSWER]
    action = _ACTION.search(text)
    if not action:
        return Unparsable("no line begins with `Action:`", False)
    given = _INPUT.search(text, action.end())
    if not given:
        return Unparsable("no line begins with `Action Input:`", True)
    try:
        arguments, _ = json.JSONDecoder().raw_decode(text, given.end())
    except (ValueError, RecursionError) as error:
        return Unparsable(f"the input is not JSON: {getattr(error, 'msg', 'not a value that can be read')}", True)
    if not isinstance(arguments, dict) or too_deep(arguments):
        return Unparsable(f"the input is a {type(arguments).__name__}, or nested too deeply", True)
    return Call(action[1].strip(), arguments)


def gold_answer(accepted: Sequence[Mapping[str, Any]]) -> str:
    """The first accepted call, as it is asked for."""
    return f"Action: {accepted[0]['name']}\nAction Input: {json.dumps(accepted[0]['arguments'], ensure_ascii=False)}"


def _accepted(golden: Sequence[Mapping[str, str]], secret: Sequence[str]) -> Iterator[dict[str, Any]]:
    dependent = any(call["Action"] == ASK or "${" in call["Action_Input"] for call in golden)
    for call in golden[:1] if dependent else golden:
        arguments = json.loads(_PLACEHOLDER.sub(f'"{ANY}"', call["Action_Input"]))
        if call["Action"] == ASK:
            arguments = dict.fromkeys(arguments, ANY)
        yield {"name": call["Action"], "arguments": arguments, "ignored": secret}


def _check(gold: Mapping[str, Any], call: Call) -> Verdict:
    if call.name != gold["name"]:
        return Verdict("wrong-function", f"{shown_name(call.name)} instead of {gold['name']}")
    wanted = {key: value for key, value in gold["arguments"].items() if key not in gold["ignored"]}
    for parameter in wanted:
        if parameter not in call.arguments:
            return Verdict("missing-parameter", parameter)
    for parameter, value in call.arguments.items():
        if parameter in gold["ignored"]:
            continue
        if parameter not in wanted:
            return Verdict("unknown-parameter", shown_name(parameter))
        if wanted[parameter] != ANY and _plain(value) != _plain(wanted[parameter]):
            return Verdict("wrong-value", parameter)
    return Verdict("pass")


def _plain(value: Any) -> Any:
    """Text without regard to case and spaces; numbers and truth values as the text that says the same."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return " ".join(str(value).casefold().split())
