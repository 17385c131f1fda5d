"""Does our BFCL checker give the verdicts of the bfcl-eval package? Run by hand: `python benchmarks/bfcl_parity.py`.

For every call in the ground truth of the Python categories, the gold answer and systematic changes of it are decoded
and checked by both. Only here is that package's code run. Its model list, its Java and JavaScript parsers and a
retry library, which would pull in heavy requirements, are replaced by empty modules; Python answers need none of them.
Prints one line for each kind of change, then every kind of disagreement with an example; exit status 1 if there is one.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

from harness.evaluation.tool_calls import check_simple, gold_call, parse_calls

CATEGORIES = ("simple_python", "multiple", "parallel", "parallel_multiple", "live_simple", "live_multiple")
STUBS = (
    "tenacity",
    "bfcl_eval.constants.model_config",
    "bfcl_eval.model_handler.parser.java_parser",
    "bfcl_eval.model_handler.parser.js_parser",
    "bfcl_eval.eval_checker.ast_eval.type_convertor.java_type_converter",
    "bfcl_eval.eval_checker.ast_eval.type_convertor.js_type_converter",
)


def upstream() -> Callable[[list[Any], list[Any], str], bool]:
    """The package's own verdict on an answer's text: True if it counts as right."""
    for name in STUBS:
        sys.modules[name] = MagicMock()
    models = sys.modules["bfcl_eval.constants.model_config"].MODEL_CONFIG_MAPPING
    models.__getitem__.return_value.underscore_to_dot = False  # as for every model that is prompted
    from bfcl_eval.constants.enums import Language
    from bfcl_eval.eval_checker.ast_eval.ast_checker import ast_checker
    from bfcl_eval.model_handler.utils import default_decode_ast_prompting

    def verdict(functions: list[Any], ground_truth: list[Any], text: str) -> bool:
        try:
            calls = default_decode_ast_prompting(text)
            result = ast_checker(functions, calls, ground_truth, Language.PYTHON, "simple_python", "any")
        except Exception:  # the package counts an answer that it cannot decode as wrong
            return False
        return bool(result["valid"])

    return verdict


def calls(category: str) -> Iterator[tuple[dict[str, Any], list[Any]]]:
    """Each call of the ground truth, with its function's document."""
    data = Path(importlib.util.find_spec("bfcl_eval").submodule_search_locations[0]) / "data"  # type: ignore[union-attr, index]
    questions = (data / f"BFCL_v4_{category}.json").read_text(encoding="utf-8").splitlines()
    answers = (data / "possible_answer" / f"BFCL_v4_{category}.json").read_text(encoding="utf-8").splitlines()
    for question, answer in zip(map(json.loads, questions), map(json.loads, answers), strict=True):
        documents = {function["name"]: function for function in question["function"]}
        for call in answer["ground_truth"]:
            yield documents[next(iter(call))], [call]


def changed_values(value: Any) -> Iterator[tuple[str, Any]]:
    """Changes of one value, with their names."""
    yield from (("as text", str(value)), ("as a number", 7), ("as none", None), ("in a list", [value]))
    match value:
        case bool():
            yield from (("flipped", not value), ("bool as int", int(value)))
        case int():
            yield from (("plus one", value + 1), ("int as float", float(value)), ("negative", -value - 1))
        case float():
            yield from (("plus a half", value + 0.5), ("float as int", int(value)))
        case str():
            yield from (("upper case", value.upper()), ("punctuation", f"{value}."), ("longer", f"{value}zz"))
            yield from (("spaces", value.replace(" ", "")), ("quotes", value.replace("'", '"')), ("empty", ""))
        case list():
            yield from (("as a tuple", tuple(value)), ("emptied", []), ("reversed", value[::-1]))
            yield from (("shorter", value[:-1]), ("doubled", value + value), ("plus none", [*value, None]))
            for first in value[:1]:
                yield from ((f"item {name}", [item, *value[1:]]) for name, item in changed_values(first))
        case dict():
            yield from (("emptied", {}), ("one key more", {**value, "zz": 1}))
            for key in list(value)[:3]:
                yield "one key less", {k: v for k, v in value.items() if k != key}
                for name, item in changed_values(value[key]):
                    yield f"key {name}", {**value, key: item}


def answers(function: dict[str, Any], truth: list[Any]) -> Iterator[tuple[str, str]]:
    """The gold answer and changes of it, with their names."""
    gold = gold_call(truth, function)
    yield "gold", gold
    parsed = parse_calls(gold)
    name, arguments = parsed[0].name, dict(parsed[0].arguments)  # type: ignore[index]
    yield from (("bare", gold[1:-1]), ("no bracket", gold[1:]), ("empty", ""), ("empty list", "[]"), ("prose", "Yes."))
    yield from (("twice", f"[{gold[1:-1]}, {gold[1:-1]}]"), ("bare fence", f"```\n{gold}\n```"))
    yield "other function", written(f"{name}x", arguments)
    yield "underscore", written(name.replace(".", "_"), arguments)
    yield "unknown parameter", written(name, {**arguments, "zz": 1})
    yield "positional", f"[{name}({', '.join(map(repr, arguments.values()))})]"
    for key, value in arguments.items():
        yield "left out", written(name, {k: v for k, v in arguments.items() if k != key})
        yield "variable", written(name, {**arguments, key: "\0some_name\0"}).replace("'\\x00", "").replace("\\x00'", "")
        for how, other in changed_values(value):
            yield how, written(name, {**arguments, key: other})
        for other in truth[0][name][key]:
            yield "allowed", written(name, {**arguments, key: other})


def written(name: str, arguments: dict[str, Any]) -> str:
    return f"[{name}({', '.join(f'{key}={value!r}' for key, value in arguments.items())})]"


def main() -> int:
    judge = upstream()
    compared, agreed, passed, gold_fails = Counter[str](), Counter[str](), Counter[str](), []
    disagreements: dict[str, str] = {}
    for category in CATEGORIES:
        for function, truth in calls(category):
            for how, text in answers(function, truth):
                ours, theirs = check_simple([function], truth, text), judge([function], truth, text)
                compared[how] += 1
                agreed[how] += ours.passed == theirs
                passed[how] += theirs
                if ours.passed != theirs:
                    disagreements.setdefault(how, f"{category}: {text}\n  ours {ours}, upstream passes: {theirs}")
                if how == "gold" and not theirs:
                    gold_fails.append(f"{category}: {text}")
    print(f"{'change':24} {'compared':>8} {'agree':>8} {'pass upstream':>14}")
    for how, count in [*sorted(compared.items()), ("all", compared.total())]:
        both = (agreed.total(), passed.total()) if how == "all" else (agreed[how], passed[how])
        print(f"{how:24} {count:8} {both[0]:8} {both[1]:14}")
    for how, example in disagreements.items():
        print(f"\n{how}: {example}")
    print("\n".join(["", f"{len(gold_fails)} gold answers fail upstream", *gold_fails]))
    return int(agreed != compared)


if __name__ == "__main__":
    sys.exit(main())
