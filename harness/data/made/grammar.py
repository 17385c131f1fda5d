"""Sentences that are grammatical (1) or have one slip (0): agreement, word order, a doubled or wrong word.

Both kinds are made from the same words by the same patterns, so that length and topic do not tell the labels apart.
"""

from __future__ import annotations

import random
from typing import Any

from harness.data.made import balanced

SUBJECTS = ("teacher", "sailor", "farmer", "child", "neighbour", "doctor", "pilot", "baker", "singer", "writer")
VERBS = ("sees", "helps", "knows", "likes", "follows", "remembers", "visits", "calls", "paints", "watches")
OBJECTS = ("garden", "river", "old house", "new bridge", "small boat", "market", "letter", "horse", "tall tree", "song")
TIMES = ("every morning", "in the evening", "on Sundays", "after lunch", "before dinner", "once a year", "in winter")
PLURAL_VERB = {"watches": "watch"}


def make(split: str, n: int, seed: int) -> list[dict[str, Any]]:
    """`n` rows {"id", "sentence", "label"}, half of each label."""
    return balanced(_draw, "sentence", split, n, seed)


def _draw(rng: random.Random, label: int) -> dict[str, Any]:
    subject, verb, thing, time = (rng.choice(words) for words in (SUBJECTS, VERBS, OBJECTS, TIMES))
    bare = PLURAL_VERB.get(verb, verb.removesuffix("s"))
    good = (
        f"The {subject} {verb} the {thing} {time}.",
        f"The {subject} does not {bare} the {thing} {time}.",
        f"The {_plural(subject)} {bare} the {thing} {time}.",
        f"She {verb} the {thing} of the {subject} {time}.",
        f"Does the {subject} {bare} the {thing} {time}?",
    )
    bad = (
        f"The {subject} {bare} the {thing} {time}.",
        f"The {subject} does not {verb} the {thing} {time}.",
        f"The {_plural(subject)} {verb} the {thing} {time}.",
        f"Her {verb} the {thing} of the {subject} {time}.",
        f"Does {bare} the {subject} the {thing} {time}?",
        f"The {subject} {verb} {thing} the {time}.",
        f"The {subject} the {verb} the {thing} {time}.",
    )
    return {"sentence": rng.choice(good if label else bad)}


def _plural(noun: str) -> str:
    return {"child": "children"}.get(noun, f"{noun}s")
