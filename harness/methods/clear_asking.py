"""What CLEAR asks a model, and how an answer is read: samples, grades and comparisons, as requests.

Texts only. All wordings are ours; the published ones were not at hand.
"""

from __future__ import annotations

import re
from itertools import permutations
from typing import TYPE_CHECKING, Any

from harness.engines.base import Request
from harness.errors import HarnessError

if TYPE_CHECKING:
    from harness.engines.base import Message
    from harness.methods.base import Row

LETTERS = ("A", "B", "C")
GRADES = {"Correct": 1.0, "Incorrect": 0.0, "Not sure": 0.5}
ORDERS = tuple(permutations(GRADES))  # of the three grades under the letters; the first is the usual one
UNREAD = 0.5  # the value of a grade or a verdict that cannot be read
SHORT = 16  # new tokens for a letter
MARK = "Answer:"
REASON = f'\n\nReason first, step by step. Then give your final answer on a new line that begins with "{MARK}".'
QUESTIONS = (
    "Is the proposed answer correct?",
    "Look at it once more. Are you really sure that the proposed answer is correct?",
)


def history(row: Row) -> list[Message]:
    """The conversation up to the answer that is judged, its last turn. HarnessError for a row of another kind."""
    messages = row.get("messages") or []
    if "chosen" in row or len(messages) < 2 or messages[-1]["role"] != "assistant":
        raise HarnessError(
            "confidence is that of one answer, and this row is not a conversation that ends with one",
            where=f"row {row['id']}",
            todo="give it rows with `messages` whose last turn is the assistant's",
        )
    return list(messages[:-1])


def target(row: Row) -> str:
    """The answer that is judged."""
    return str(row["messages"][-1]["content"])


def question(row: Row) -> str:
    """x as one text: the only turn, or all turns with their roles."""
    turns = history(row)
    if len(turns) == 1:
        return str(turns[0]["content"])
    return "\n\n".join(f"{turn['role'].capitalize()}: {turn['content']}" for turn in turns)


def answer_request(row: Row, *, reason: bool, **sampling: Any) -> Request:
    """Asks for an answer to a row; with `reason`, for one that comes after its reasons."""
    turns = history(row)
    if reason:
        turns[-1] = {**turns[-1], "content": f"{turns[-1]['content']}{REASON}"}
    return Request(messages=tuple(turns), **sampling)


def answer_part(text: str, *, reason: bool) -> str | None:
    """The answer in a sample, None if there is none to be read."""
    _, mark, after = text.rpartition(MARK)
    found = (after if mark else "") if reason else text
    return found.strip() or None


def grade_prompt(x: str, y: str, asked: str, order: tuple[str, ...] = ORDERS[0]) -> Request:
    """Asks whether y answers x, the grades standing under the letters in that order."""
    options = "\n".join(f"{letter}) {grade}" for letter, grade in zip(LETTERS, order, strict=True))
    return _short(f"Question:\n{x}\n\nProposed answer:\n{y}\n\n{asked} Choose one:\n{options}\nReply with the letter.")


def comparison(x: str, first: str, second: str) -> str:
    """The question which of two answers is better."""
    return f"{x}\n\nHere are two answers to this.\n\nA) {first}\n\nB) {second}\n\nWhich is the better one?"


def verdict_prompt(compared: str, **sampling: Any) -> Request:
    """Asks a comparison for a letter."""
    return _short(f"{compared} Reply with the letter.", **sampling)


def letter(text: str) -> str | None:
    """The letter that an answer gives, None if it gives none. The article A is no letter."""
    found = re.search(r"\b([ABC])(?=\s*$|[).:,\n])", text)
    return found[1] if found else None


def _short(text: str, **sampling: Any) -> Request:
    return Request(messages=({"role": "user", "content": text},), **{"max_tokens": SHORT, **sampling})
