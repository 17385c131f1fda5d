"""BFCL's rows from the installed package's data, and for each the answers on which two checkers are compared.

The gold answer and systematic changes of it, the same every time: tests/bfcl_verdicts.json.gz keeps the verdicts of the
bfcl-eval package on exactly these texts (written by benchmarks/bfcl_parity.py).
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from harness.data.sources import pin, rows
from harness.digest import digest
from harness.evaluation.tool_answers import as_python, check_calls, check_no_call, check_some_call, gold_calls
from harness.evaluation.tool_calls import Call, parse_calls
from harness.evaluation.verdict import Verdict

ANSWERED = ("simple_python", "multiple", "parallel", "parallel_multiple")
ANSWERED += ("live_simple", "live_multiple", "live_parallel", "live_parallel_multiple")
WHETHER = ("irrelevance", "live_irrelevance", "live_relevance")
CATEGORIES = ANSWERED + WHETHER
Row = dict[str, Any]


@functools.cache
def rows_of(category: str) -> list[Row]:
    """{id, question, function, ground_truth}; those about whether to call at all have no ground truth."""
    return rows(pin(f"package:bfcl_eval/{category}"))


def ours(category: str, row: Row, text: str) -> Verdict:
    read = parse_calls(text)
    if category in ANSWERED:
        return check_calls(row["function"], row["ground_truth"], read)
    return check_some_call(read) if category.endswith("_relevance") else check_no_call(read)


def answers(category: str, row: Row) -> Iterator[tuple[str, str]]:
    """(what was changed, the answer) for one row; always the same ones in the same order."""
    if category in ANSWERED:
        yield from _changed(gold_calls(row["function"], row["ground_truth"]))
    else:
        yield from _with_or_without(row["function"][0]["name"] if row["function"] else "f")


def fingerprint(texts: list[str]) -> str:
    """Of all answers for one row, so that verdicts are never compared with those on other texts."""
    return digest(texts)[:8]


def different(value: Any) -> Any:
    """A value of the same type that is not right."""
    match value:
        case bool():
            return not value
        case int() | float():
            return value + 987654
        case str():
            return value + "qzx"
        case list():
            return [*value, *value, "qzx"]
        case _:
            return {"qzx": 1}


def _changed(gold: list[Call]) -> Iterator[tuple[str, str]]:
    text = as_python(gold)
    yield from (("gold", text), ("empty", ""), ("prose", "I cannot do that (sorry)."), ("no bracket", text[1:]))
    yield from (("cut short", text[:-2]), ("after prose", f"Here you are: {text}"), ("in a fence", f"```\n{text}\n```"))
    yield from (("extra call", as_python([*gold, gold[0]])), ("missing call", as_python(gold[:-1])))
    yield "other order", as_python(gold[::-1])
    first, last = gold[0], gold[-1]
    yield "wrong function", as_python([replace(first, name=f"{first.name}x"), *gold[1:]])
    yield "unknown parameter", as_python([replace(first, arguments={**first.arguments, "qzx": 1}), *gold[1:]])
    if first.arguments:
        key, value = next(iter(first.arguments.items()))
        for how, other in (("none", None), ("other value", different(value)), ("text", str(value)), ("list", [value])):
            yield how, as_python([replace(first, arguments={**first.arguments, key: other}), *gold[1:]])
        left = {name: argument for name, argument in first.arguments.items() if name != key}
        yield "missing parameter", as_python([replace(first, arguments=left), *gold[1:]])
    if last.arguments:
        key = list(last.arguments)[-1]
        changed = {**last.arguments, key: different(last.arguments[key])}
        yield "other last value", as_python([*gold[:-1], replace(last, arguments=changed)])
        loud = {k: v.upper() if isinstance(v, str) else v for k, v in last.arguments.items()}
        yield "upper case", as_python([*gold[:-1], replace(last, arguments=loud)])


def _with_or_without(name: str) -> Iterator[tuple[str, str]]:
    yield from (("empty", ""), ("empty list", "[]"), ("prose", "None of the functions can do that."), ("text", "'no'"))
    yield from (("call", f"[{name}(a=1)]"), ("bare call", f"{name}()"), ("two calls", f"[{name}(a='x'), {name}()]"))
    yield from (("a name", f"[{name}]"), ("a number", "[1]"), ("a mapping", "{}"), ("cut short", f"[{name}(a=1"))
    yield "after prose", f"I would call [{name}(a=1)]"
