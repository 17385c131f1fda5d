"""Tool use in prompt mode: what the model is asked, and the calls read out of its answer, scored by BFCL's rules.

The functions stand in the system turn and the model answers with a Python-style list of calls. An answer is parsed to
a syntax tree, from which only literals are taken; nothing of it is ever evaluated. As upstream (bfcl-eval 2026.3.23),
a bare call counts as a list of one, brackets at the ends may be missing, a variable's name is taken as text, arithmetic
on numbers is worked out, and positional arguments are dropped, since the documents name every parameter.

Differs from upstream: the wording of the prompt; an answer inside a fence that names Python is read; unary plus (read
as minus upstream), lambdas, arithmetic on text and calls on the result of a call are unparsable.
"""

from __future__ import annotations

import ast
import json
import operator
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.evaluation.tool_rules import check_call, example_value
from harness.evaluation.verdict import Verdict

SCORER = 1  # part of a task's protocol: change it whenever the same text may get another verdict
MAX_ANSWER = 100_000  # characters; a call list has some hundreds

_FENCE = re.compile(r"\A```(?:python|py|Python)?[ \t]*\n(.*?)(?:\n```)?\s*\Z", re.DOTALL)
_INSTRUCTION = """\
You can call the functions listed below, and you answer only by calling them. Read the user's request, decide which \
function serves it and take the values of its parameters from the request.

Write your whole answer as one list of calls, with every parameter given by name:
[first_function(parameter="text", other=3), second_function(parameter=[1, 2])]
Leave out a parameter that is not required and that the request does not determine. Add no explanation. If no function \
serves the request, or a required value is missing, say so in a sentence instead.

Functions, as JSON:
"""


@dataclass(frozen=True)
class Call:
    """One call: the function's name, with dots, and its arguments by name, as plain values."""

    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True)
class Unparsable:
    """Why an answer is not a list of calls."""

    reason: str


def prompt_messages(
    question: Sequence[Sequence[Mapping[str, str]]], functions: Sequence[Mapping[str, Any]]
) -> list[dict[str, str]]:
    """Messages for the first turn of a row's `question` (turns of messages) with its function documents.

    A system message of the row's own follows ours in the same turn, since chat templates allow only one.
    """
    system = _INSTRUCTION + json.dumps(functions, indent=2, ensure_ascii=False)
    turn = [dict(message) for message in question[0]]
    if turn and turn[0]["role"] == "system":
        system += "\n\n" + turn.pop(0)["content"]
    return [{"role": "system", "content": system}, *turn]


def check_simple(
    functions: Sequence[Mapping[str, Any]], ground_truth: Sequence[Mapping[str, Any]], text: str
) -> Verdict:
    """Score an answer that should be one call of the one function.

    functions: the row's `function`.  ground_truth: [{name: {parameter: [allowed values]}}].
    Outcomes: pass, no-call, unparsable, extra-call, wrong-function, missing-parameter, unknown-parameter, wrong-type,
    wrong-value.
    """
    calls = parse_calls(text)
    if isinstance(calls, Unparsable):
        return Verdict("unparsable" if "(" in text else "no-call", calls.reason)
    if not calls:
        return Verdict("no-call", "an empty list")
    if len(calls) > 1:
        return Verdict("extra-call", f"{len(calls)} calls instead of one")
    (allowed,) = ground_truth[0].values()
    return check_call(functions[0], allowed, calls[0].name, calls[0].arguments)


def gold_call(ground_truth: Sequence[Mapping[str, Any]], function: Mapping[str, Any]) -> str:
    """An answer that should pass: for each parameter the first allowed value, left out only if it may be."""
    ((name, allowed),) = ground_truth[0].items()
    schema = function["parameters"]
    arguments = []
    for parameter, values in allowed.items():
        given = [value for value in values if value != ""]
        if given or parameter in schema["required"]:
            value = example_value(schema["properties"].get(parameter, {}), given[0] if given else "")
            arguments.append(f"{parameter}={value!r}")
    return f"[{name}({', '.join(arguments)})]"


def parse_calls(text: str) -> list[Call] | Unparsable:
    """The calls in an answer, in order; an empty list for an empty answer. Never raises, never evaluates."""
    if len(text) > MAX_ANSWER:
        return Unparsable(f"{len(text)} characters are no list of calls")
    fenced = _FENCE.match(text.strip())
    text = (fenced[1] if fenced else text).strip("`\n ")
    text = ("" if text.startswith("[") else "[") + text + ("" if text.endswith("]") else "]")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about odd escapes in the model's strings
            body = ast.parse(text, mode="eval").body
        elements = [body] if isinstance(body, ast.Call) else getattr(body, "elts", None)
        if elements is None:
            return Unparsable(f"a {type(body).__name__} instead of a list of calls")
        return [_call(element) for element in elements]
    except SyntaxError as error:
        return Unparsable(f"not Python: {error.msg}")
    except (RecursionError, MemoryError):
        return Unparsable("nested too deeply")
    except (ValueError, TypeError, ArithmeticError) as error:
        return Unparsable(str(error))


def _call(node: ast.expr) -> Call:
    if not isinstance(node, ast.Call):
        raise ValueError(f"a {type(node).__name__} instead of a call")
    parts: list[str] = []
    function = node.func
    while isinstance(function, ast.Attribute):
        parts.append(function.attr)
        function = function.value
    if not isinstance(function, ast.Name):
        raise ValueError(f"a {type(function).__name__} is called")
    arguments: dict[str, Any] = {}
    for keyword in node.keywords:
        if keyword.arg is None:
            raise ValueError("arguments are unpacked from a mapping")
        arguments[keyword.arg] = _value(keyword.value)
    return Call(".".join([function.id, *reversed(parts)]), arguments)


def _value(node: ast.expr) -> Any:
    """The plain value that an argument's expression stands for; ValueError for what is no literal."""
    match node:
        case ast.Constant():
            return "..." if node.value is Ellipsis else node.value
        case ast.List():
            return [_value(item) for item in node.elts]
        case ast.Tuple():
            return tuple(_value(item) for item in node.elts)
        case ast.Dict():
            if None in node.keys:
                raise ValueError("a mapping is unpacked")
            return {_value(key): _value(value) for key, value in zip(node.keys, node.values, strict=True) if key}
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant()):
            return -_number(node.operand)
        case ast.BinOp():
            return _number(node)
        case ast.Name():
            return node.id
        case ast.Call() if node.keywords:
            inner = _call(node)
            return {inner.name: dict(inner.arguments)}
        case ast.Call() | ast.Subscript():
            return ast.unparse(node)
        case _:
            raise ValueError(f"a {type(node).__name__} as a value")


_OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_LARGEST = 1 << 128  # of an operand; with exponents of at most 64 no result can fill the memory


def _number(node: ast.expr) -> int | float:
    """The value of an arithmetic expression of number literals; ValueError for any other."""
    match node:
        case ast.Constant(value=value) if type(value) in (int, float):
            return value  # type: ignore[return-value]
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_number(operand)
        case ast.BinOp(op=op) if type(op) in _OPERATORS:
            left, right = _number(node.left), _number(node.right)
            if abs(left) > _LARGEST or abs(right) > (64 if isinstance(op, ast.Pow) else _LARGEST):
                raise ValueError("arithmetic on huge numbers")
            result = _OPERATORS[type(op)](left, right)
            if isinstance(result, complex):
                raise ValueError("arithmetic that leaves the real numbers")
            return result  # type: ignore[no-any-return]
        case _:
            raise ValueError(f"arithmetic on a {type(node).__name__}")
