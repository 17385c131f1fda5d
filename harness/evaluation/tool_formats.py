"""Tool use in the model's own format: function documents as the schemas that chat templates take, and calls read back.

What is read, told apart by what stands in the answer:

    <tool_call>{"name": ..., "arguments": {...}}</tool_call>      Hermes, Qwen; one block a call
    [TOOL_CALLS][{"name": ..., "arguments": {...}}, ...]          Mistral; also [TOOL_CALLS]name[ARGS]{...}
    <|python_tag|>{"name": ..., "parameters": {...}}; ...         Llama 3
    {"name": ..., "parameters": {...}}, or a list of such         any of these after its special tokens were cut away

Text that is none of these is no call. Calls are JSON and are only parsed. Other formats (XML arguments, Python in a
python tag) are not read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from harness.evaluation.tool_calls import MAX_ANSWER, Call, Unparsable, too_deep

# The names of types in BFCL's documents that JSON Schema does not have; "any" becomes text there too (bfcl-eval).
_TYPES = {"dict": "object", "float": "number", "tuple": "array", "any": "string"}
_BLOCK = re.compile(r"<tool_call>(.*?)(?:</tool_call>|\Z)", re.DOTALL)
_NAMED = re.compile(r"\s*([A-Za-z_][\w.-]*)\s*(?:\[CALL_ID\][^\[{]*)?(?:\[ARGS\])?\s*(?=\{)")
_BETWEEN = re.compile(r"[\s;,]*(?:\[TOOL_CALLS\]|<\|python_tag\|>)?[\s;,]*")
_NAMES = (("function", "name"), ("arguments", "parameters"))
_MARKS = ("<tool_call>", "[TOOL_CALLS]", "<|python_tag|>")


def as_tools(functions: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Function documents as chat templates take them: {"type": "function", "function": {name, description, schema}}."""
    return [
        {"type": "function", "function": {**function, "parameters": _schema(function["parameters"])}}
        for function in functions
    ]


def plain_name(name: str) -> str:
    """A function's name without dots, which tool formats do not allow; bfcl-eval replaces them in the same way."""
    return name.replace(".", "_")


def parse_native(text: str) -> list[Call] | Unparsable:
    """The calls in an answer, in order; an empty list where there is none. Never raises."""
    marked = next((mark for mark in _MARKS if mark in text[:MAX_ANSWER]), "")
    if len(text) > MAX_ANSWER:
        return Unparsable(f"{len(text)} characters are no calls", bool(marked))
    try:
        return list(_calls(text, marked))
    except (RecursionError, MemoryError):
        reason = "nested too deeply"
    except ValueError as error:
        reason = str(error)
    return Unparsable(reason, bool(marked) or "{" in text)


def _schema(document: Mapping[str, Any]) -> dict[str, Any]:
    schema = dict(document)
    if isinstance(schema.get("type"), str):
        schema["type"] = _TYPES.get(schema["type"], schema["type"])
    if isinstance(schema.get("properties"), Mapping):
        schema["properties"] = {name: _schema(inner) for name, inner in schema["properties"].items()}
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), Mapping):
            schema[key] = _schema(schema[key])
    return schema


def _calls(text: str, marked: str) -> Iterator[Call]:
    if marked == "<tool_call>":
        for block in _BLOCK.finditer(text):
            yield from _sequence(block[1])
    elif marked:
        yield from _sequence(text[text.index(marked) + len(marked) :])
    elif text.lstrip()[:1] in ("{", "[") or _NAMED.match(text):
        yield from _sequence(text)


def _sequence(text: str) -> Iterator[Call]:
    """JSON values one after the other, each a call, a list of calls, or the arguments of the name before it."""
    decoder, at = json.JSONDecoder(), 0
    text = text.rstrip()
    while (at := _past(_BETWEEN, text, at)) < len(text):
        named = _NAMED.match(text, at)
        try:
            value, at = decoder.raw_decode(text, named.end() if named else at)
        except json.JSONDecodeError as error:
            raise ValueError(f"not JSON: {error.msg}") from None
        if named:
            yield Call(named[1], _arguments(value))
        else:
            yield from map(_call, value if isinstance(value, list) else [value])


def _past(pattern: re.Pattern[str], text: str, at: int) -> int:
    found = pattern.match(text, at)
    return found.end() if found else at


def _call(value: Any) -> Call:
    if not isinstance(value, dict):
        raise ValueError(f"a {type(value).__name__} instead of a call")
    if isinstance(value.get("function"), dict):
        value = value["function"]
    name, arguments = (next((value[key] for key in keys if key in value), None) for keys in _NAMES)
    if not isinstance(name, str):
        raise ValueError("a call without a name")
    return Call(name, _arguments({} if arguments is None else arguments))


def _arguments(value: Any) -> dict[str, Any]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except json.JSONDecodeError as error:
            raise ValueError(f"arguments are not JSON: {error.msg}") from None
    if not isinstance(value, dict):
        raise ValueError(f"arguments are a {type(value).__name__}")
    if too_deep(value):
        raise ValueError("nested too deeply")
    return value
