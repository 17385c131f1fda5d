"""Training rows of the usual shapes become conversations."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from harness.data.chat import to_rows
from harness.errors import HarnessError
from harness.matrix.schema import DataEntry

USER, ASSISTANT = {"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "4"}


def entry(**more: Any) -> DataEntry:
    return DataEntry(source="file:x.jsonl", **more)


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [USER, ASSISTANT]},
        {"prompt": "2 + 2?", "completion": "4"},
        {"prompt": "2 + 2?", "response": 4},
        {"instruction": "2 + 2?", "input": "", "output": "4"},
        {"question": "2 + 2?", "answer": "4"},
        {"conversations": [{"from": "human", "value": "2 + 2?"}, {"from": "gpt", "value": "4"}]},
    ],
)
def test_each_shape_is_recognised(row: dict[str, Any]) -> None:
    (made,) = to_rows([row], entry())
    assert (made["id"], made["messages"]) == ("0", [USER, ASSISTANT])


def test_a_template_joins_any_fields() -> None:
    (made,) = to_rows([{"a": 2, "b": "2?", "c": 4}], entry(prompt="{a} + {b}", answer="{c}"))
    assert made["messages"] == [USER, ASSISTANT]


def test_an_instructions_input_follows_it() -> None:
    (made,) = to_rows([{"instruction": "Add.", "input": "2 2", "output": "4"}], entry())
    assert made["messages"][0]["content"] == "Add.\n\n2 2"


def test_ids_system_and_other_columns_are_kept() -> None:
    row = {"id": "r7", "system": "Be short.", "question": "2 + 2?", "answer": "4", "level": 3}
    (made,) = to_rows([row], entry())
    assert made["id"] == "r7" and made["level"] == 3 and "system" not in made
    assert made["messages"] == [{"role": "system", "content": "Be short."}, USER, ASSISTANT]
    assert made["answer"] == "4"  # a checker of answers reads it


def test_the_weight_of_a_turn_is_kept() -> None:
    (made,) = to_rows([{"messages": [USER, {**ASSISTANT, "weight": 0}, USER, ASSISTANT]}], entry())
    assert made["messages"][1]["weight"] == 0


@pytest.mark.parametrize(
    ("rows", "more", "words"),
    [
        ([{"text": "x"}], {}, "the first row has the fields text"),
        ([{"question": "a", "answer": "b"}, {"question": "c"}], {}, "row 1 has no `answer`"),
        ([{"a": "x"}], {"prompt": "{b}", "answer": "{a}"}, "row 0 has no `b`"),
        ([{"a": "x"}], {"prompt": "{a", "answer": "{a}"}, "not well formed"),
        ([{"messages": [USER]}], {}, "row 0 has no answer to learn"),
        ([{"question": "a", "answer": " "}], {}, "row 0 has no answer to learn"),
        ([{"messages": [{"role": "robot", "content": "x"}]}], {}, "row 0 does not fit"),
        ([{"messages": "hello"}], {}, "row 0 does not fit"),
        ([{"question": "a", "answer": "b"}], {"format": "instruction"}, "row 0 has no `instruction`, `output`"),
        ([{"prompt": "a", "chosen": "b", "rejected": "b"}], {}, "row 0 prefers nothing"),
        ([{"chosen": "b", "rejected": "c"}], {}, 'begins with "Human:"'),
        ([{"prompt": "a", "chosen": [USER], "rejected": "c"}], {}, "row 0 has no answer to learn"),
        ([{"question": "a", "answer": "b"}], {"format": "pair"}, "row 0 has no `chosen`, `rejected`"),
    ],
)
def test_a_row_that_does_not_fit_is_named_with_its_fields(
    rows: list[dict[str, Any]], more: dict[str, str], words: str
) -> None:
    with pytest.raises(HarnessError) as error:
        to_rows(rows, entry(**more))
    assert words in str(error.value)


# --- pairs of answers -----------------------------------------------------------------------------------------------
FIVE = {"role": "assistant", "content": "5"}
EARLIER = [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello."}]
SPOKEN = "\n\nHuman: Hi.\n\nAssistant: Hello.\n\nHuman: 2 + 2?\n\nAssistant: "
HEARD = [{"from": "human", "value": "Hi."}, {"from": "gpt", "value": "Hello."}, {"from": "human", "value": "2 + 2?"}]


@pytest.mark.parametrize(
    "row",
    [
        {"chosen": SPOKEN + "4", "rejected": SPOKEN + "5"},
        {"conversations": HEARD, "chosen": {"from": "gpt", "value": "4"}, "rejected": {"from": "gpt", "value": "5"}},
        {"prompt": [*EARLIER, USER], "chosen": "4", "rejected": "5"},
        {"prompt": [*EARLIER, USER], "chosen": [ASSISTANT], "rejected": [FIVE]},
        {"messages": [*EARLIER, USER], "chosen": ASSISTANT, "rejected": FIVE},
        {"prompt": "2 + 2?", "chosen": [*EARLIER, USER, ASSISTANT], "rejected": [*EARLIER, USER, FIVE]},
    ],
)
def test_each_shape_of_a_pair_is_recognised_and_only_what_differs_is_learned(row: dict[str, Any]) -> None:
    (made,) = to_rows([{**row, "score": 7}], entry())
    shared = [EARLIER[0], {**EARLIER[1], "weight": 0}, USER]
    assert made == {
        "id": "0",
        "messages": [*EARLIER, USER, ASSISTANT],
        "score": 7,
        "chosen": [*shared, ASSISTANT],
        "rejected": [*shared, FIVE],
    }


def test_a_text_as_prompt_and_a_system_column_stand_before_both_answers() -> None:
    (made,) = to_rows([{"system": "Be short.", "prompt": "2 + 2?", "chosen": "4", "rejected": "5"}], entry())
    asked = [{"role": "system", "content": "Be short."}, USER]
    assert (made["messages"], made["rejected"]) == ([*asked, ASSISTANT], [*asked, FIVE])


def test_one_who_speaks_twice_has_one_turn_and_saying_nothing_may_be_preferred() -> None:
    asked = "\n\nHuman: a\n\nHuman: b\n\nAssistant:"
    (made,) = to_rows([{"chosen": asked, "rejected": f"{asked} c"}], entry())
    assert made["chosen"] == [{"role": "user", "content": "a\n\nb"}, {"role": "assistant", "content": ""}]


@pytest.mark.parametrize(("name", "rows"), [("dpo_en_demo", 300), ("hh_harmless_base", 1500)])
def test_every_row_of_the_real_preference_sets_is_a_pair(mirror: Path, name: str, rows: int) -> None:
    lines = (mirror / "preference" / name / "train.jsonl").read_text().splitlines()
    made = to_rows([json.loads(line) for line in lines], entry())
    assert len(made) == rows
    for row in made:
        for answer in (row["chosen"], row["rejected"]):
            assert answer[-1]["role"] == "assistant" and "weight" not in answer[-1]
            assert all(a["role"] != b["role"] for a, b in pairwise(answer))
