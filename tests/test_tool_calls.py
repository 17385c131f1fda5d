"""Tool calls: the gold answer passes, changed answers fail with their reason, and any text gets a verdict."""

from __future__ import annotations

import functools
import importlib.metadata
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from harness.errors import HarnessError
from harness.evaluation.tool_answers import as_python, check_calls, gold_calls
from harness.evaluation.tool_calls import Call, Unparsable, parse_bracketed, parse_calls, prompt_messages
from harness.evaluation.tool_rules import check_call

Row = tuple[list[dict[str, Any]], list[dict[str, Any]]]


@functools.cache
def rows() -> list[Row]:
    """(functions, ground truth) of BFCL's simple_python, from the installed package's data."""
    files = [f for f in importlib.metadata.files("bfcl-eval") or [] if f.name == "BFCL_v4_simple_python.json"]
    answers, questions = sorted(
        (Path(str(f.locate())) for f in files), key=lambda p: p.parent.name != "possible_answer"
    )
    lines = zip(questions.read_text("utf-8").splitlines(), answers.read_text("utf-8").splitlines(), strict=True)
    return [(json.loads(q)["function"], json.loads(a)["ground_truth"]) for q, a in lines]


def gold_arguments(row: Row) -> tuple[str, dict[str, Any]]:
    (call,) = gold_calls(*row)
    return call.name, dict(call.arguments)


def written(name: str, arguments: dict[str, Any]) -> str:
    return f"[{name}({', '.join(f'{k}={v!r}' for k, v in arguments.items())})]"


def check(row: Row, text: str) -> str:
    return check_calls(*row, parse_calls(text)).outcome


def test_the_gold_answer_of_every_item_passes() -> None:
    assert len(rows()) == 400
    assert [row for row in rows() if check(row, as_python(gold_calls(*row))) != "pass"] == []


def test_the_mirrors_rows_have_the_same_gold_answers(mirror: Path) -> None:
    with (mirror / "tool_use" / "bfcl_v4" / "simple_python.jsonl").open(encoding="utf-8") as f:
        mirrored = [json.loads(line) for line in f]
    assert [(row["function"], row["ground_truth"]) for row in mirrored] == rows()


def test_every_allowed_value_passes_by_itself() -> None:
    """Values of plain types only: inside a dict or a list of dicts each key has allowed values of its own."""
    tried = 0
    for row in rows():
        name, arguments = gold_arguments(row)
        for key, allowed in row[1][0][name].items():
            for value in allowed:
                if value != "" and not isinstance(value, dict | list):
                    tried += 1
                    assert check(row, written(name, {**arguments, key: value})) == "pass"
    assert tried > 900


def test_changed_answers_fail_with_their_reason() -> None:
    seen: Counter[str] = Counter()
    for row in rows():
        name, arguments = gold_arguments(row)
        required = row[0][0]["parameters"]["required"]
        gold = written(name, arguments)
        changed = {
            "wrong-function": [written(f"my.{name}", arguments), written(name.upper() + "_", arguments)],
            "extra-call": [f"[{gold[1:-1]}, {gold[1:-1]}]"],
            "unknown-parameter": [written(name, {**arguments, "surplus": 1})],
            "missing-parameter": [
                written(name, {k: v for k, v in arguments.items() if k != gone})
                for gone in required
                if gone in arguments
            ],
            "wrong-type": [written(name, {**arguments, key: None}) for key in arguments],
            "wrong-value": [
                written(name, {**arguments, key: different(value)})
                for key, value in arguments.items()
                if isinstance(value, str | int | float) and different(value) not in row[1][0][name][key]
            ],
            "no-call": ["", "[]", "I would rather not."],
            "unparsable": [gold.replace(")", "", 1), f"Here you are: {gold}"],
        }
        for expected, texts in changed.items():
            for text in texts:
                seen[expected] += 1
                assert check(row, text) == expected, (expected, text)
    assert len(seen) == 8 and min(seen.values()) >= 400


def different(value: Any) -> Any:
    match value:
        case bool():
            return not value
        case str():
            return value + "qzx"
        case _:
            return value + 987654


def function(**properties: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"name": "f", "parameters": {"type": "dict", "properties": properties, "required": ["a"]}}]


@pytest.mark.parametrize(
    ("document", "allowed", "value", "expected"),
    [
        ({"type": "string"}, ["New York, NY"], "new york ny", "pass"),
        ({"type": "string"}, ["New York"], "Newark", "wrong-value"),
        ({"type": "string"}, ["it's"], 'it"s', "pass"),
        ({"type": "string"}, ["5"], 5, "wrong-type"),
        ({"type": "float"}, [5.0], 5, "pass"),
        ({"type": "float"}, [5.0], 1 << 5000, "wrong-value"),
        ({"type": "integer"}, [5], 5.0, "wrong-type"),
        ({"type": "integer"}, [1], True, "wrong-type"),
        ({"type": "boolean"}, [True], 1, "wrong-type"),
        ({"type": "integer"}, ["count"], "count", "pass"),  # a variable, by its name
        ({"type": "integer"}, ["count"], "Count", "wrong-value"),
        ({"type": "any"}, [3], 3, "pass"),
        ({"type": "array", "items": {"type": "string"}}, [["A b", "c"]], ["ab", "C"], "pass"),
        ({"type": "array", "items": {"type": "string"}}, [["a", "b"]], ["b", "a"], "wrong-value"),
        ({"type": "array", "items": {"type": "integer"}}, [[1, 2]], (1, 2), "wrong-type"),
        ({"type": "array", "items": {"type": "integer"}}, [[1, 2]], ["1", "2"], "wrong-type"),
        ({"type": "tuple", "items": {"type": "float"}}, [[1.5, 2.5]], (1.5, 2.5), "pass"),
        ({"type": "dict"}, [{"k": ["v", "w"], "o": ["", 1]}], {"k": "W"}, "pass"),
        ({"type": "dict"}, [{"k": ["v"], "o": ["", 1]}], {"k": "v", "o": 2}, "wrong-value"),
        ({"type": "dict"}, [{"k": ["v"]}], {}, "wrong-value"),
        ({"type": "dict"}, [{"k": ["v"]}], {"k": "v", "x": 1}, "wrong-value"),
        ({"type": "array", "items": {"type": "dict"}}, [[{"k": [1]}, {"k": [2]}]], [{"k": 1}, {"k": 2}], "pass"),
        ({"type": "array", "items": {"type": "dict"}}, [[{"k": [1]}, {"k": [2]}]], [{"k": 2}, {"k": 1}], "wrong-value"),
        ({"type": "array", "items": {"type": "dict"}}, [[{"k": [1]}], ""], [1], "wrong-value"),
        ({"type": "array", "items": {"type": "dict"}}, [[{"k": [1]}]], [1], "wrong-type"),
        ({"type": "string"}, ["x"], float("nan"), "wrong-type"),
    ],
)
def test_values_are_compared_by_the_boards_rules(
    document: dict[str, Any], allowed: list[Any], value: Any, expected: str
) -> None:
    assert check_call(function(a=document)[0], {"a": allowed}, "f", {"a": value}).outcome == expected


def test_an_optional_parameter_may_be_left_out_only_if_the_answer_says_so() -> None:
    documents = function(a={"type": "integer"}, b={"type": "integer"})
    assert check((documents, [{"f": {"a": [1], "b": [2, ""]}}]), "[f(a=1)]") == "pass"
    assert check((documents, [{"f": {"a": [1], "b": [2]}}]), "[f(a=1)]") == "missing-parameter"


def test_a_document_with_an_unknown_type_is_named() -> None:
    with pytest.raises(HarnessError, match="unknown type 'strong'"):
        check((function(a={"type": "strong"}), [{"f": {"a": [1]}}]), "[f(a=1)]")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[f(a=1, b='x')]", [Call("f", {"a": 1, "b": "x"})]),
        ("f(a=1)", [Call("f", {"a": 1})]),
        ("f(a=1), g.h(b=[1, (2,)])", [Call("f", {"a": 1}), Call("g.h", {"b": [1, (2,)]})]),
        (" \n```python\n[f(a=-1.5)]\n```\n", [Call("f", {"a": -1.5})]),
        ("```\nf(a=1)\n```", [Call("f", {"a": 1})]),
        ("`[f()]`", [Call("f", {})]),
        ("[f(a={'k': [None, True]})]", [Call("f", {"a": {"k": [None, True]}})]),
        ("[f(a=true, b=x)]", [Call("f", {"a": "true", "b": "x"})]),
        ("[f(a=...)]", [Call("f", {"a": "..."})]),
        ("[f(a=g(), b=h(1), c=x[0])]", [Call("f", {"a": "g()", "b": "h(1)", "c": "x[0]"})]),
        ("[f(a=g(b=1))]", [Call("f", {"a": {"g": {"b": 1}}})]),
        ("[f(a=2*3+0.5, b=2**10)]", [Call("f", {"a": 6.5, "b": 1024})]),
        ("[ñandú.f(ü='日本 \U0001f600')]", [Call("ñandú.f", {"ü": "日本 \U0001f600"})]),
        ("[f(7, a=1)]", [Call("f", {"a": 1})]),
        ("[f(*x, a=1)]", [Call("f", {"a": 1})]),
        (r"[f(a='\d')]", [Call("f", {"a": r"\d"})]),
        ("[f(a=0x" + "f" * 5000 + ")]", [Call("f", {"a": (1 << 20000) - 1})]),
        ("", []),
    ],
)
def test_calls_are_read(text: str, expected: list[Call]) -> None:
    assert parse_calls(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "I cannot do that (sorry).",
        "[1, 2]",
        "[f]",
        "[f(a=1), 'text']",
        "[f(a=x.y)]",
        "[f(a=f'{x}')]",
        "[f(a=lambda: 1)]",
        "[f(a=[x for x in y])]",
        "[f(a=(yield))]",
        "[f(a={**x})]",
        "[f(a={[]: 1})]",
        "[f(a={1, 2})]",
        "[f(a=1 if b else 2)]",
        "[f(a=not b)]",
        "[f(a=-'x')]",
        "[f(a='x' * 10**9)]",
        "[f(a=10**10**10)]",
        "[f(a=1/0)]",
        "[f(a=(-8)**0.5)]",
        "[f(**{'a': 1})]",
        "[f()(a=1)]",
        "[x[0].f(a=1)]",
        "[f(a=" + "9" * 5000 + ")]",
        "[f(a=\ud800)]",
        "\x00\xff",
        "[" * 50_000,
        "[f(a=" + "(" * 50_000,
        "[f(a=" + "-" * 90_000 + "1)]",
        "[f(a=x" + ".y" * 40_000 + ")]",
        "[f(a=" + "1+" * 40_000 + "1)]",
        "[f(a='" + "x" * 1_000_000 + "')]",
    ],
)
def test_other_text_is_unparsable_and_never_raises(text: str) -> None:
    assert isinstance(parse_calls(text), Unparsable)
    assert check((function(a={"type": "integer"}), [{"f": {"a": [1]}}]), text) in ("unparsable", "no-call")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[f(a='x')]", [Call("f", {"a": "x"})]),
        ("API-Request: [f(a='x')] -> done", [Call("f", {"a": "x"})]),
        ("f(a='x')", [Call("f", {"a": "x"})]),
        ("[1] says so: [ f(a='[b(c)]')].", [Call("f", {"a": "[b(c)]"})]),
    ],
)
def test_a_bracketed_call_is_found_in_what_surrounds_it(text: str, expected: list[Call]) -> None:
    assert parse_bracketed(text) == expected


def test_calls_may_come_in_any_order_and_the_first_wrong_one_is_told() -> None:
    documents = [*function(a={"type": "integer"}), {**function(a={"type": "integer"})[0], "name": "g"}]
    row = documents, [{"f": {"a": [1]}}, {"f": {"a": [2]}}, {"g": {"a": [3]}}]
    for text, outcome in {
        "[f(a=1), f(a=2), g(a=3)]": "pass",
        "[g(a=3), f(a=2), f(a=1)]": "pass",
        "[f(a=1), f(a=1), g(a=3)]": "wrong-value",
        "[f(a=1), f(a=2), g(a='3')]": "wrong-type",
        "[f(a=1), f(a=2), h(a=3)]": "wrong-function",
        "[f(a=1), f(a=2)]": "missing-call",
        "[f(a=1), f(a=2), g(a=3), g(a=3)]": "extra-call",
    }.items():
        assert check(row, text) == outcome


def test_nothing_of_an_answer_is_evaluated(tmp_path: Path) -> None:
    path = tmp_path / "evaluated"
    for value in (
        f"open({str(path)!r}, 'w')",
        f"(lambda: open({str(path)!r}, 'w'))()",
        f"1 + open({str(path)!r}, 'w')",
    ):
        parse_calls(f"[f(a={value})]")
        check((function(a={"type": "string"}), [{"f": {"a": ["x"]}}]), f"[f(a={value})]")
    assert not path.exists()


def test_the_prompt_holds_the_documents_and_the_question_and_no_answer() -> None:
    documents = function(a={"type": "integer", "description": "how many"})
    messages = prompt_messages([[{"role": "user", "content": "Do it 3 times."}]], documents)
    assert [m["role"] for m in messages] == ["system", "user"]
    assert json.dumps(documents, indent=2) in messages[0]["content"]
    assert messages[1]["content"] == "Do it 3 times."


def test_what_was_said_before_is_told_in_one_turn() -> None:
    question = [[{"role": r, "content": c} for r, c in (("user", "Hi."), ("assistant", "Yes?"), ("user", "Go."))]]
    (_, user) = prompt_messages(question, [])
    assert user == {"role": "user", "content": "User: Hi.\n\nAssistant: Yes?\n\nUser: Go."}


def test_a_system_message_of_the_row_joins_ours() -> None:
    question = [[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Go."}]]
    messages = prompt_messages(question, [])
    assert [m["role"] for m in messages] == ["system", "user"]
    assert messages[0]["content"].endswith("Be brief.")
    assert question[0][0]["content"] == "Be brief."
