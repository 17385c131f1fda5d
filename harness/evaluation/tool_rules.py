"""When one call counts as right: the rules of the Berkeley Function Calling Leaderboard for Python functions.

Written from the behaviour of bfcl-eval 2026.3.23 and compared with it in `benchmarks/bfcl_parity.py`. The rules are
kept where they look odd, so that a score means what it means on the board: an allowed "" also admits an empty list;
lists inside lists and dicts inside dicts compare exactly; a value of the answer's type passes where the document names
another type, and is then compared exactly.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from harness.errors import HarnessError
from harness.evaluation.verdict import Verdict

_TYPES: dict[str, type] = {
    "string": str,
    "integer": int,
    "float": float,
    "boolean": bool,
    "array": list,
    "tuple": list,
    "dict": dict,
    "any": str,
}
_IGNORED = re.compile(r"[ ,./\-_*^]")
_PASS = Verdict("pass")


def check_call(
    function: Mapping[str, Any], allowed: Mapping[str, Sequence[Any]], name: str, arguments: Mapping[str, Any]
) -> Verdict:
    """Compare one call with a function document and the allowed values of each parameter.

    An empty string among the allowed values means that the parameter may be left out. Outcomes: pass, wrong-function,
    missing-parameter, unknown-parameter, wrong-type, wrong-value; the first that is found.
    """
    if name != function["name"]:
        return Verdict("wrong-function", f"{shown_name(name)} instead of {function['name']}")
    schema = function["parameters"]
    for parameter in schema["required"]:
        if parameter not in arguments:
            return Verdict("missing-parameter", f"{parameter} is required")
    for parameter, value in arguments.items():
        if parameter not in schema["properties"] or parameter not in allowed:
            return Verdict("unknown-parameter", shown_name(parameter))
        verdict = _check_value(schema["properties"][parameter], allowed[parameter], value)
        if verdict is not _PASS:
            return Verdict(verdict.outcome, f"{parameter}: {verdict.detail}")
    for parameter, values in allowed.items():
        if parameter not in arguments and "" not in values:
            return Verdict("missing-parameter", f"{parameter} has no default that is right here")
    return _PASS


def example_value(document: Mapping[str, Any], answer: Any) -> Any:
    """A value that passes, from one allowed value: in it each key of a dict holds a list of allowed values."""
    if document.get("type") == "dict" and isinstance(answer, dict):
        chosen = {key: [value for value in values if value != ""] for key, values in answer.items()}
        return {key: values[0] for key, values in chosen.items() if values}
    if (document.get("items") or {}).get("type") == "dict" and isinstance(answer, list):
        return [example_value({"type": "dict"}, item) for item in answer]
    return answer


def shown_name(name: str) -> str:
    """A name out of an answer, fit for a sentence: it may be long, and from JSON it may hold lone surrogates."""
    return name[:80].encode("utf-8", "backslashreplace").decode()


def _type(name: str) -> type:
    if name not in _TYPES:
        raise HarnessError(f"a function document has the unknown type {name!r}", todo=f"known: {', '.join(_TYPES)}")
    return _TYPES[name]


def _check_value(document: Mapping[str, Any], allowed: Sequence[Any], value: Any) -> Verdict:
    expected = _type(document["type"])
    items = document.get("items") if expected is list else None
    inner = _type(items["type"]) if items else None
    if document["type"] == "tuple" and isinstance(value, tuple):
        value = list(value)
    if document["type"] == "float" and type(value) is int:
        try:
            value = float(value)
        except OverflowError:
            return Verdict("wrong-value", "an integer beyond every float")
    kind = _answer_type(allowed)
    if not _fits(value, allowed, expected, inner):
        return Verdict("wrong-type", f"{_show(value)} where {document['type']} is expected")
    if kind in (None, expected) and type(value) is expected:
        right = _is_right(allowed, value, expected, inner)
    else:
        right = value in allowed
    return _PASS if right else Verdict("wrong-value", f"{_show(value)} is none of {_show(list(allowed))}")


def _answer_type(allowed: Sequence[Any]) -> type[Any] | None:
    return next((type(answer) for answer in allowed if answer != ""), None)


def _fits(value: Any, allowed: Sequence[Any], expected: type, inner: type | None) -> bool:
    """The type is the document's, with items of the inner type, or else it is the type of the answer."""
    kind = type(value)  # a name of its own, since mypy would take `value` for an `expected`, an unknown type
    if kind is not expected:
        return kind is _answer_type(allowed)
    if inner is None:
        return True
    return any(
        not isinstance(answer, list) or all(_fits(item, answer, inner, None) for item in value) for answer in allowed
    )


def _is_right(allowed: Sequence[Any], value: Any, expected: type, inner: type | None) -> bool:
    if expected is dict:
        return any(_dict_is_right(answer, value) for answer in allowed if answer != "")
    if expected is list and inner is dict:
        return any(_dicts_are_right(answer, value) for answer in allowed)
    if expected is str:
        return _plain(value) in [_plain(answer) for answer in allowed if isinstance(answer, str)]
    if expected is list:
        answers = [answer for answer in allowed if isinstance(answer, list | str)]
        return [_plain(item) for item in value] in [[_plain(item) for item in answer] for answer in answers]
    return value in allowed


def _dict_is_right(answer: Mapping[str, Sequence[Any]], value: Mapping[Any, Any]) -> bool:
    for key, given in value.items():
        if key not in answer or _plain(given) not in [_plain(item) for item in answer[key]]:
            return False
    return all(key in value or "" in items for key, items in answer.items())


def _dicts_are_right(answer: Sequence[Any], value: Sequence[Any]) -> bool:
    return len(answer) == len(value) and all(
        isinstance(theirs, dict) and ours != "" and _dict_is_right(ours, theirs)
        for ours, theirs in zip(answer, value, strict=True)
    )


def _plain(value: Any) -> Any:
    """Text without the differences that do not count: case, spaces, some punctuation, the kind of quotation marks."""
    return _IGNORED.sub("", value).lower().replace("'", '"') if isinstance(value, str) else value


def _show(value: Any) -> str:
    try:
        text = repr(value)
    except ValueError:  # an integer with more digits than Python prints
        return f"a huge {type(value).__name__}"
    return text if len(text) <= 200 else text[:200] + "..."
