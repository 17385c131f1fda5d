"""The tool-use suite: the board's verdicts on every item, API-Bank, ToolAlpaca, and a verdict on any text."""

from __future__ import annotations

import functools
import gzip
import json
import time
from pathlib import Path
from typing import Any

import pytest

from harness.engines.base import Response
from harness.evaluation import api_bank, tool_alpaca
from harness.evaluation.lm import build_requests, score
from harness.evaluation.suite import choose_tasks, load_suite
from harness.evaluation.tool_answers import check_calls, check_no_call, check_some_call
from harness.evaluation.tool_calls import Unparsable, parse_bracketed, parse_calls
from harness.evaluation.tool_formats import parse_native
from tests.bfcl_answers import ANSWERED, CATEGORIES, WHETHER, answers, fingerprint, ours, rows_of

JUNK = {
    "empty": "",
    "a megabyte": "[f(a='" + "x" * 1_000_000 + "')]",
    "a megabyte of blocks": "<tool_call>" * 90_000,
    "brackets": "[f(" * 30_000,
    "nested": '{"name": "f", "arguments": ' + '{"a": ' * 10_000 + "1" + "}" * 10_001,
    "nested less": '{"name": "f", "arguments": {"a": ' + "[" * 900 + "]" * 900 + "}}",
    "nested action": "Action: f\nAction Input: " + '{"a": ' * 10_000,
    "nested action less": 'Action: f\nAction Input: {"a": ' + "[" * 900 + "]" * 900 + "}",
    "surrogates": '<tool_call>{"name": "\\ud800", "arguments": {"\\udfff": "\ud800"}}</tool_call>',
    "surrogates raw": "[f(a='\ud800')]",
    "nan": '{"name": "f", "arguments": {"a": NaN, "b": 1e999, "c": ' + "9" * 5000 + "}}",
    "nan action": 'Action: f\nAction Input: {"a": NaN, "b": -Infinity}',
    "binary": "\x00\xff\x1b[31m" * 100,
    "no name": '{"arguments": {}}',
    "a list of nothing": "[TOOL_CALLS][[], {}]",
}


@functools.cache
def verdicts() -> dict[str, dict[str, list[str]]]:
    """Of bfcl-eval, by category and item: the fingerprint of the answers, and 0 or 1 for each."""
    path = Path(__file__).with_name("bfcl_verdicts.json.gz")
    kept: dict[str, dict[str, list[str]]] = json.loads(gzip.decompress(path.read_bytes()))["verdicts"]
    return kept


@pytest.mark.parametrize("category", CATEGORIES)
def test_every_item_gets_the_boards_verdict_on_its_gold_answer_and_on_changes_of_it(category: str) -> None:
    wrong = []
    for row in rows_of(category):
        made = list(answers(category, row))
        texts = [text for _, text in made]
        mark, theirs = verdicts()[category][row["id"]]
        assert mark == fingerprint(texts), (
            "other answers than those that upstream judged: run benchmarks/bfcl_parity.py"
        )
        assert len(made) >= 6
        wrong += [
            (row["id"], how)
            for (how, text), t in zip(made, theirs, strict=True)
            if ours(category, row, text).passed != (t == "1")
        ]
    assert wrong == []
    assert verdicts()[category].keys() == {row["id"] for row in rows_of(category)}


def test_the_items_whose_gold_answer_fails_upstream_are_the_suites_known_bad() -> None:
    suite = load_suite("tool_use")
    for category in ANSWERED:
        bad = [name for name, (_, bits) in verdicts()[category].items() if bits[0] == "0"]
        assert bad == suite.tasks[category].known_bad
        assert f"{category}_native" not in suite.tasks or bad == suite.tasks[f"{category}_native"].known_bad


def test_whole_categories_are_at_hand_and_the_subsets_mean_is_over_those_with_one_right_answer() -> None:
    suite = load_suite("tool_use")
    assert suite.means["bfcl-python-subset"] == list(ANSWERED[:4])
    assert [name for name, form in suite.tasks.items() if form.headline] == list(ANSWERED[:4])
    for category in CATEGORIES:
        task = choose_tasks(suite, only=[category])[0][0]
        assert task.rows == task.form.published == len(rows_of(category))
        assert task.form.sampling and task.form.sampling.temperature == 0
        assert task.form.extra is category.startswith("live_")


def test_the_mirrors_categories_are_the_packages(mirror: Path) -> None:
    for category in ("multiple", "parallel", "irrelevance"):
        with (mirror / "tool_use" / "bfcl_v4" / f"{category}.jsonl").open(encoding="utf-8") as f:
            assert [json.loads(line) for line in f] == rows_of(category)


def test_api_bank_asks_for_each_call_after_what_was_said_before_it(mirror: Path) -> None:
    for name, calls in {"api_bank_level1": 389, "api_bank_level2": 119}.items():
        task = choose_tasks(load_suite("tool_use"), only=[name], mirror=mirror)[0][0]
        assert task.rows == task.form.published
        with task.source.files[0].open(encoding="utf-8") as f:
            found = [item for line in f for item in api_bank.items(json.loads(line))]
        assert len(found) == calls
        for item in found:
            assert f"\nAPI: [{item['call']['name']}" not in item["request"].split("\nThe API call")[1]
            if name == "api_bank_level1":
                shown = [json.loads(line) for line in item["system"].split("a line:\n")[1].splitlines()]
                (document,) = [d for d in shown if d["name"] == item["call"]["name"]]
                assert item["call"]["arguments"].keys() <= document["parameters"].keys()


DIALOGUE = {
    "id": "d",
    "level": 1,
    "dialogue": [
        {"role": "User", "text": "Wake me at 7 on 1 May. I am ann, password x."},
        {
            "role": "API",
            "api_name": "GetUserToken",
            "param_dict": {"username": "ann", "password": "x"},
            "result": {"output": {"token": "t1"}},
        },
        {
            "role": "API",
            "api_name": "AddAlarm",
            "param_dict": {"token": "t1", "time": "2023-05-01 07:00:00"},
            "result": {"output": "success"},
        },
    ],
}


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("[AddAlarm(token='t1', time='2023-05-01 07:00:00')]", "pass"),
        ("API: [AddAlarm(time='2023-05-01  07:00:00', token='T1')]", "pass"),
        ("[AddAlarm(token='t1', time='2023-05-01 08:00:00')]", "wrong-value"),
        ("[AddAlarm(token='t1')]", "missing-parameter"),
        ("[AddAlarm(token='t1', time='2023-05-01 07:00:00', loud=True)]", "unknown-parameter"),
        ("[AddAgenda(token='t1', time='2023-05-01 07:00:00')]", "wrong-function"),
        ("[AddAlarm(token='t1', time='2023-05-01 07:00:00'), AddAlarm()]", "extra-call"),
        ("[AddAlarm(token='t1', time=", "unparsable"),
        ("Done.", "no-call"),
        ("[]", "no-call"),
    ],
)
def test_api_bank_calls_are_compared_by_name_and_all_parameters(text: str, outcome: str) -> None:
    first, second = api_bank.items(DIALOGUE)
    assert "t1" not in first["request"] and "t1" in second["request"]
    assert api_bank.check(second["call"], parse_bracketed(text)).outcome == outcome


def tool(golden: list[list[dict[str, str]]], **more: Any) -> dict[str, Any]:
    described = {"find": "Finds.\nParameters: {}", "components": "#Thing"}
    return {"Name": "T", "Function_Description": described, "Instructions": ["Do."] * len(golden)} | {
        "Golden_Answers": golden,
        **more,
    }


def golden(name: str, body: str) -> dict[str, str]:
    return {"Action": name, "Action_Input": body}


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        ('Action: find\nAction Input: {"q": "Rome", "n": 3}', "pass"),
        ('Thought: hm\nAction: find\nAction Input: {"q": "rome ", "n": "3"}\nObservation: x\nAction: y', "pass"),
        ('Action: find\nAction Input:\n{"q": "Rome", "n": 3.0}', "pass"),
        ('Action: find\nAction Input: {"q": "Oslo", "n": 3}', "wrong-value"),
        ('Action: find\nAction Input: {"q": "Rome"}', "missing-parameter"),
        ('Action: find\nAction Input: {"q": "Rome", "n": 3, "z": 1}', "unknown-parameter"),
        ('Action: seek\nAction Input: {"q": "Rome", "n": 3}', "wrong-function"),
        ("Action: find\nAction Input: Rome", "unparsable"),
        ("Action: find\nAction Input: [1]", "unparsable"),
        ("Action: find", "unparsable"),
        ("I found Rome.", "no-call"),
    ],
)
def test_the_first_action_is_compared_by_name_and_all_parameters(answer: str, outcome: str) -> None:
    (item,) = tool_alpaca.items(tool([[golden("find", '{"q": "Rome", "n": 3}')]]))
    assert "components" not in item["system"] and "getDetails" in item["system"]
    assert tool_alpaca.check(item["accepted"], answer).outcome == outcome


@pytest.mark.parametrize(
    ("calls", "answer", "passes"),
    [
        ([("find", '{"q": "a"}'), ("find", '{"q": "b"}')], '{"q": "b"}', True),
        ([("find", '{"q": "a"}'), ("find", '{"q": ${id from find}}')], '{"q": "b"}', False),
        ([("find", '{"q": ${some day}, "l": [${x}]}')], '{"q": "any", "l": [1]}', False),
        ([("find", '{"q": "${some day}", "l": ${x}}')], '{"q": "any", "l": [1]}', True),
    ],
)
def test_what_only_a_later_result_can_say_is_not_asked_for(
    calls: list[tuple[str, str]], answer: str, passes: bool
) -> None:
    (item,) = tool_alpaca.items(tool([[golden(*call) for call in calls]]))
    assert tool_alpaca.check(item["accepted"], f"Action: find\nAction Input: {answer}").passed is passes


def test_the_wording_of_a_question_to_the_user_is_free_and_masked_keys_are_not_compared() -> None:
    asks, keyed = tool_alpaca.items(
        tool(
            [
                [golden("getDetails", '{"Question":"Which?"}'), golden("find", '{"q": "a"}')],
                [golden("find", '{"key": "75", "q": "a"}')],
            ],
            Authentication={"key": "***"},
        )
    )
    assert tool_alpaca.check(asks["accepted"], 'Action: getDetails\nAction Input: {"Question": "What then?"}').passed
    assert tool_alpaca.check(asks["accepted"], 'Action: find\nAction Input: {"q": "a"}').outcome == "wrong-function"
    for given in ('{"q": "a"}', '{"q": "a", "key": "other"}'):
        assert tool_alpaca.check(keyed["accepted"], f"Action: find\nAction Input: {given}").passed


def test_toolalpaca_has_an_item_for_each_instruction(mirror: Path) -> None:
    for name, instructions, tools in (("toolalpaca_calls", 52, 5), ("toolalpaca_calls_real", 60, 6)):
        task = choose_tasks(load_suite("tool_use"), only=[name], mirror=mirror)[0][0]
        scored = score(task, {q.key: Response(q.key, text="", finish="stop") for q in build_requests(task)})
        assert task.rows == tools and len(scored.samples) == instructions
        assert {s["outcome"] for s in scored.samples} == {"no-call"} and len(
            {s["cluster"] for s in scored.samples}
        ) == tools


@pytest.mark.parametrize("text", JUNK.values(), ids=JUNK)
def test_any_text_gets_a_verdict_in_time(text: str) -> None:
    document = {
        "name": "f",
        "parameters": {"type": "dict", "properties": {"a": {"type": "array", "items": {"type": "any"}}}},
    }
    document["parameters"]["required"] = ["a"]  # type: ignore[index]
    started = time.process_time()
    for read in (parse_calls(text), parse_native(text), parse_bracketed(text)):
        assert isinstance(read, Unparsable | list)
        truth = [{"f": {"a": [["x"]]}}]
        verdicts = [check_calls([document], truth, read), check_some_call(read), check_no_call(read)]
        verdicts.append(api_bank.check({"name": "f", "arguments": {"a": "x"}}, read))
        assert not any(verdict.passed for verdict in (verdicts[0], verdicts[3]))
        for verdict in verdicts:
            assert len(verdict.detail.encode("utf-8")) < 1000
    accepted = [{"name": "f", "arguments": {"a": ["x"]}, "ignored": []}]
    assert not tool_alpaca.check(accepted, text).passed
    assert time.process_time() - started < 3


def test_whether_to_call_is_scored_by_calling() -> None:
    for category in WHETHER:
        for text, calls in (("[f(a=1)]", True), ("[]", False), ("No function does that.", False), ("[f(a=1", False)):
            assert ours(category, rows_of(category)[0], text).passed is (calls == category.endswith("_relevance"))
    outcome = check_no_call(parse_calls("[f(a=1)]"))
    assert outcome.outcome == "extra-call" and "f is called" in outcome.detail
