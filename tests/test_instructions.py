"""IFEval's 25 instruction types check an answer offline, with an empty home and no way to the network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TEXT = "The train was late. Dr. Smith waited at the station and read a book about old ships."
CASES: dict[str, tuple[dict[str, object], str, str]] = {
    # instruction id: (its arguments, an answer that follows it, an answer that does not)
    "keywords:existence": ({"keywords": ["river", "bread"]}, "Bread by the river.", TEXT),
    "keywords:frequency": ({"keyword": "river", "frequency": 2, "relation": "at least"}, "A river. Any river.", TEXT),
    "keywords:forbidden_words": ({"forbidden_words": ["river"]}, TEXT, "A river."),
    "keywords:letter_frequency": ({"letter": "z", "let_frequency": 2, "let_relation": "at least"}, "jazz", TEXT),
    "language:response_language": (
        {"language": "de"},
        "Der Zug kam zu spät, deshalb wartete ich lange am Bahnhof und las ein Buch.",
        TEXT,
    ),
    "length_constraints:number_sentences": ({"num_sentences": 3, "relation": "less than"}, TEXT, "One. Two. Three."),
    "length_constraints:number_paragraphs": ({"num_paragraphs": 2}, "One.\n***\nTwo.", TEXT),
    "length_constraints:number_words": ({"num_words": 5, "relation": "less than"}, "Four words are here", TEXT),
    "length_constraints:nth_paragraph_first_word": (
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "then"},
        "First.\n\nThen more.",
        "First.\n\nNow more.",
    ),
    "detectable_content:number_placeholders": ({"num_placeholders": 2}, "Dear [name] of [town]", TEXT),
    "detectable_content:postscript": ({"postscript_marker": "P.S."}, "Yes.\n\nP.S. And no.", TEXT),
    "detectable_format:number_bullet_lists": ({"num_bullets": 2}, "* one\n* two", "* one"),
    "detectable_format:constrained_response": ({}, "My answer is yes.", TEXT),
    "detectable_format:number_highlighted_sections": ({"num_highlights": 1}, "This is *important*.", TEXT),
    "detectable_format:multiple_sections": (
        {"section_spliter": "Section", "num_sections": 2},
        "Section 1\nOne.\nSection 2\nTwo.",
        TEXT,
    ),
    "detectable_format:json_format": ({}, '```json\n{"a": 1}\n```', TEXT),
    "detectable_format:title": ({}, "<<A late train>>\n" + TEXT, TEXT),
    "combination:two_responses": ({}, "One answer.\n******\nAnother answer.", TEXT),
    "combination:repeat_prompt": ({"prompt_to_repeat": "Why?"}, "Why? Because.", "Because."),
    "startend:end_checker": ({"end_phrase": "The end."}, "It was late. The end.", TEXT),
    "change_case:capital_word_frequency": (
        {"capital_frequency": 2, "capital_relation": "at least"},
        "It was VERY LATE.",
        "It was VERY late.",
    ),
    "change_case:english_capital": ({}, TEXT.upper(), TEXT),
    "change_case:english_lowercase": ({}, TEXT.lower(), TEXT),
    "punctuation:no_comma": ({}, TEXT, "Late, again."),
    "startend:quotation": ({}, f'"{TEXT}"', TEXT),
}

AGAIN: dict[str, str] = {  # a second answer that follows it, with the same arguments
    "keywords:existence": "They baked bread, and then they went down to the RIVER.",
    "keywords:frequency": "One river, two rivers; the river again: river.",
    "keywords:forbidden_words": "A stream is small. Riverside houses are expensive.",
    "keywords:letter_frequency": "Zoos amaze lazy zebras.",
    "language:response_language": "Das Wetter ist heute sehr schön, und wir gehen am Nachmittag in den Park.",
    "length_constraints:number_sentences": "Only this one.",
    "length_constraints:number_paragraphs": "A first paragraph.\n\n***\n\nA second paragraph, with more in it.",
    "length_constraints:number_words": "No.",
    "length_constraints:nth_paragraph_first_word": 'It rained.\n\n"Then we left.',
    "detectable_content:number_placeholders": "[date]\nThe undersigned [first name] [last name] agrees.",
    "detectable_content:postscript": "I wrote it all down.\nP. S. Please write back.",
    "detectable_format:number_bullet_lists": "Two of them:\n- milk\n- eggs",
    "detectable_format:constrained_response": "I thought for a while. My answer is maybe.",
    "detectable_format:number_highlighted_sections": "# Title\n**Do this first** and then *that*.",
    "detectable_format:multiple_sections": "Section 1\nThe start.\n\nSection 2\nThe middle.\n\nSection 3\nThe end.",
    "detectable_format:json_format": '[{"name": "train", "late": true}, null]',
    "detectable_format:title": "Here is the poem.\n<<Ode to a train>>\nO train!",
    "combination:two_responses": "Yes, do it.******No, leave it.",
    "combination:repeat_prompt": "why?\n\nNobody knows.",
    "startend:end_checker": '"So it goes. the end."',
    "change_case:capital_word_frequency": "NASA and ESA sent IT up.",
    "change_case:english_capital": "THE BOOK WAS ABOUT OLD SHIPS AND THE PEOPLE WHO SAILED THEM.",
    "change_case:english_lowercase": "please wait here until the next train to the city arrives.",
    "punctuation:no_comma": "Bread and milk and a little patience.",
    "startend:quotation": '  "Please wait for the next train."  ',
}
ONLY_LOOSE: dict[str, str] = {  # follows it once a first line, a last line or asterisks are taken away, and not before
    "keywords:forbidden_words": "Not by the river:\nThey walked along the canal.",
    "length_constraints:number_words": "Sure! Here you are:\nFour words are here",
    "length_constraints:number_sentences": "Of course. With pleasure. Here it is.\nIt rained all day.",
    "detectable_format:number_bullet_lists": "* Sure\n* one\n* two",
    "detectable_format:json_format": 'Here it is:\n{"a": 1}',
    "combination:repeat_prompt": "Certainly!\nWhy? Because.",
    "startend:end_checker": "It was late. The end.\nI hope that helps!",
    "change_case:english_capital": f"Sure, in capitals:\n{TEXT.upper()}",
    "change_case:english_lowercase": f"Sure:\n{TEXT.lower()}",
    "punctuation:no_comma": f"Sure, here it is:\n{TEXT}",
    "startend:quotation": f'Here it is:\n"{TEXT}"',
}

PROGRAM = """
import json, socket, sys

def blocked(*args, **kwargs):
    raise AssertionError("something asked for the network")

socket.socket.connect = socket.create_connection = socket.getaddrinfo = blocked
from harness.evaluation.instructions import process_results, registry
cases = json.load(sys.stdin)
answers = {}
for name, (kwargs, *texts) in cases.items():
    doc = {"key": 0, "prompt": "Why?", "instruction_id_list": [name], "kwargs": [kwargs]}
    answers[name] = [process_results(doc, [t])["prompt_level_strict_acc"] for t in (*texts, "", "   ")]
print(json.dumps({"answers": answers, "known": sorted(registry())}))
"""


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, list[bool]]]:
    home = tmp_path_factory.mktemp("home")
    env = {**os.environ, "HOME": str(home), "NLTK_DATA": str(home / "nothing"), "XDG_CACHE_HOME": str(home)}
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM], input=json.dumps(CASES), env=env, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert list(Path(home).iterdir()) == []
    body: dict[str, dict[str, list[bool]]] = json.loads(ran.stdout)
    return body


def test_the_cases_cover_every_type(checked: dict[str, dict[str, list[bool]]]) -> None:
    assert checked["known"] == sorted(CASES) and len(CASES) == 25


@pytest.mark.parametrize("name", CASES)
def test_each_type_tells_following_from_not_following_offline(
    checked: dict[str, dict[str, list[bool]]], name: str
) -> None:
    follows, does_not, empty, blank = checked["answers"][name]
    assert (follows, does_not, empty, blank) == (True, False, False, False)


def scores(name: str, answer: str) -> tuple[bool, bool]:
    """Strict and loose, by prompt; with one instruction the ones by instruction are the same."""
    from harness.evaluation.instructions import process_results

    doc = {"key": 0, "prompt": "Why?", "instruction_id_list": [name], "kwargs": [CASES[name][0]]}
    found = process_results(doc, [answer])
    assert found["inst_level_strict_acc"] == [found["prompt_level_strict_acc"]]
    assert found["inst_level_loose_acc"] == [found["prompt_level_loose_acc"]]
    return found["prompt_level_strict_acc"], found["prompt_level_loose_acc"]


@pytest.mark.parametrize("name", CASES)
def test_two_different_answers_follow_each_type_strictly_and_loosely(name: str) -> None:
    answers = [CASES[name][1], AGAIN[name]]
    assert answers[0] != answers[1] and [scores(name, answer) for answer in answers] == [(True, True)] * 2


@pytest.mark.parametrize("name", ONLY_LOOSE)
def test_loose_scores_forgive_what_surrounds_an_answer(name: str) -> None:
    assert scores(name, ONLY_LOOSE[name]) == (False, True)


def test_abbreviations_do_not_end_a_sentence() -> None:
    from harness.evaluation.instructions import registry

    registry()
    from lm_eval.tasks.ifeval import instructions_util

    assert instructions_util.count_sentences(TEXT) == 2
    assert instructions_util.nltk.word_tokenize("It was LATE. Dr. Smith left.")[-4:] == ["Dr.", "Smith", "left", "."]


def test_the_language_detector_says_the_same_every_time() -> None:
    from harness.evaluation.instructions import process_results

    doc = {
        "key": 0,
        "prompt": "",
        "instruction_id_list": ["language:response_language"],
        "kwargs": [{"language": "pt"}],
    }
    unclear = "Casa de campo no norte."
    assert len({process_results(doc, [unclear])["prompt_level_strict_acc"] for _ in range(20)}) == 1
