"""What of a test set occurs in a training set: each rule on texts made for it, and the known overlaps of real sets."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from harness.data.chat import to_rows
from harness.data.files import read
from harness.evaluation.contamination import IN_A_ROW, LONG_GRAM, SHORT_GRAM, Item, Overlap, overlap
from harness.matrix.schema import DataEntry

Row = dict[str, Any]
QUESTION = "A farmer has twelve brown hens and four white geese; how many feet do all of the birds have together?"
ANSWER = "Twelve hens and four geese are sixteen birds. Every bird has two feet. The birds have 32 feet together."


def said(question: str, answer: str, name: str = "0") -> Row:
    return {"id": name, "messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def rules(found: Overlap, side: str, name: str = "a") -> tuple[str, ...]:
    item = found.items.get(name)
    hit = getattr(item, side) if item else None
    return hit.rules if hit else ()


def compare(train: Sequence[Row], question: str = QUESTION, answer: str = "32") -> Overlap:
    return overlap(train, [Item("a", question, answer)])


def test_nothing_in_common_is_no_overlap() -> None:
    found = compare([said("What is the capital of France?", "It is Paris, on the Seine.")], QUESTION, ANSWER)
    assert not found.items and not found.marked and found.share == 0.0
    assert found.summary() == {"of": 1} | {k: 0 for k in found.summary() if k != "of"}
    assert overlap([], []).share == 0.0


@pytest.mark.parametrize(
    "text", [QUESTION, QUESTION.upper(), f"  {QUESTION.replace(' ', chr(10))}!!", QUESTION.replace(";", " -")]
)
def test_case_spaces_and_marks_do_not_hide_an_exact_match(text: str) -> None:
    found = compare([said("Hello.", "Hi."), said(text, "no", "seven")])
    assert rules(found, "question") == ("exact", LONG_GRAM, IN_A_ROW)
    assert found.items["a"].question and found.items["a"].question.row == "seven"
    assert found.items["a"].answer is None and found.marked


def test_question_and_answer_are_looked_for_apart_and_in_every_turn() -> None:
    found = compare([said("Solve it.", QUESTION, "q"), said(ANSWER, "Yes.", "a")], QUESTION, ANSWER)
    item = found.items["a"]
    assert item.question and item.answer and (item.question.row, item.answer.row) == ("q", "a")
    assert {k: v for k, v in found.summary().items() if k in ("of", "items", "question", "answer")} == {
        "of": 1,
        "items": 1,
        "question": 1,
        "answer": 1,
    }


WORDS = [f"w{n}" for n in range(40)]


@pytest.mark.parametrize(("run", "expected"), [(13, (LONG_GRAM,)), (12, ())])
def test_thirteen_words_in_a_row_are_an_overlap_and_twelve_are_not(run: int, expected: tuple[str, ...]) -> None:
    found = compare([said(" ".join(["x", *WORDS[5 : 5 + run], "y"]), "-")], " ".join(WORDS))
    assert rules(found, "question") == expected


@pytest.mark.parametrize(("length", "run", "expected"), [(12, 8, (SHORT_GRAM,)), (12, 7, ()), (13, 12, ()), (7, 6, ())])
def test_a_short_text_overlaps_by_eight_words(length: int, run: int, expected: tuple[str, ...]) -> None:
    found = compare([said(" ".join(["x", *WORDS[:run], "y"]), "-")], " ".join(WORDS[:length]))
    assert rules(found, "question") == expected


@pytest.mark.parametrize("start", range(0, 60, 7))
@pytest.mark.parametrize(("length", "expected"), [(50, (IN_A_ROW,)), (49, ())])
def test_fifty_characters_in_a_row_are_an_overlap_and_fewer_are_not(
    start: int, length: int, expected: tuple[str, ...]
) -> None:
    text = "".join(random.Random(0).choice("abcdefgh") for _ in range(120))
    found = compare([said("Q" + text[start : start + length] + "Z", "-")], text)
    assert rules(found, "question") == expected


def test_a_stretch_is_found_in_a_later_place_although_its_middle_was_seen_before() -> None:
    text = "".join(random.Random(1).choice("abcdefgh") for _ in range(75))
    train = [said("X" * 30 + text[25:50] + "Y" * 30, "-"), said("Z" + text + "Z", "-", "whole")]
    found = overlap(train, [Item("a", text, ""), Item("b", text + "other", "")])
    assert [f.question and f.question.row for f in found.items.values()] == ["whole", "whole"]


def test_short_answers_are_not_looked_for_but_short_questions_are_in_whole() -> None:
    found = compare([said("a fine film", "32"), said("QUITE GOOD !", "yes")], "quite good", "32")
    assert rules(found, "question") == ("exact",) and rules(found, "answer") == ()
    assert not compare([said("it is quite good", "32")], "quite good").items


def test_words_that_belong_to_the_task_are_not_looked_for() -> None:
    primer = "Q: How does a telescope work?\nA: It uses lenses to focus light and to make things appear nearer.\n\nQ: "
    asked = ["Who built the bridge over the wide river?", "Why do cats purr at night in the garden?"]
    items = [Item(str(n), f"{primer}{question}\nAnswer in one word:", "-") for n, question in enumerate(asked)]
    assert not overlap([said(primer, "Answer in one word:")], items).items
    found = overlap([said(asked[1], "-")], items)
    assert list(found.items) == ["1"] and rules(found, "question", "1")[0] == "exact"


def test_system_turns_and_turns_without_text_are_passed_over() -> None:
    row = {
        "messages": [{"role": "system", "content": QUESTION}, {"role": "assistant", "content": None, "tool_calls": []}]
    }
    assert not compare([row]).items
    nameless = {"messages": [{"role": "user", "content": QUESTION}]}
    hit = compare([row, nameless]).items["a"].question
    assert hit and hit.row == "1"


def test_a_mark_is_set_above_one_percent() -> None:
    items = [Item(str(n), f"{QUESTION} {n}" if n < 2 else f"unlike {n}", "-") for n in range(200)]
    assert not overlap([said(f"{QUESTION} 0", "-")], [*items[:1], *items[2:101]]).marked
    assert overlap([said(f"{QUESTION} 0", "-")], items[:150]).marked


def test_the_order_of_training_rows_decides_only_which_is_named() -> None:
    items = [Item("a", QUESTION, ANSWER), Item("b", "What is a hen, and where does it live in the winter?", ANSWER)]
    train = [said(QUESTION, ANSWER, "1"), said(ANSWER, "x", "2"), said("Hello", QUESTION[:70], "3")]
    one, other = overlap(train, items), overlap(train[::-1], items)
    assert overlap(train, items) == one and one.summary() == other.summary()


@pytest.mark.parametrize("text", ["", "\x00\ud800", "!" * 50_000, "a" * 200_000, "a " * 100_000, "ab " * 50_000])
def test_odd_texts_are_compared_in_a_moment(text: str) -> None:
    started = time.process_time()
    overlap([said(text, text)] * 3, [Item("a", text, text), Item("b", text + "x", QUESTION)])
    assert time.process_time() - started < 5


def real(mirror: Path, path: str, **reading: Any) -> list[Row]:
    return to_rows(list(read(mirror / path)), DataEntry(source="mirror:x", **reading))


def test_the_five_problems_of_math500_among_the_cot_samples_are_found(mirror: Path) -> None:
    train = real(mirror, "math/math_cot_samples/test.jsonl", prompt="{question}", answer="{gt_cot}")
    problems = list(read(mirror / "math/math500/test.jsonl"))
    found = overlap(train, [Item(r["unique_id"], r["problem"], r["solution"]) for r in problems])
    both = [
        f
        for f in found.items.values()
        if f.question and f.answer and "exact" in {*f.question.rules} & {*f.answer.rules}
    ]
    assert len(both) == 5 and found.of == 500


def test_the_one_sentence_of_sst2_in_both_sets_is_found(mirror: Path) -> None:
    train = real(mirror, "glue/sst2/train.jsonl", prompt="{sentence}", answer="{label}")
    held_out = list(read(mirror / "glue/sst2/validation.jsonl"))
    found = overlap(train, [Item(str(n), r["sentence"], str(r["label"])) for n, r in enumerate(held_out)])
    ((name, _),) = found.items.items()
    again = held_out[int(name)]["sentence"].rstrip(" .?!")
    assert again in {r["sentence"].rstrip(" .?!") for r in train}
    assert found.summary()["question: exact"] == 1 and not found.marked


def test_tasks_of_mbpp_are_found_in_mbpp_plus_unless_reworded(mirror: Path) -> None:
    source = {str(r["task_id"]): r for r in read(mirror / "code/mbpp/train.jsonl")}
    train = real(mirror, "code/mbpp/train.jsonl", prompt="{text}", answer="{code}")
    plus = {r["task_id"].removeprefix("Mbpp/"): r for r in read(mirror / "code/mbpp_plus/test.jsonl")}
    found = overlap(train, [Item(name, r["prompt"], r["canonical_solution"]) for name, r in plus.items()])
    shared = plus.keys() & source.keys()
    kept = {name for name in shared if " ".join(source[name]["text"].split()).rstrip(".") in plus[name]["prompt"]}
    assert len(shared) == 111 and len(kept) > 40 and found.marked
    missed = kept - found.items.keys()
    assert all(len(source[name]["text"].rstrip(".")) < 50 for name in missed) and len(missed) < 3


def test_five_thousand_training_rows_take_seconds(mirror: Path) -> None:
    train = real(mirror, "math/gsm8k/train.jsonl.gz")[:5000]
    items = [Item(str(n), r["question"], r["answer"]) for n, r in enumerate(read(mirror / "math/gsm8k/test.jsonl"))]
    started = time.process_time()
    found = overlap(train, items)
    assert time.process_time() - started < 5
    assert found.of == 1319 and "question: exact" in found.summary() and found.summary()["question: exact"] == 0
