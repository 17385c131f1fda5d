"""Math answers: extraction, equality as text, as numbers and as mathematics, and hostile answers."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from harness.engines.base import Request
from harness.evaluation.lm import build_requests, chosen_rows
from harness.evaluation.math_answers import as_latex, boxed, letter, near, number, plain, stated, stated_letter
from harness.evaluation.scorers import math
from harness.evaluation.suite import Task, choose_tasks, load_suite
from harness.evaluation.symbolic import LONGEST, compare

BOXED = [
    (r"so \boxed{42}.", "42"),
    (r"\boxed{\frac{1}{2}} and then \boxed{ \left( 3, \frac{\pi}{2} \right) }", r"\left( 3, \frac{\pi}{2} \right)"),
    (r"\boxed {7}", "7"),
    (r"\fbox{8}", "8"),
    (r"$\boxed{\{1, 2\}}$", r"\{1, 2\}"),
    (r"\boxed{never closed", ""),
    (r"\boxed 5", ""),
    ("no box {1}", ""),
    ("", ""),
]


@pytest.mark.parametrize(("text", "found"), BOXED)
def test_the_last_box_that_is_closed(text: str, found: str) -> None:
    assert boxed(text) == found


STATED = [
    (r"The answer is 5, or rather \boxed{6}.", "6"),
    ("3 + 4 = 7\n#### 7", "7"),
    ("The answer is 12. That was easy.", "12"),
    ("The final answer is: $\\frac{1}{2}$. I hope it is correct.", r"\frac{1}{2}"),
    ("**Answer:** 3.5", "3.5"),
    ("Answer: 3:30 p.m.", "3:30 p.m"),
    ("so $x = 3$, hence $x + 1 = 4$", "x + 1 = 4"),
    (r"hence \(y = 2\).", "y = 2"),
    (r"hence \[z\]", "z"),
    ("She pays $18 and keeps 1,200.", "1,200"),
    ("no idea", ""),
    ("", ""),
]


@pytest.mark.parametrize(("text", "found"), STATED)
def test_what_a_reader_takes_for_the_answer(text: str, found: str) -> None:
    assert stated(text) == found


LETTERS = [
    (r"\boxed{B}", "B"),
    (r"\boxed{\text{(C)}}", "C"),
    (r"\boxed{D) 12}", "D"),
    ("The answer is (E).", "E"),
    ("The answer is A) 5(√3 + 1), not B", "A"),
    ("A man walks. I take B", "B"),
    (r"\boxed{12}", ""),
    ("", ""),
]


@pytest.mark.parametrize(("text", "found"), LETTERS)
def test_the_letter_of_a_choice(text: str, found: str) -> None:
    assert stated_letter(text) == found


def test_a_word_is_no_letter() -> None:
    assert (letter("Apple"), letter("B"), letter("E5")) == ("", "B", "")


SAME_TEXT = [
    ("1,000", "1000"),
    (r"32,\!348", "$32,348"),
    (r"\dfrac12", "0.5"),
    (r"\frac{3}{2}", "3/2"),
    ("-1./3", r"-\frac{1}{3}"),
    ("4.5e33", r"4.5 \times 10^{33}"),
    ("9", "9.00"),
    ("9", "9."),
    ("25", r"25\%"),
    ("90", r"90^\circ"),
    ("45", r"45 \text{ minutes}"),
    ("150", r"150\,\text{cm}^2"),
    (r"\text{Evelyn}", "evelyn"),
    ("The men's track team", "the men's track team"),
    (r"\left( 3, \frac{\pi}{2} \right)", r"(3,\frac{\pi}{2})"),
    ("x = 5", "5"),
    (r"\sqrt2", r"\sqrt{2}"),
    (r"x \leq 2", r"x\le2"),
    ("3:30", "3:30"),
    (".5", r"\tfrac{1}{2}"),
]


@pytest.mark.parametrize(("gold", "answer"), SAME_TEXT)
def test_form_alone_makes_no_difference(gold: str, answer: str) -> None:
    assert plain(gold) == plain(answer)


@pytest.mark.parametrize(
    ("gold", "answer"), [("5", "15"), ("5", ".5"), ("1,2", "12"), ("(1,2)", "(2,1)"), ("x", "y"), ("3:30", "3:31")]
)
def test_other_answers_stay_other(gold: str, answer: str) -> None:
    assert plain(gold) != plain(answer)


def test_numbers_are_exact_and_everything_else_is_none() -> None:
    assert [str(number(t)) for t in ("-7", "1/4", r"-\frac{3}{9}", "2e-3", "1,234.5")] == [
        *("-7", "1/4", "-1/3", "1/500", "2469/2")
    ]
    for text in ("", "x", "1/0", "1,2", "nan", "inf", "1e999", "9" * 300):
        assert number(text) is None


def test_tolerance_is_between_numbers_only() -> None:
    assert near("4.2", r"4.28\%", 0.1) and not near("4.2", "4.31", 0.1)
    assert near("0.0016791648", "0.0017", 1e-3) and not near("east", "east", 1.0)


EQUAL = [
    (r"\frac{1}{2}", "0.5"),
    ("p - q", "-q + p"),
    ("1, 3, 5", "5, 3, 1"),
    ("1, 3, 5", "1, 3 and 5"),
    (r"(-\infty, 2) \cup (3, \infty)", r"(3, \infty) \cup (-\infty, 2)"),
    ("[2, 5)", "[2, 5)"),
    ("(1, 2), (3, 4)", "(3, 4), (1, 2)"),
    (r"\{1, 2\}", r"\{2, 1\}"),
    ("f(x) = x, f(x) = -x", "f(x) = -x, f(x) = x"),
    ("45", r"45\text{ minutes}"),
    ("50", r"50\%"),
    (r"\text{east}", "East"),
    ("x = 5", "5"),
    ("4.5e33", r"4.5 \times 10^{33}"),
    ("-1./3", r"-\frac{1}{3}"),
    (r"np.arcsin(10/13)", r"\arcsin(10/13)"),
    (r"\sqrt{12}", r"2\sqrt{3}"),
    ("6 - 5i", "-5i + 6"),
]
DIFFERENT = [
    ("[2, 5)", "[2, 5]"),
    ("(1, 2)", "(2, 1)"),
    ("1, 3", "1, 3, 5"),
    ("1e-8", "0"),
    ("1e-8", "2e-8"),
    ("0.33", r"\frac{1}{3}"),
    (r"\ln 2", "2"),
    ("2", "3"),
    ("x + 1", "x - 1"),
]


@pytest.mark.parametrize(("gold", "answer"), EQUAL)
def test_equal_as_mathematics(gold: str, answer: str) -> None:
    assert compare(as_latex(gold), as_latex(answer)).passed


@pytest.mark.parametrize(("gold", "answer"), DIFFERENT)
def test_different_as_mathematics(gold: str, answer: str) -> None:
    assert compare(as_latex(gold), as_latex(answer)).outcome == "wrong"


HOSTILE = ["9^{9^{9^{9}}}", "{" * 400 + "1" + "}" * 400, "10^{10^{10}}", "100000000!", r"\binom{10^9}{5 \cdot 10^8}"]


@pytest.mark.parametrize("answer", HOSTILE)
def test_what_takes_for_ever_is_a_timeout_and_the_next_answer_is_judged(answer: str) -> None:
    started = time.monotonic()
    assert compare("42", answer).outcome in ("timeout", "memory", "wrong")
    assert compare("42", f"42.{len(answer)}").outcome == "wrong"
    assert time.monotonic() - started < 30  # three seconds of CPU, on a machine that others use too


JUNK = ["", " ", "\ud800", "\x00\xff\x1b[2J", "nan", "inf", "}" * 900, "{" * 10_000, "\\" * 999, "$" * 999, r"\boxed{"]


@pytest.mark.parametrize("answer", JUNK)
def test_junk_is_a_verdict_with_a_reason(answer: str) -> None:
    verdict = compare("42", as_latex(answer))
    assert not verdict.passed and verdict.detail


def test_an_answer_of_any_length_takes_no_time() -> None:
    started = time.monotonic()
    for part in ("9", r"\boxed{", "$", "answer is ", "{", "\\(", "a\n", "1,"):
        text = part * (1_000_000 // len(part))
        for extract in (boxed, stated, stated_letter):
            assert len(extract(text)) <= 1_000_000
        assert compare("42", as_latex(text)).outcome in ("unread", "wrong")
        assert plain(text) != "42"
    assert time.monotonic() - started < 20


def test_gold_answers_are_shorter_than_the_longest_answer_that_is_read(mirror: Path) -> None:
    golds = [math.gold_olympiadbench(d) for d in chosen_rows(task_named("olympiadbench", None, mirror))]
    golds += [math.gold_ocw_stem(d) for d in chosen_rows(task_named("ocw-stem", None, mirror))]
    assert max(map(len, golds)) < LONGEST / 2 and all(golds)


def task_named(name: str, limit: int | None, mirror: Path) -> Task:
    return choose_tasks(load_suite("math"), only=[name], limit=limit, mirror=mirror)[0][0]


def test_an_answer_outside_the_box_counts_only_flexibly() -> None:
    doc = {"answer": "2 + 2 = 4\n#### 4"}
    strict, flexible = math.in_box([["It is 4."]]), math.as_stated([["It is 4."]])
    assert math.gsm8k(doc, strict[0]) == {
        "exact_match": 0.0,
        "math_verify": 0.0,
        "outcome": "no-answer",
        "why": "no answer in the form that was asked for",
    }
    assert math.gsm8k(doc, flexible[0])["math_verify"] == 1.0


def test_olympiad_answers_have_the_tolerance_that_their_row_states() -> None:
    doc = {"final_answer": ["4.2"], "error": "1e-1", "unit": "%"}
    assert math.olympiadbench(doc, ["4.26"])["math_verify"] == 1.0
    assert math.olympiadbench(doc | {"error": None}, ["4.26"])["math_verify"] == 0.0


def test_minervas_examples_are_asked_in_lm_evals_words(mirror: Path, tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(
        "name: s\ntasks:\n  m:\n    version: 1\n    regime: r\n    licence: none\n    chance: 0.0\n"
        "    lm_eval: minerva_math500\n    chat: false\n    metric: math_verify\n"
        "    sampling: {temperature: 0.0, max_tokens: 1024, stop: ['Problem:']}\n"
    )
    (theirs,), _ = choose_tasks(load_suite(str(tmp_path / "s.yaml")), limit=5, mirror=mirror)
    assert texts(build_requests(theirs)) == texts(build_requests(task_named("math500_base", 5, mirror)))


def texts(requests: list[Request]) -> list[str]:
    return [request.text for request in requests]


def test_the_tulu_regime_shows_eight_worked_examples_as_turns(mirror: Path) -> None:
    (request, *_) = build_requests(task_named("gsm8k_tulu3", 2, mirror))
    assert [m["role"] for m in request.messages or ()] == ["user", "assistant"] * 8 + ["user"]


def test_gsm_hard_shares_prompts_with_gsm8k_and_is_in_no_mean(mirror: Path) -> None:
    theirs = {d["question"] for d in chosen_rows(task_named("gsm8k", None, mirror))}
    hard = task_named("gsm_hard", None, mirror)
    assert sum(d["input"] in theirs for d in chosen_rows(hard)) == 329 and not hard.headline


def test_the_headline_is_gsm8k_and_math500() -> None:
    tasks = load_suite("math").tasks
    assert [n for n, f in tasks.items() if f.headline and f.instead_of is None] == ["gsm8k", "math500"]
