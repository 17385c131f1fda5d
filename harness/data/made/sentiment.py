"""Short opinions with a positive (1) or negative (0) label, from sentence patterns and word lists.

Easier than any published sentiment set: it shows whether fine-tuning broke an ability, not how good the ability is.
"""

from __future__ import annotations

import random
from typing import Any

from harness.data.made import balanced

TOPICS = {
    "film": ("plot", "acting", "music", "ending", "dialogue", "pacing"),
    "book": ("story", "writing", "opening", "last chapter", "characters", "style"),
    "hotel": ("room", "breakfast", "staff", "view", "location", "bed"),
    "restaurant": ("soup", "service", "menu", "dessert", "wine", "atmosphere"),
    "phone": ("screen", "battery", "camera", "sound", "keyboard", "design"),
    "concert": ("singer", "sound", "venue", "band", "first half", "encore"),
}
WORDS = (
    {
        "adjective": ("dull", "awful", "disappointing", "boring", "terrible", "clumsy", "tedious", "dreadful", "weak"),
        "feeling": ("hated", "regretted", "could not stand", "was let down by"),
        "verdict": ("Avoid it.", "A waste of money.", "Never again.", "I want my evening back.", "Do not bother."),
    },
    {
        "adjective": ("superb", "delightful", "brilliant", "charming", "excellent", "moving", "wonderful", "lovely"),
        "feeling": ("loved", "enjoyed", "was delighted by", "adored"),
        "verdict": (
            "Highly recommended.",
            "Worth every penny.",
            "I would go again.",
            "A real treat.",
            "Do not miss it.",
        ),
    },
)
DEGREES = ("", "really ", "quite ", "simply ", "truly ", "rather ")


def make(split: str, n: int, seed: int) -> list[dict[str, Any]]:
    """`n` rows {"id", "sentence", "label"}, half of each label."""
    return balanced(_draw, "sentence", split, n, seed)


def _draw(rng: random.Random, label: int) -> dict[str, Any]:
    topic = rng.choice(list(TOPICS))
    part, other = rng.sample(TOPICS[topic], 2)
    words = {name: rng.choice(choices) for name, choices in WORDS[label].items()}
    degree, adjective = rng.choice(DEGREES), words["adjective"]
    be = "were" if part == "characters" else "was"
    sentence = rng.choice(
        (
            f"The {part} of this {topic} {be} {degree}{adjective}. {words['verdict']}",
            f"I {words['feeling']} the {part}, and the {other} was no different.",
            f"A {topic} with a {degree}{adjective} {part}. {words['verdict']}",
            f"I {words['feeling']} this {topic}: the {part} {be} {degree}{adjective}.",
        )
    )
    return {"sentence": sentence.replace("a excellent", "an excellent").replace("a awful", "an awful")}
