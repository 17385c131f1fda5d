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
