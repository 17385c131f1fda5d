"""Tool use in the model's own format: schemas, the calls of each template, what a template gets, and refusals."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import pytest

from harness.data.models import find_model
from harness.data.templates import shows_tools
from harness.engines.base import Request
from harness.engines.prompts import Prompts
from harness.errors import HarnessError
from harness.evaluation.lm import build_requests
from harness.evaluation.suite import Task, choose_tasks, load_suite
from harness.evaluation.tool_answers import check_calls, gold_calls
from harness.evaluation.tool_calls import Call
from harness.evaluation.tool_formats import as_tools, parse_native
from harness.matrix.matrix import load_matrix
from harness.planning.plan import Where, make_plan
from tests.bfcl_answers import ANSWERED, CATEGORIES, rows_of
from tests.tiny import TEMPLATE

NATIVE = ["simple_python_native", "multiple_native", "parallel_native", "irrelevance_native"]


@functools.cache
def task_of(name: str) -> Task:
    return choose_tasks(load_suite("tool_use"), only=[name], limit=8)[0][0]


CALLS = [Call("f", {"a": 1, "b": ["x", {"c": None}]}), Call("g", {})]


@pytest.mark.parametrize(
    "text",
    [
        '<tool_call>\n{"name": "f", "arguments": {"a": 1, "b": ["x", {"c": null}]}}\n</tool_call>\n'
        '<tool_call>{"name": "g", "arguments": {}}</tool_call>',
        'Two: <tool_call>{"name": "f", "arguments": "{\\"a\\": 1, \\"b\\": [\\"x\\", {\\"c\\": null}]}"}</tool_call>'
        '<tool_call>{"name": "g"}',
        '[TOOL_CALLS][{"name": "f", "arguments": {"a": 1, "b": ["x", {"c": null}]}}, {"name": "g", "arguments": {}}]',
        '[TOOL_CALLS]f[ARGS]{"a": 1, "b": ["x", {"c": null}]}[TOOL_CALLS]g[CALL_ID]ab12[ARGS]{}',
        '<|python_tag|>{"name": "f", "parameters": {"a": 1, "b": ["x", {"c": null}]}}; {"name": "g", "parameters": {}}',
        '{"name": "f", "parameters": {"a": 1, "b": ["x", {"c": null}]}}\n{"name": "g", "parameters": {}}',
        '[{"name": "f", "arguments": {"a": 1, "b": ["x", {"c": null}]}}, {"name": "g", "arguments": {}}]',
        '[{"function": {"name": "f", "arguments": {"a": 1, "b": ["x", {"c": null}]}}}, {"name": "g"}]',
        'f{"a": 1, "b": ["x", {"c": null}]}g{}',
    ],
)
def test_the_calls_of_each_template_format_are_read(text: str) -> None:
    assert parse_native(text) == CALLS


@pytest.mark.parametrize("text", ["", "None of these can do that.", "Use f(a=1).", "The answer is {x}."])
def test_prose_is_no_call_in_the_models_own_format(text: str) -> None:
    assert parse_native(text) == []


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ('<tool_call>{"name": "f", "arguments": {"a": 1}</tool_call>', "unparsable"),
        ('<tool_call>{"name": "f", "arguments": [1]}</tool_call>', "unparsable"),
        ('<tool_call>{"name": 3}</tool_call>', "unparsable"),
        ("[sorry]", "no-call"),
        ('{"name": "f", "arguments": {"a": 1}}', "pass"),
        ('{"name": "f", "arguments": {"a": "1"}}', "wrong-type"),
        ('{"name": "f", "arguments": {"a": 2}}', "wrong-value"),
        ('{"name": "f", "arguments": {}}', "missing-parameter"),
        ('{"name": "f", "arguments": {"a": 1, "b": 1}}', "unknown-parameter"),
        ('{"name": "g", "arguments": {"a": 1}}', "wrong-function"),
        ('[{"name": "f", "arguments": {"a": 1}}, {"name": "f", "arguments": {"a": 1}}]', "extra-call"),
    ],
)
def test_native_calls_are_checked_by_the_same_rules(text: str, outcome: str) -> None:
    document = {
        "name": "f",
        "parameters": {"type": "dict", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
    }
    assert check_calls([document], [{"f": {"a": [1]}}], parse_native(text)).outcome == outcome


@pytest.mark.parametrize("category", ANSWERED[:4])
def test_gold_calls_in_json_get_the_verdict_of_gold_calls_in_python(category: str) -> None:
    bad = []
    for row in rows_of(category):
        calls = gold_calls(row["function"], row["ground_truth"])
        text = json.dumps([{"name": call.name, "arguments": call.arguments} for call in calls])
        bad += [row["id"]] * (not check_calls(row["function"], row["ground_truth"], parse_native(text)).passed)
    assert bad == load_suite("tool_use").tasks[category].known_bad


def test_documents_become_json_schemas_and_stay_as_they_are_otherwise() -> None:
    inner = {
        "type": "dict",
        "properties": {"type": {"type": "float"}, "items": {"type": "tuple", "items": {"type": "any"}}},
    }
    document = {"name": "f", "description": "d", "parameters": {**inner, "required": ["type"]}}
    before = json.dumps(document)
    (tool,) = as_tools([document])
    assert tool["type"] == "function" and tool["function"]["name"] == "f"
    assert tool["function"]["parameters"] == {
        "type": "object",
        "properties": {"type": {"type": "number"}, "items": {"type": "array", "items": {"type": "string"}}},
        "required": ["type"],
    }
    assert json.dumps(document) == before


@pytest.mark.parametrize("category", CATEGORIES)
def test_no_schema_keeps_a_type_that_json_schema_does_not_have(category: str) -> None:
    known = {"object", "array", "string", "number", "integer", "boolean", "null"}

    def types(schema: dict[str, Any]) -> set[str]:
        inner = [*(schema.get("properties") or {}).values(), *(v for k in ("items",) if (v := schema.get(k)))]
        return {schema["type"]}.union(*(types(each) for each in inner))

    for row in rows_of(category):
        for tool in as_tools(row["function"]):
            assert types(tool["function"]["parameters"]) <= known


@pytest.mark.parametrize("name", NATIVE)
def test_native_tasks_give_the_template_the_tools_and_say_nothing_of_them_themselves(name: str) -> None:
    for request in build_requests(task_of(name)):
        assert request.tools and request.messages
        names = [tool["function"]["name"] for tool in request.tools]
        assert all("." not in each for each in names)
        assert [m["role"] for m in request.messages] == ["user"]


def test_a_request_without_tools_has_the_key_it_always_had_and_one_with_them_another() -> None:
    said = ({"role": "user", "content": "Go."},)
    plain = Request(messages=said)
    assert plain.key == "52d70992c01e80ea1d88d0a1"
    assert Request(messages=said, tools=({"type": "function"},)).key != plain.key


def test_tools_reach_the_template_and_change_nothing_where_there_are_none(tiny_model: Path) -> None:
    prompts = Prompts(tiny_model, 100_000)
    (request,) = build_requests(task_of("simple_python_native"))[:1]
    bare = prompts.encode(request.but(tools=()))
    prompts.tokenizer.chat_template = "{% if tools %}{{ tools[0].function.name }}{% endif %}" + TEMPLATE
    assert prompts.encode(request.but(tools=())) == bare
    name = request.tools[0]["function"]["name"]
    assert prompts.tokenizer.decode(prompts.encode(request)).startswith(name)


def with_template(model: Path, folder: Path, template: str) -> Path:
    folder.mkdir()
    for file in model.iterdir():
        (folder / file.name).symlink_to(file)
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    (folder / "chat_template.jinja").write_text(template)
    return folder


@pytest.mark.parametrize(
    ("template", "shown"),
    [
        (TEMPLATE, False),
        ("{% if tools %}{{ tools | tojson(indent=4) }}{% endif %}" + TEMPLATE, True),
        ("{% if tools %}{{ raise_exception('no tools') }}{% endif %}" + TEMPLATE, False),
        (
            "{{ strftime_now('%Y') }}{% for m in messages %}{% generation %}{{ m }}{% endgeneration %}{% endfor %}",
            False,
        ),
        ("{{ no_such_function() }}", True),
    ],
)
def test_whether_a_template_shows_tools_is_found_by_rendering_it(
    tiny_model: Path, tmp_path: Path, template: str, shown: bool
) -> None:
    assert shows_tools(find_model(str(with_template(tiny_model, tmp_path / "m", template)))) is shown


def plan(folder: Path, model: Path, tasks: str) -> None:
    path = folder / "matrix.yaml"
    path.write_text(
        f"version: 1\nname: n\nmodels: {{mine: {model}}}\nmethods: {{base: {{}}}}\nbaseline: base\n"
        f"suites: {{tool_use: {{tasks: {tasks}, limit: 2}}}}\n"
    )
    make_plan(load_matrix(path), Where())


def test_native_tasks_are_refused_while_planning_where_the_template_shows_no_tools(
    tiny_model: Path, tmp_path: Path
) -> None:
    with pytest.raises(HarnessError) as refused:
        plan(tmp_path, tiny_model, "[simple_python, irrelevance_native, parallel_native]")
    text = str(refused.value)
    assert "`mine`" in text and "`irrelevance_native`, `parallel_native`" in text
    assert "with and without tools" in text and "`irrelevance`" in text
    plan(tmp_path, tiny_model, "[simple_python]")
    able = with_template(tiny_model, tmp_path / "able", "{{ tools }}" + TEMPLATE)
    plan(tmp_path, able, "[simple_python, irrelevance_native]")


def test_a_task_that_offers_tools_must_be_a_conversation(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    body = "name: mine\ntasks:\n  t: {version: 1, lm_eval: cola, regime: r, chat: false, tools: tools, metric: acc, "
    path.write_text(body + "chance: 0.5, licence: none}\n")
    with pytest.raises(HarnessError, match="offers tools"):
        load_suite(str(path))
