"""The bridge to lm-eval: right answers score full marks, empty ones nothing, and nothing asks for the network."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.data.sources import pin, rows
from harness.engines.base import Request, Response
from harness.errors import HarnessError
from harness.evaluation.lm import build_requests, chosen_rows, score
from harness.evaluation.suite import Task, choose_tasks, load_suite
from harness.evaluation.tool_answers import as_python, gold_calls
from harness.matrix.schema import DataEntry
from tests.test_instructions import CASES
from tests.test_suites import DEMO

COLUMNS = ["math", "code", "tool_use", "glue", "alignment"]
Oracle = Callable[[dict[str, Any]], str]


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def blocked(*args: object, **kwargs: object) -> None:
        raise AssertionError("something asked for the network")

    for name in ("create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, blocked)
    monkeypatch.setattr(socket.socket, "connect", blocked)


def tasks_of(suite: str, limit: int, mirror: Path | None = None) -> list[Task]:
    return choose_tasks(load_suite(suite), only=DEMO[suite], made=True, limit=limit, mirror=mirror)[0]


def task_named(name: str, limit: int = 8, mirror: Path | None = None) -> Task:
    return next(t for s in COLUMNS for t in tasks_of(s, limit, mirror) if t.name == name)


def gold(task: Task) -> Mapping[str, str | int]:
    """An answer that should be right: a text, or the number of the right choice."""
    oracles: dict[str, Oracle] = {
        "gsm8k": lambda r: r["answer"],
        "made_word_problems": lambda r: r["answer"],
        "humaneval": lambda r: r["canonical_solution"],
        "simple_python": lambda r: as_python(gold_calls(r["function"], r["ground_truth"])),
    }
    answer = oracles.get(task.name, lambda r: r["label"])
    requests = build_requests(task)
    documents = chosen_rows(task)
    assert len(requests) == len(documents)
    return {q.key: answer(row) for q, row in zip(requests, documents, strict=True)}


def answered(request: Request, answer: str | int) -> Response:
    if isinstance(answer, str):
        return Response(request.key, text=answer, finish="stop")
    logprobs = tuple(-1.0 if i == answer else -2.0 for i in range(len(request.choices)))
    return Response(request.key, logprobs=logprobs, greedy=tuple(p == -1.0 for p in logprobs))


def answers(task: Task, right: Mapping[str, str | int]) -> dict[str, Response]:
    return {q.key: answered(q, right[q.key]) for q in build_requests(task)}


def constant(task: Task, answer: str | int) -> dict[str, Response]:
    return {q.key: answered(q, answer) for q in build_requests(task)}


ORACLE = ["made_word_problems", "humaneval", "simple_python", "made_grammar", "made_sentiment"]


@pytest.mark.parametrize("name", ORACLE)
def test_right_answers_score_full_marks(name: str) -> None:
    task = task_named(name)
    scored = score(task, answers(task, gold(task)))
    assert scored.metrics[task.primary] == {"value": 1.0, "n": 8}
    assert {s["outcome"] for s in scored.samples} <= {"right", "pass"}
    assert all(s["scores"][task.primary] == 1.0 for s in scored.samples)


@pytest.mark.parametrize("name", ["gsm8k", "humaneval", "simple_python", "cola", "sst2"])
def test_right_answers_score_full_marks_on_real_data(name: str, mirror: Path) -> None:
    task = task_named(name, 40 if name != "humaneval" else 6, mirror)
    scored = score(task, answers(task, gold(task)))
    assert scored.metrics[task.primary]["value"] == pytest.approx(1.0)


@pytest.mark.parametrize("answer", ["", "I do not know.", "0"])
@pytest.mark.parametrize("suite", ["math", "code", "tool_use"])
def test_empty_and_constant_answers_score_nothing(suite: str, answer: str) -> None:
    for task in tasks_of(suite, 8):
        scored = score(task, constant(task, answer))
        assert scored.metrics[task.primary]["value"] == task.chance == 0.0
        assert {s["outcome"] for s in scored.samples} & {"right", "pass"} == set()


def test_an_empty_answer_follows_no_instruction() -> None:
    (task,) = tasks_of("alignment", 20)
    assert {m["value"] for m in score(task, constant(task, "")).metrics.values()} == {0.0}


@pytest.mark.parametrize("choice", [0, 1])
def test_always_choosing_the_same_scores_at_chance(choice: int) -> None:
    for task in tasks_of("glue", 400):
        metrics = score(task, constant(task, choice)).metrics
        assert metrics["acc"]["value"] == task.chance == 0.5
        assert metrics.get("mcc", {"value": 0.0})["value"] == 0.0


def test_instructions_are_scored_by_prompt_and_by_instruction(tmp_path: Path) -> None:
    documents = [
        {"key": i, "prompt": f"Write. {i}", "instruction_id_list": [name], "kwargs": [kwargs]}
        for i, (name, (kwargs, _, _)) in enumerate(CASES.items())
        if name != "combination:repeat_prompt"
    ]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(d) + "\n" for d in documents))
    task = replace(task_named("made_instructions"), source=pin(f"file:{file}"), limit=None)
    requests = build_requests(task)
    for column, expected in ((1, 1.0), (2, 0.0)):
        said = {
            q.key: Response(q.key, text=str(CASES[d["instruction_id_list"][0]][column]))
            for q, d in zip(requests, documents, strict=True)
        }
        metrics = score(task, said).metrics
        assert metrics["prompt_level_strict_acc"]["value"] == metrics["inst_level_strict_acc"]["value"] == expected


def test_a_number_without_the_format_is_only_flexibly_right() -> None:
    task = task_named("made_word_problems")
    said = {q: f"The answer is {str(a).split('#### ')[1]}." for q, a in gold(task).items()}
    metrics = score(task, answers(task, said)).metrics
    assert (metrics["exact_match,strict"]["value"], metrics["exact_match,flexible"]["value"]) == (0.0, 1.0)


@pytest.mark.parametrize("number", ["$1,200", "1,200", "1200", "  1,200"])
def test_the_form_of_a_number_does_not_matter(number: str, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps({"question": "?", "answer": "So.\n#### 1,200"}) + "\n")
    task = replace(task_named("made_word_problems"), source=pin(f"file:{tmp_path / 'rows.jsonl'}"), limit=None)
    assert score(task, constant(task, f"So\n####{number}")).metrics["exact_match,strict"]["value"] == 1.0


def test_a_corpus_metric_keeps_gold_and_predicted() -> None:
    task = task_named("made_grammar")
    scored = score(task, constant(task, 1))
    assert [s["scores"]["mcc"] for s in scored.samples] == [[r["label"], 1] for r in chosen_rows(task)]


def test_scores_do_not_depend_on_the_order_of_rows_or_answers(tmp_path: Path) -> None:
    task = task_named("made_word_problems", 30)
    documents = chosen_rows(task)
    right = {q: a if i % 3 else "no" for i, (q, a) in enumerate(gold(task).items())}
    by_hash = {s["hash"]: s["scores"] for s in score(task, answers(task, right)).samples}
    file = tmp_path / "reversed.jsonl"
    file.write_text("".join(json.dumps(d) + "\n" for d in reversed(documents)))
    turned = replace(task, source=pin(f"file:{file}"), limit=None)
    said = dict(reversed(answers(turned, right).items()))
    assert {s["hash"]: s["scores"] for s in score(turned, said).samples} == by_hash


def test_missing_answers_are_counted() -> None:
    task = task_named("made_sentiment")
    said = constant(task, 0)
    said.popitem()
    with pytest.raises(HarnessError, match=r"1 of 8 answers of task `made_sentiment` are missing"):
        score(task, said)


def test_a_limit_takes_rows_by_their_content_and_not_the_first(tmp_path: Path) -> None:
    task = task_named("made_word_problems", 20)
    everything, chosen = rows(task.source), chosen_rows(task)
    assert len(chosen) == 20 and chosen != everything[:20]
    assert [r for r in everything if r in chosen] == chosen
    file = tmp_path / "reversed.jsonl"
    file.write_text("".join(json.dumps(d) + "\n" for d in reversed(everything)))
    assert chosen_rows(replace(task, source=pin(f"file:{file}"))) == chosen[::-1]
    assert [r for r in chosen if r in chosen_rows(replace(task, limit=10))] == chosen_rows(replace(task, limit=10))


def test_chat_tasks_ask_conversations_and_others_ask_text() -> None:
    for task in [t for s in COLUMNS for t in tasks_of(s, 3)]:
        for request in build_requests(task):
            assert (request.messages is not None) == task.chat
            assert bool(request.text) != task.chat
            if task.chat:
                assert request.messages and request.messages[-1]["role"] == "user"
            sampling = task.form.sampling
            assert request.kind == ("generate" if sampling else "choose")
            if sampling:
                assert (request.max_tokens, list(request.stop)) == (sampling.max_tokens, sampling.stop)


def test_the_choices_after_one_context_are_one_request() -> None:
    (request, *_) = build_requests(task_named("made_sentiment"))
    assert request.text.endswith("\nAnswer:") and request.choices == (" negative", " positive")


def test_requests_are_the_same_every_time() -> None:
    for name in ("made_word_problems", "simple_python", "made_grammar"):
        assert build_requests(task_named(name)) == build_requests(task_named(name))


def test_a_greedy_request_has_no_seed_and_a_sampled_one_its_own() -> None:
    task = task_named("made_word_problems")
    assert {q.seed for q in build_requests(task)} == {0}
    sampling = {"temperature": 0.7, "max_tokens": 64, "stop": []}
    sampled = replace(task, form=type(task.form)(**{**task.form.model_dump(), "sampling": sampling}))
    assert len({q.seed for q in build_requests(sampled)}) == 8


def own_task(folder: Path, config: str, entry: str, documents: list[dict[str, Any]]) -> Task:
    """A task as a newcomer would add it: a task file, and an entry of a suite file."""
    (folder / "task.yaml").write_text(f"task: mine\ntest_split: test\n{config}")
    (folder / "rows.jsonl").write_text("".join(json.dumps(d) + "\n" for d in documents))
    (folder / "mine.yaml").write_text(
        f"name: mine\ntasks:\n  mine:\n{STATED}    file: task.yaml\n"
        f"    data: [{{source: 'file:{folder / 'rows.jsonl'}'}}]\n{entry}"
    )
    return choose_tasks(load_suite(str(folder / "mine.yaml")))[0][0]


GENERATE = "    metric: exact_match\n    sampling: {temperature: 0.0, max_tokens: 4, stop: ['.']}\n"
STATED = "    version: 1\n    regime: r\n    licence: none\n    chance: 0.0\n"
EXACT = """\
doc_to_text: q
doc_to_target: a
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
"""


def test_a_task_of_ones_own_is_a_file_and_an_entry(tmp_path: Path) -> None:
    task = own_task(tmp_path, EXACT, "    chat: true\n" + GENERATE, [{"q": "a?", "a": "x"}, {"q": "b?", "a": "y"}])
    one, two = build_requests(task)
    said = {one.key: Response(one.key, text="x"), two.key: Response(two.key, text="x")}
    scored = score(task, said)
    assert scored.metrics == {"exact_match": {"value": 0.5, "n": 2}}
    assert [(s["answer"], s["target"], s["outcome"]) for s in scored.samples] == [
        ("x", "x", "right"),
        ("x", "y", "wrong"),
    ]


def test_equal_questions_are_asked_once_and_scored_each(tmp_path: Path) -> None:
    task = own_task(tmp_path, EXACT, "    chat: false\n" + GENERATE, [{"q": "a?", "a": "x"}, {"q": "a?", "a": "y"}])
    (request,) = build_requests(task)
    scored = score(task, {request.key: Response(request.key, text="y")})
    assert scored.metrics["exact_match"] == {"value": 0.5, "n": 2}


def test_the_beginning_of_an_answer_is_a_prefix_of_the_request(tmp_path: Path) -> None:
    config = EXACT + 'gen_prefix: "So:"\n'
    task = own_task(tmp_path, config, "    chat: true\n" + GENERATE, [{"q": "a?", "a": "x"}])
    (request,) = build_requests(task)
    assert request.prefix == "So:" and [m["content"] for m in request.messages or ()] == ["a?"]


def test_a_space_before_the_choices_goes_with_them(tmp_path: Path) -> None:
    config = 'output_type: multiple_choice\ndoc_to_text: "{{q}} "\ntarget_delimiter: ""\ndoc_to_choice: ["no", "yes"]\n'
    config += "doc_to_target: a\nmetric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]\n"
    task = own_task(tmp_path, config, "    chat: false\n    metric: acc\n", [{"q": "a?", "a": 1}])
    (request,) = build_requests(task)
    assert (request.text, request.choices) == ("a?", (" no", " yes"))


@pytest.mark.parametrize("text", ["q", '"{{q}}"'])
def test_rows_that_do_not_suit_a_task_file_are_named(tmp_path: Path, text: str) -> None:
    config = EXACT.replace("doc_to_text: q", f"doc_to_text: {text}")
    task = own_task(tmp_path, config, "    chat: true\n" + GENERATE, [{"question": "a?", "a": "x"}])
    with pytest.raises(HarnessError, match="do not suit task `mine`") as error:
        build_requests(task)
    assert "question, a" in error.value.why


MIRRORED = ["gsm8k", "gsm8k_cot", "mrpc", "rte", "qnli", "truthfulqa_mc1", "truthfulqa_mc2", "asdiv"]


@pytest.mark.parametrize("name", MIRRORED)
def test_tasks_of_lm_eval_run_by_their_name_on_mirrored_data(name: str, mirror: Path, tmp_path: Path) -> None:
    sampling = "    sampling: {temperature: 0.0, max_tokens: 8, stop: []}\n" if name.startswith("gsm") else ""
    metric = "exact_match,strict-match" if sampling else "acc"
    (tmp_path / "s.yaml").write_text(
        f"name: s\ntasks:\n  {name}:\n{STATED}    lm_eval: {name}\n    chat: false\n    metric: '{metric}'\n{sampling}"
    )
    (task,), _ = choose_tasks(load_suite(str(tmp_path / "s.yaml")), limit=4, mirror=mirror)
    requests = build_requests(task)
    assert len(requests) == 4
    scored = score(task, {q.key: answered(q, "" if q.kind == "generate" else 0) for q in requests})
    assert scored.metrics[metric]["n"] == 4 and len(scored.samples) == 4
    if name == "gsm8k":
        assert requests[0].text.count("Question:") == 6  # five worked examples and the question


def test_worked_examples_of_a_chat_task_are_turns(mirror: Path, tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(
        f"name: s\ntasks:\n  gsm8k:\n{STATED}    lm_eval: gsm8k\n"
        "    chat: true\n    shots: 2\n    metric: 'exact_match,strict-match'\n"
        "    sampling: {temperature: 0.0, max_tokens: 8, stop: []}\n"
    )
    (task,), _ = choose_tasks(load_suite(str(tmp_path / "s.yaml")), limit=2, mirror=mirror)
    (request, _) = build_requests(task)
    assert [m["role"] for m in request.messages or ()] == ["user", "assistant"] * 2 + ["user"]


def test_ifeval_is_scored_on_real_prompts(mirror: Path) -> None:
    (task,) = tasks_of("alignment", 30, mirror)
    metrics = score(task, constant(task, "")).metrics
    assert {m["value"] for m in metrics.values()} == {0.0} and len(metrics) == 5


def test_a_source_of_the_wrong_split_is_not_silently_used(mirror: Path) -> None:
    assert (
        pin(DataEntry(source="hub:openai/gsm8k:main", split="train"), mirror=mirror).digest
        != task_named("gsm8k", 8, mirror).source.digest
    )
