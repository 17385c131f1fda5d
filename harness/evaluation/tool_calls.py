"""Tool use in prompt mode: what the model is asked, and the calls read out of its answer.

The functions stand in the system turn and the model answers with a Python-style list of calls. An answer is parsed to
a syntax tree, from which only literals are taken; nothing of it is ever evaluated. As upstream (bfcl-eval 2026.3.23),
a bare call counts as a list of one, brackets at the ends may be missing, a variable's name is taken as text, arithmetic
on numbers is worked out, and positional arguments are dropped, since the documents name every parameter. Whether calls
are right is decided in `tool_answers`; the formats of chat templates are read in `tool_formats`.

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

SCORER = 1  # part of a task's protocol: change it whenever the same text may get another verdict
MAX_ANSWER = 100_000  # characters; a call list has some hundreds
MAX_DEPTH = 64  # of a value in JSON; Python's own parser has such a limit for lists in lists

_FENCE = re.compile(r"\A```(?:python|py|Python)?[ \t]*\n(.*?)(?:\n```)?\s*\Z", re.DOTALL)
_BRACKET = re.compile(r"\[\s*[A-Za-z_][\w.]*\(")
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
    """Why an answer is not a list of calls, and whether it looks as if it was meant to be one."""

    reason: str
    attempted: bool


def prompt_messages(
    question: Sequence[Sequence[Mapping[str, str]]], functions: Sequence[Mapping[str, Any]]
) -> list[dict[str, str]]:
    """A system and a user message for the first turn of a row's `question` with its function documents.

    A system message of the row's own follows ours in the same turn, since chat templates allow only one.
    """
    system = _INSTRUCTION + json.dumps(functions, indent=2, ensure_ascii=False)
    own, user = said(question)
    return [{"role": "system", "content": f"{system}\n\n{own}" if own else system}, {"role": "user", "content": user}]


def said(question: Sequence[Sequence[Mapping[str, str]]]) -> tuple[str, str]:
    """(the system message or "", the user's words) of the first turn of a row's `question`.

    Where the user had spoken before (9 rows of live_irrelevance), it is told as a transcript in one message, since not
    every chat template takes two turns of one speaker in a row.
    """
    turn = list(question[0])
    own = turn.pop(0)["content"] if turn and turn[0]["role"] == "system" else ""
    if len(turn) == 1:
        return own, turn[0]["content"]
    return own, "\n\n".join(f"{message['role'].capitalize()}: {message['content']}" for message in turn)


def parse_calls(text: str) -> list[Call] | Unparsable:
    """The calls in an answer, in order; an empty list for an empty answer. Never raises, never evaluates."""
    if len(text) > MAX_ANSWER:
        return Unparsable(f"{len(text)} characters are no list of calls", "(" in text)
    fenced = _FENCE.match(text.strip())
    listed = (fenced[1] if fenced else text).strip("`\n ")
    listed = ("" if listed.startswith("[") else "[") + listed + ("" if listed.endswith("]") else "]")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about odd escapes in the model's strings
            body = ast.parse(listed, mode="eval").body
        elements = [body] if isinstance(body, ast.Call) else getattr(body, "elts", None)
        if elements is None:
            raise ValueError(f"a {type(body).__name__} instead of a list of calls")
        return [_call(element) for element in elements]
    except SyntaxError as error:
        reason = f"not Python: {error.msg}"
    except (RecursionError, MemoryError):
        reason = "nested too deeply"
    except (ValueError, TypeError, ArithmeticError) as error:
        reason = str(error)
    return Unparsable(reason, "(" in text)


def parse_bracketed(text: str) -> list[Call] | Unparsable:
    """The calls of `[name(...)]` wherever it stands in an answer; of the whole answer if it stands nowhere."""
    begin, end = _BRACKET.search(text[:MAX_ANSWER]), text.rfind(")]")
    return parse_calls(text[begin.start() : end + 2] if begin and begin.start() < end else text)


def too_deep(value: Any) -> bool:
    """Whether a value of JSON is nested so deeply that comparing or showing it could exhaust the stack."""
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
    return bool(level)


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
