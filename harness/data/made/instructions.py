"""Prompts with one or two instructions that a program can check, made from lm-eval's own IFEval checkers.

The wording of an instruction and its check are lm-eval's; the topic and the instruction's arguments are drawn here.
Types that need another language, or more words than a small token limit allows, are left out.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

from harness.data.made import distinct

FORMS = ("a short note about", "a letter to a friend about", "an advertisement for", "a short story about", "advice on")
TOPICS = (
    "a day at the beach",
    "learning to cook",
    "a lost umbrella",
    "growing tomatoes",
    "a train journey",
    "keeping a diary",
    "a rainy weekend",
    "repairing a bicycle",
    "a new neighbour",
    "saving water",
    "a village market",
    "sleeping well",
)
KEYWORDS = ("river", "window", "friend", "summer", "music", "bread", "garden", "quiet", "bright", "morning")

Arguments = Callable[[random.Random], dict[str, Any]]
TYPES: Mapping[str, Arguments] = {
    "keywords:existence": lambda r: {"keywords": sorted(r.sample(KEYWORDS, 2))},
    "keywords:frequency": lambda r: {
        "keyword": r.choice(KEYWORDS),
        "frequency": r.randint(2, 3),
        "relation": "at least",
    },
    "keywords:forbidden_words": lambda r: {"forbidden_words": sorted(r.sample(KEYWORDS, 3))},
    "keywords:letter_frequency": lambda r: {
        "letter": r.choice("bcpvw"),
        "let_frequency": r.randint(4, 8),
        "let_relation": r.choice(("less than", "at least")),
    },
    "length_constraints:number_sentences": lambda r: {
        "num_sentences": r.randint(3, 6),
        "relation": r.choice(("less than", "at least")),
    },
    "length_constraints:number_words": lambda r: {"num_words": r.choice((40, 60, 80)), "relation": "less than"},
    "length_constraints:number_paragraphs": lambda r: {"num_paragraphs": r.randint(2, 3)},
    "detectable_content:number_placeholders": lambda r: {"num_placeholders": r.randint(1, 3)},
    "detectable_content:postscript": lambda r: {"postscript_marker": r.choice(("P.S.", "P.P.S"))},
    "detectable_format:number_bullet_lists": lambda r: {"num_bullets": r.randint(2, 4)},
    "detectable_format:number_highlighted_sections": lambda r: {"num_highlights": r.randint(1, 3)},
    "detectable_format:title": lambda r: {},
    "startend:end_checker": lambda r: {"end_phrase": r.choice(("That is all.", "Yours truly", "The end."))},
    "startend:quotation": lambda r: {},
    "change_case:english_lowercase": lambda r: {},
    "change_case:english_capital": lambda r: {},
    "punctuation:no_comma": lambda r: {},
}


def make(split: str, n: int, seed: int) -> list[dict[str, Any]]:
    """`n` rows {"id", "key", "prompt", "instruction_id_list", "kwargs"}, the fields of google/IFEval."""
    from harness.evaluation.instructions import conflicts, registry

    checkers, table = registry(), conflicts()

    def draw(rng: random.Random) -> dict[str, Any]:
        names = [rng.choice(list(TYPES))]
        second = [t for t in TYPES if t not in table[names[0]] and names[0] not in table[t]]
        if second and rng.random() < 0.5:
            names.append(rng.choice(second))
        arguments = [TYPES[name](rng) for name in names]
        said = [checkers[name](name).build_description(**given) for name, given in zip(names, arguments, strict=True)]
        prompt = " ".join([f"Write {rng.choice(FORMS)} {rng.choice(TOPICS)}.", *said])
        return {"prompt": prompt, "instruction_id_list": names, "kwargs": arguments}

    return [{**row, "key": number} for number, row in enumerate(distinct(draw, "prompt", split, n, seed))]
