"""URIAL: the prompt to the character, what is taken off an answer, and a cell that nothing is trained for."""

from __future__ import annotations

import hashlib
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import harness.engines
from harness import methods
from harness.engines.base import Request, Response
from harness.engines.fake import FakeEngine
from harness.engines.prompts import Prompts
from harness.errors import HarnessError, Problems, Refused
from harness.matrix import load_matrix
from harness.methods.base_model import BaseModel
from harness.methods.urial import STOPS, URIAL
from harness.methods.urial_examples import EXAMPLES, HELPFUL, INSTRUCTION
from harness.planning.plan import Where, make_plan
from harness.steps import Bench, run_generate
from harness.steps.responses import answered, prompted
from harness.store import Store

BARE = {"examples": 0, "instruction": False}


def asks(text: str, **more: Any) -> Request:
    return Request(messages=({"role": "user", "content": text},), **more)


def sent(method: URIAL, request: Request) -> Request:
    return prompted((method,), request)[-1]


# --- identity: an empty prompt is the base --------------------------------------------------------------------------
@pytest.mark.parametrize(
    "request_",
    [asks("hi", stop=("\n",)), Request(text="2 + 2 =", kind="choose", choices=(" 4", " 5")), Request(text="x")],
    ids=["conversation", "choice", "text"],
)
def test_the_empty_prompt_is_the_base_to_the_key(request_: Request) -> None:
    nothing = URIAL(**BARE, template="chat")
    assert sent(nothing, request_) is request_
    said = Response(request_.key, "  ```\ncode <|endoftext|> # Query:\n")
    assert answered((nothing,), request_, said) == answered((BaseModel(),), request_, said) == said


def test_without_text_and_exchanges_the_fences_are_left() -> None:
    assert sent(URIAL(**BARE), asks("hi")).text == "\n# Query:\n```\nhi\n```\n\n# Answer:\n```\n"


# --- the prompt -----------------------------------------------------------------------------------------------------
def test_the_prompt_is_the_instruction_the_exchanges_and_the_open_answer() -> None:
    request = sent(URIAL(examples=1), asks("hi", stop=("\n\n\n",)))
    first = EXAMPLES[0]
    assert request.messages is None
    assert request.text == (
        f"# Instruction\n{INSTRUCTION}\n"
        f"\n# Query:\n```\n{first.query}\n```\n\n# Answer:\n```\n{first.styled}\n```\n"
        "\n# Query:\n```\nhi\n```\n\n# Answer:\n```\n"
    )
    assert request.stop == ("\n\n\n", *STOPS)
    assert STOPS == ("# Query", "# User")


def test_all_questions_share_their_first_tokens(tiny_model: Path) -> None:
    prompts, queries = Prompts(tiny_model, 10**6), ["hi", "What is 2 + 2?", "```\n# Query:\n```"]
    ids = [prompts.encode(sent(URIAL(), asks(q))) for q in queries]
    constant = prompts.encode(Request(text=sent(URIAL(), asks("")).text.removesuffix("\n```\n\n# Answer:\n```\n")))
    assert all(one[: len(constant)] == constant for one in ids)
    assert len({tuple(one) for one in ids}) == 3


@pytest.mark.parametrize("style", ["styled", "help", "plain"])
def test_more_exchanges_are_longer_and_begin_with_the_fewer(style: str) -> None:
    texts = [sent(URIAL(examples=k, style=style), asks("hi")).text for k in (0, 1, 3, 8)]
    heads = [text.removesuffix("\n# Query:\n```\nhi\n```\n\n# Answer:\n```\n") for text in texts]
    assert all(b.startswith(a) and len(b) > len(a) for a, b in pairwise(heads))
    assert [head.count("# Answer:\n```\n") for head in heads] == [0, 1, 3, 8]


def test_styles_share_their_questions_and_help_asks_a_word_problem_instead_of_refusing() -> None:
    assert [e.query for e in EXAMPLES if e not in HELPFUL] == [EXAMPLES[1].query]
    plain, styled = (sent(URIAL(style=style), asks("hi")).text for style in ("plain", "styled"))
    assert all(e.query in plain and e.query in styled for e in EXAMPLES[:3])
    assert len(plain) < len(styled)
    assert 12 * 15 - 47 == 133 and "133" in HELPFUL[1].styled and "133" in HELPFUL[1].plain


def test_the_constant_text_is_that_of_this_version() -> None:
    """Who changes a word raises `version`: keys of answers hold the version and not the text."""
    whole = json.dumps([INSTRUCTION, EXAMPLES, HELPFUL[1]])
    assert (URIAL.version, hashlib.sha256(whole.encode()).hexdigest()[:16]) == (1, "9c18ba7b3356f7c9")


def test_no_exchange_contains_what_would_break_the_form() -> None:
    for example in (*EXAMPLES, HELPFUL[1]):
        assert all(text == text.strip() and "```" not in text and "# " not in text for text in example)


def test_earlier_turns_follow_and_a_system_turn_joins_its_question() -> None:
    said = [("system", "Be brief."), ("user", "one"), ("assistant", "two"), ("user", "three")]
    request = Request(messages=tuple({"role": r, "content": c} for r, c in said))
    text = sent(URIAL(**BARE), request).text
    assert text == (
        "\n# Query:\n```\nBe brief.\n\none\n```\n\n# Answer:\n```\ntwo\n```\n"
        "\n# Query:\n```\nthree\n```\n\n# Answer:\n```\n"
    )
    chat = sent(URIAL(template="chat", examples=1), request).messages or ()
    assert [m["role"] for m in chat] == ["system", "user", "assistant", "user", "assistant", "user"]
    assert chat[0]["content"] == f"{INSTRUCTION}\n\nBe brief."


def test_a_text_is_the_question_and_choices_follow_the_open_answer(tiny_model: Path) -> None:
    request = Request(text="2 + 2 =", prefix="So", kind="choose", choices=(" 4", " 5"))
    made = sent(URIAL(**BARE), request)
    assert made.text == "\n# Query:\n```\n2 + 2 =\n```\n\n# Answer:\n```\n"
    assert (made.prefix, made.choices, made.stop) == ("So", (" 4", " 5"), ())
    assert all(choice for _, choice in Prompts(tiny_model, 10**6).pairs(made))


def test_tools_are_refused_by_the_plain_text_only() -> None:
    request = asks("hi", tools=({"name": "f"},))
    with pytest.raises(Refused, match="cannot show a model the tools"):
        sent(URIAL(), request)
    assert sent(URIAL(template="chat"), request).tools == request.tools


# --- the answer -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("ok\n```\n\n# Query:\n```\nmore", "ok"),
        ("  ok<|endoftext|>", "ok"),
        ("a\n# User: b", "a"),
        ("see ```x = 1``` there\n```\n", "see x = 1 there"),
        ("# Qu```ery", ""),
        ("", ""),
    ],
)
def test_fences_ends_and_what_follows_are_taken_off_once_and_for_all(text: str, wanted: str) -> None:
    request, method = sent(URIAL(), asks("hi")), URIAL()
    assert method.answer(text, request, None) == wanted
    assert method.answer(wanted, request, None) == wanted


def test_code_may_keep_its_fences_up_to_the_one_that_closes_the_answer() -> None:
    method = URIAL(keep_fences=True)
    block = "Here:\n```python\nx = 1\n```\nDone."
    for tail in ("\n```\n\n# Query:\n```\nmore", "", "\n```"):
        assert method.answer(block + tail, asks("hi"), None) == block
    assert method.answer("    return x\n```\nmore", asks("hi"), None) == "    return x"
    assert method.answer(block, asks("hi"), None) == block


# --- a cell of it ---------------------------------------------------------------------------------------------------
MATRIX = """
version: 1
name: small
models: {{tiny: {model}}}
methods: {methods}
seeds: 2
suites:
  math: {{tasks: [made_word_problems], limit: 4, made: true}}
engine: {{name: fake, max_model_len: {context}}}
"""


def plan_of(folder: Path, model: Path, chosen: str, context: int = 4096) -> Any:
    file = folder / "small.yaml"
    file.write_text(MATRIX.format(model=model, methods=chosen, context=context))
    return make_plan(load_matrix(file), Where())


def test_a_cell_has_no_data_no_seed_and_no_training_and_asks_the_base(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of(tmp_path, tiny_model, "{base: {}, urial: {grid: {urial.examples: [0, 3]}}}")
    assert [c.name for c in plan.cells] == ["tiny.base", "tiny.urial[examples=0]", "tiny.urial[examples=3]"]
    base, bare, cell = plan.cells
    assert (
        not cell.train and cell.data is None and cell.cell.seed is None and cell.flags[0].startswith("urial_reauthored")
    )
    asked = [c.tasks[0].generate.identity for c in plan.cells]
    assert len({c.tasks[0].generate.key for c in plan.cells}) == 3
    assert {one["artifact"] for one in asked} == {base.model.digest}
    assert [one.get("prompts") and one["prompts"][0][2]["examples"] for one in asked] == [None, 0, 3]

    engine = FakeEngine(answer=lambda request, artifact: "So 7.\n```\n\n# Query:\n")
    monkeypatch.setattr(harness.engines, "make", lambda name: engine)
    bench = Bench(plan, Store(tmp_path / "store"), lambda *_: None)
    assert run_generate(bench, plan.cells) == 0
    assert {d for kind, d in engine.calls if kind == "activate"} == {base.model.digest}
    file = bench.finished("generate", cell.tasks[0].generate.key).path / "responses.jsonl"
    said = {json.loads(line).get("text") for line in file.read_text().splitlines()}
    assert said == {"So 7.\n```\n\n"}, "stored as said, cut at the stop; `answer` acts when it is scored"
    assert bare.tasks[0].score.identity["answers"] != cell.tasks[0].score.identity["answers"]


def test_it_serves_a_model_without_a_chat_template_where_the_base_cannot_be_asked(
    tmp_path: Path, tiny_model_without_template: Path
) -> None:
    plan = plan_of(tmp_path, tiny_model_without_template, "{urial: {stack: [urial: {examples: 0}]}}", 512)
    assert [c.name for c in plan.cells] == ["tiny.urial"]
    for chosen in (
        "{urial: {stack: [urial: {examples: 0}]}, base: {}}",
        "{urial: {stack: [urial: {template: chat, examples: 0}]}}",
    ):
        with pytest.raises(Problems, match="model `tiny` has no chat template"):
            plan_of(tmp_path, tiny_model_without_template, chosen, 512)


def test_what_would_do_nothing_or_cannot_be_is_refused(tmp_path: Path, tiny_model: Path) -> None:
    with pytest.raises(HarnessError, match="`urial` trains nothing, so its `train` would do nothing"):
        plan_of(tmp_path, tiny_model, "{urial: {train: {lr: 1}}}")
    with pytest.raises(Refused, match="`urial` does not train and cannot be stacked"):
        methods.build((("urial", {}), ("lora", {})))
    with pytest.raises(HarnessError, match="parameter `examples`"):
        methods.build((("urial", {"examples": 9}),))
