"""Procedural data sets: seeded, made on the spot, with no row of the test part in the training part.

This file is the table of generators and the rule that splits them. Each generator is one file beside it with one
function `make(split, n, seed, **parameters) -> list[dict]`. Planning reads only the table, so a generator may import
what it likes. Made data are never called by a benchmark's name.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.errors import HarnessError

SPLITS = ("train", "test")
TEST_SHARE = 4  # one text in so many belongs to the test part


@dataclass(frozen=True)
class Generator:
    """What planning knows of a generator.

    module: where its `make` is.  version: raised when the rows it makes change.  rows: how many it makes unless told.
    parameters: its own parameters with their defaults.  package: the distribution whose version its rows depend on.
    """

    module: str
    version: int
    rows: Mapping[str, int]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    package: str = ""


GENERATORS: Mapping[str, Generator] = {
    "word_problems": Generator("harness.data.made.word_problems", 1, {"train": 2000, "test": 400}),
    "chain_sums": Generator(
        "harness.data.made.chain_sums",
        1,
        {"train": 2000, "test": 400},
        {"terms": [2, 3], "digits": [1, 2]},
        package="reasoning_gym",
    ),
    "sentiment": Generator("harness.data.made.sentiment", 1, {"train": 1000, "test": 400}),
    "grammar": Generator("harness.data.made.grammar", 1, {"train": 1000, "test": 400}),
    "instructions": Generator("harness.data.made.instructions", 1, {"train": 400, "test": 200}, package="lm_eval"),
}


def split_of(text: str) -> str:
    """The part a text belongs to, whatever the seed: "test" for one in four by its sha256, else "train"."""
    return "test" if hashlib.sha256(text.encode()).digest()[0] % TEST_SHARE == 0 else "train"


def distinct(
    draw: Callable[[random.Random], dict[str, Any]], text: str, split: str, n: int, seed: int
) -> list[dict[str, Any]]:
    """`n` drawn rows of one split, no two with the same `text` field. HarnessError if the generator runs dry."""
    rng = random.Random(f"{seed}/{split}")
    rows: dict[str, dict[str, Any]] = {}
    for _ in range(200 * n):
        if len(rows) == n:
            break
        row = draw(rng)
        if split_of(row[text]) == split:
            rows.setdefault(row[text], row)
    if len(rows) < n:
        raise HarnessError(
            f"the generator has only about {len(rows)} distinct {split} rows, and {n} were asked for",
            todo=f"ask for at most {len(rows)}",
        )
    return [{"id": f"{split}-{i}", **row} for i, row in enumerate(rows.values())]


def balanced(
    draw: Callable[[random.Random, int], dict[str, Any]], text: str, split: str, n: int, seed: int
) -> list[dict[str, Any]]:
    """As `distinct`, with as many rows of label 0 as of label 1 (one more of label 1 if `n` is odd), shuffled.

    draw: (rng, label) -> a row, to which its `label` is added.
    """
    halves = []
    for label, size in ((0, n // 2), (1, n - n // 2)):

        def labelled(rng: random.Random, label: int = label) -> dict[str, Any]:
            return {**draw(rng, label), "label": label}

        halves.append(distinct(labelled, text, split, size, seed * 2 + label))
    rows = [row for half in halves for row in half]
    random.Random(seed).shuffle(rows)
    return [{**row, "id": f"{split}-{i}"} for i, row in enumerate(rows)]
