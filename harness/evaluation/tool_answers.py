"""Whether a whole answer is right: its calls against the accepted ones, or calling at all against not calling.

The rules are those of the Berkeley Function Calling Leaderboard for single turns, compared with bfcl-eval 2026.3.23 in
`benchmarks/bfcl_parity.py`. As there, the number of calls is compared first, the order does not matter, each accepted
call takes the first call of the answer that fits it, and text that cannot be read counts as no call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.errors import HarnessError
from harness.evaluation.tool_calls import Call, Unparsable
from harness.evaluation.tool_rules import check_call, example_value, shown_name
from harness.evaluation.verdict import Verdict

Functions = Sequence[Mapping[str, Any]]
Truth = Sequence[Mapping[str, Mapping[str, Sequence[Any]]]]
Read = list[Call] | Unparsable


def check_calls(functions: Functions, ground_truth: Truth, read: Read) -> Verdict:
    """Score an answer that should hold certain calls and no others.

    functions: the row's documents.  ground_truth: [{name: {parameter: [allowed values]}}], one a call.
    Outcomes: pass, no-call, unparsable, missing-call, extra-call, wrong-function, missing-parameter,
    unknown-parameter, wrong-type, wrong-value; of several wrong calls the first is told.
    """
    if isinstance(read, Unparsable):
        return Verdict("unparsable" if read.attempted else "no-call", read.reason)
    if not read:
        return Verdict("no-call", "an empty list")
    if len(read) != len(ground_truth):
        wanted = "one" if len(ground_truth) == 1 else str(len(ground_truth))
        missing = len(read) < len(ground_truth)
        return Verdict("missing-call" if missing else "extra-call", f"{len(read)} calls instead of {wanted}")
    left = list(read)
    for accepted in ground_truth:
        ((name, allowed),) = accepted.items()
        document = _document(functions, name)
        verdicts = [check_call(document, allowed, call.name, call.arguments) for call in left]
        right = next((place for place, verdict in enumerate(verdicts) if verdict.passed), None)
        if right is None:
            return next((v for v in verdicts if v.outcome != "wrong-function"), verdicts[0])
        del left[right]
    return Verdict("pass")


def check_no_call(read: Read) -> Verdict:
    """Score an answer to a request that none of the functions serves. Outcomes: pass, extra-call."""
    if isinstance(read, Unparsable) or not read:
        return Verdict("pass")
    return Verdict("extra-call", f"{shown_name(read[0].name)} is called, and no function serves the request")


def check_some_call(read: Read) -> Verdict:
    """Score an answer to a request that some function serves: any call will do. Outcomes: pass, no-call, unparsable."""
    if isinstance(read, Unparsable):
        return Verdict("unparsable" if read.attempted else "no-call", read.reason)
    return Verdict("pass") if read else Verdict("no-call", "an empty list")


def gold_calls(functions: Functions, ground_truth: Truth) -> list[Call]:
    """Calls that should pass: for each parameter the first allowed value that is not "", left out only if it may be."""
    calls = []
    for accepted in ground_truth:
        ((name, allowed),) = accepted.items()
        schema = _document(functions, name)["parameters"]
        arguments = {}
        for parameter, values in allowed.items():
            given = [value for value in values if value != ""]
            if given or parameter in schema["required"]:
                document = schema["properties"].get(parameter, {})
                arguments[parameter] = example_value(document, given[0] if given else "")
        calls.append(Call(name, arguments))
    return calls


def as_python(calls: Sequence[Call]) -> str:
    """Calls as prompt mode asks for them: `[name(parameter='value')]`."""
    written = (
        f"{call.name}({', '.join(f'{key}={value!r}' for key, value in call.arguments.items())})" for call in calls
    )
    return f"[{', '.join(written)}]"


def _document(functions: Functions, name: str) -> Mapping[str, Any]:
    for function in functions:
        if function["name"] == name:
            return function
    raise HarnessError(f"an accepted call names the function {name!r}, and the row has no document of it")
