"""Training rows of the usual shapes become conversations."""

from __future__ import annotations

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
    ],
)
def test_a_row_that_does_not_fit_is_named_with_its_fields(
    rows: list[dict[str, Any]], more: dict[str, str], words: str
) -> None:
    with pytest.raises(HarnessError) as error:
        to_rows(rows, entry(**more))
    assert words in str(error.value)
