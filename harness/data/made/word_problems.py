"""Word problems of one or two steps over small whole numbers, answered as `computation` and then `#### number`.

A row has `system` (the answer format, said to the model), `question` and `answer`, the fields of grade-school sets. The
numbers are small enough for a model of 135 million parameters to learn; this measures learning of a format and of
simple arithmetic, not mathematical ability.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from harness.data.made import distinct

SYSTEM = "Solve the problem. End with #### and the number."
NAMES = ("Mia", "Leo", "Ana", "Tom", "Eva", "Sam", "Lily", "Max", "Nora", "Ben", "Ruth", "Omar", "Ivy", "Hugo")
THINGS = (
    "apples",
    "books",
    "coins",
    "stamps",
    "shells",
    "cards",
    "pens",
    "marbles",
    "eggs",
    "stickers",
    "cups",
    "beads",
)

Problem = tuple[str, str, int]  # question, computation, answer


def make(split: str, n: int, seed: int) -> list[dict[str, Any]]:
    """`n` rows {"id", "system", "question", "answer"}; `answer` ends with `#### ` and the number."""
    return distinct(_draw, "question", split, n, seed)


def _draw(rng: random.Random) -> dict[str, Any]:
    kind = rng.choice(KINDS)
    question, steps, answer = kind(rng, rng.choice(NAMES), rng.choice(THINGS))
    return {"system": SYSTEM, "question": question, "answer": f"{steps} = {answer}\n#### {answer}"}


def _gain(rng: random.Random, name: str, thing: str) -> Problem:
    a, b = rng.randint(2, 20), rng.randint(2, 20)
    verb = rng.choice(("buys", "finds", "gets"))
    return f"{name} has {a} {thing} and {verb} {b} more. How many {thing} does {name} have?", f"{a} + {b}", a + b


def _loss(rng: random.Random, name: str, thing: str) -> Problem:
    a = rng.randint(5, 30)
    b = rng.randint(2, a - 2)
    verb = rng.choice(("loses", "sells", "gives away"))
    return f"{name} has {a} {thing} and {verb} {b}. How many {thing} are left?", f"{a} - {b}", a - b


def _boxes(rng: random.Random, name: str, thing: str) -> Problem:
    a, b = rng.randint(2, 9), rng.randint(2, 10)
    holder = rng.choice(("boxes", "bags", "jars"))
    return f"{name} has {a} {holder} with {b} {thing} each. How many {thing} is that?", f"{a} * {b}", a * b


def _gain_and_loss(rng: random.Random, name: str, thing: str) -> Problem:
    a, b = rng.randint(3, 15), rng.randint(2, 10)
    c = rng.randint(2, a)
    question = f"{name} has {a} {thing}, gets {b} more and gives away {c}. How many {thing} does {name} have?"
    return question, f"{a} + {b} - {c}", a + b - c


KINDS: tuple[Callable[[random.Random, str, str], Problem], ...] = (_gain, _loss, _boxes, _gain_and_loss)
