"""Does our BFCL checker give the verdicts of the bfcl-eval package? Run by hand, with the package in the environment.

    python benchmarks/bfcl_parity.py [--write]

Every item of every category present is compared on the gold answer and its systematic changes (tests/bfcl_answers.py),
and on many more changes of single values. Only here is that package's code run. Its model list and its Java and
JavaScript parsers, which would pull in heavy requirements, are replaced by empty modules; Python answers need none of
them, and the Java and JavaScript categories are not measured here. Prints one line for each kind of change, then every
kind of disagreement with an example; exit status 1 if there is one. `--write` keeps the package's verdicts on the
systematic answers in tests/bfcl_verdicts.json.gz, against which the tests compare.
"""

from __future__ import annotations

import gzip
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from harness.evaluation.tool_answers import as_python, gold_calls  # noqa: E402 (after the path to tests/)
from harness.evaluation.tool_calls import Call  # noqa: E402
from tests.bfcl_answers import ANSWERED, CATEGORIES, answers, fingerprint, ours, rows_of  # noqa: E402

VERDICTS = ROOT / "tests" / "bfcl_verdicts.json.gz"
STUBS = (
    "tenacity",
    "bfcl_eval.constants.model_config",
    "bfcl_eval.model_handler.parser.java_parser",
    "bfcl_eval.model_handler.parser.js_parser",
    "bfcl_eval.eval_checker.ast_eval.type_convertor.java_type_converter",
    "bfcl_eval.eval_checker.ast_eval.type_convertor.js_type_converter",
)
Judge = Callable[[str, dict[str, Any], str], bool]


def upstream() -> Judge:
    """The package's own verdict on an answer's text: True if it counts as right."""
    for name in STUBS:
        sys.modules[name] = MagicMock()
    models = sys.modules["bfcl_eval.constants.model_config"].MODEL_CONFIG_MAPPING
    models.__getitem__.return_value.underscore_to_dot = False  # as for every model that is prompted
    from bfcl_eval.constants.enums import Language
    from bfcl_eval.eval_checker.ast_eval.ast_checker import ast_checker
    from bfcl_eval.model_handler.utils import default_decode_ast_prompting
    from bfcl_eval.utils import is_empty_output, is_function_calling_format_output

    def verdict(category: str, row: dict[str, Any], text: str) -> bool:
        try:
            calls = default_decode_ast_prompting(text)
        except Exception:  # the package counts an answer that it cannot decode as no call
            return "irrelevance" in category
        if category not in ANSWERED:
            return bool(is_empty_output(calls)) == ("irrelevance" in category)
        if not is_function_calling_format_output(calls):
            return False
        try:
            result = ast_checker(row["function"], calls, row["ground_truth"], Language.PYTHON, category, "any")
        except Exception:  # which ends the package's own run; no answer can be right there
            return False
        return bool(result["valid"])

    return verdict


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


def more_answers(row: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Changes of each call of the gold answer, one at a time, with their names."""
    gold = gold_calls(row["function"], row["ground_truth"])
    for place, call in enumerate(gold):
        for how, changed in changed_calls(call, next(iter(row["ground_truth"][place].values()))):
            text = as_python([*gold[:place], changed, *gold[place + 1 :]])
            yield f"value: {how}", text.replace("'\\x00", "").replace("\\x00'", "")  # what is no text but a variable
        others = as_python(gold[:place] + gold[place + 1 :])[1:-1]
        bare = f"{call.name}({', '.join(map(repr, call.arguments.values()))})"
        yield "value: positional", f"[{others}, {bare}]" if others else f"[{bare}]"


def changed_calls(call: Call, allowed: dict[str, list[Any]]) -> Iterator[tuple[str, Call]]:
    yield "underscore", replace(call, name=call.name.replace(".", "_"))
    for key, value in call.arguments.items():
        yield "left out", replace(call, arguments={k: v for k, v in call.arguments.items() if k != key})
        tried = [("variable", "\0some_name\0"), *changed_values(value), *(("allowed", other) for other in allowed[key])]
        for how, other in tried:
            yield how, replace(call, arguments={**call.arguments, key: other})


def main() -> int:
    judge = upstream()
    compared, agreed, passed, gold_fails = Counter[str](), Counter[str](), Counter[str](), []
    disagreements: dict[str, str] = {}
    kept: dict[str, dict[str, list[str]]] = {}
    for category in CATEGORIES:
        before = compared.total()
        for row in rows_of(category):
            systematic = list(answers(category, row))
            bits = ""
            for how, text in [*systematic, *(more_answers(row) if category in ANSWERED else ())]:
                mine, theirs = ours(category, row, text), judge(category, row, text)
                bits += "01"[theirs]
                compared[how] += 1
                agreed[how] += mine.passed == theirs
                passed[how] += theirs
                if mine.passed != theirs:
                    disagreements.setdefault(how, f"{row['id']}: {text}\n  ours {mine}, upstream passes: {theirs}")
                if how == "gold" and not theirs:
                    gold_fails.append(f"{row['id']}: {text}")
            texts = [text for _, text in systematic]
            kept.setdefault(category, {})[row["id"]] = [fingerprint(texts), bits[: len(texts)]]
        print(f"{category:24} {len(rows_of(category)):5} items {compared.total() - before:8} answers")
    print(f"\n{'change':32} {'compared':>8} {'agree':>8} {'pass upstream':>14}")
    for how, count in [*sorted(compared.items()), ("all", compared.total())]:
        both = (agreed.total(), passed.total()) if how == "all" else (agreed[how], passed[how])
        print(f"{how:32} {count:8} {both[0]:8} {both[1]:14}")
    for how, example in disagreements.items():
        print(f"\n{how}: {example}")
    print("\n".join(["", f"{len(gold_fails)} gold answers fail upstream", *gold_fails]))
    if "--write" in sys.argv[1:]:
        body = json.dumps({"package": f"bfcl-eval {version('bfcl-eval')}", "verdicts": kept}, separators=(",", ":"))
        VERDICTS.write_bytes(gzip.compress(body.encode(), mtime=0))
    return int(agreed != compared)


if __name__ == "__main__":
    sys.exit(main())
