"""Made data: seeded, disjoint, balanced, and right."""

from __future__ import annotations

import re
from collections import Counter
from itertools import pairwise
from typing import Any

import pytest

from harness.data.made import GENERATORS
from harness.data.sources import pin, rows
from harness.errors import HarnessError
from harness.matrix.schema import DataEntry

TEXT = {"word_problems": "question", "chain_sums": "question", "instructions": "prompt"}


def made(name: str, split: str, n: int | None = None, seed: int = 0) -> list[dict[str, Any]]:
    return rows(pin(DataEntry(source=f"make:{name}", split=split, rows=n, seed=seed)))


@pytest.mark.parametrize("name", GENERATORS)
def test_no_text_is_in_train_and_test_whatever_the_seeds_and_none_twice(name: str) -> None:
    text = TEXT.get(name, "sentence")
    train = [row[text] for row in made(name, "train", seed=1)]
    test = [row[text] for seed in (0, 1, 2) for row in made(name, "test", 100, seed)]
    assert len(set(train)) == len(train) == GENERATORS[name].rows["train"]
    assert not set(train) & set(test)


@pytest.mark.parametrize("name", GENERATORS)
def test_a_seed_gives_the_same_rows_and_another_gives_others(name: str) -> None:
    first = made(name, "test", 50)
    assert made(name, "test", 50) == first
    assert made(name, "test", 50, seed=3) != first
    one, other = (pin(DataEntry(source=f"make:{name}", seed=seed)) for seed in (0, 3))
    assert one.digest != other.digest


@pytest.mark.parametrize("name", ["word_problems", "chain_sums"])
def test_answers_are_right_and_end_with_the_number(name: str) -> None:
    for row in made(name, "train", 300):
        *working, last = row["answer"].split("\n")
        number = int(last.removeprefix("#### "))
        if working:
            left, _, right = working[0].partition(" = ")
            assert eval(left, {"__builtins__": {}}) == int(right) == number
        assert "####" in row["system"]


def test_the_numbers_of_a_word_problem_are_those_of_its_computation() -> None:
    for row in made("word_problems", "test", 200):
        said = re.findall(r"\d+", row["question"])
        assert said == re.findall(r"\d+", row["answer"].partition(" = ")[0])


@pytest.mark.parametrize("name", ["sentiment", "grammar"])
def test_labels_are_balanced_and_mixed(name: str) -> None:
    labels = [row["label"] for row in made(name, "test", 100)]
    assert Counter(labels) == {0: 50, 1: 50}
    assert 20 < sum(a != b for a, b in pairwise(labels)) < 80


def test_instructions_are_of_many_types_and_never_contradict_each_other() -> None:
    from harness.evaluation.instructions import conflicts, registry

    prompts = made("instructions", "train", 300)
    used = Counter(name for row in prompts for name in row["instruction_id_list"])
    assert len(used) >= 15
    table = conflicts()
    for row in prompts:
        names = row["instruction_id_list"]
        assert len(names) == len(row["kwargs"]) <= 2
        assert all(b not in table[a] for a, b in pairwise(names))
        for name, kwargs in zip(names, row["kwargs"], strict=True):
            assert registry()[name](name).build_description(**kwargs) in row["prompt"]


def test_a_generator_that_runs_dry_says_how_many_it_has() -> None:
    with pytest.raises(HarnessError, match="distinct"):
        rows(pin(DataEntry(source="make:chain_sums", rows=500, params={"terms": [1, 1], "digits": [1, 1]})))
