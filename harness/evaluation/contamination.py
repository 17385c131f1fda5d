"""Which items of a test set occur in a training set: in whole, by 13 words in a row, or by 50 characters in a row.

Texts are compared in lower case, as words with one space between them. For the question and for the answer of each
item, apart from each other and against every turn of every training row but the system's:

    exact           the whole text is a whole turn
    13-gram         13 words in a row; of a text with 8 to 12 words, 8 in a row (`8-gram`)
    50 characters   50 characters in a row

Answers of fewer than 8 words ("42", "yes") are not looked for, since they occur anywhere. Words that every item begins
or ends with belong to the task, such as a primer or "Answer:", and are not looked for either. The memory needed is that
of both sets' texts and a small multiple of the test set's; training rows are read once, one at a time.

It finds text, not meaning: a paraphrase, a translation or another number in the same problem is not found, nor a short
training text inside a longer item, and a common phrase of 50 characters is. What a base model saw before it came here
is unknown to it.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

VERSION = 1  # part of what a result is stored under: change it whenever the same texts may overlap otherwise
MARK = 0.01  # the share of overlapping items above which a score is marked
LONG, SHORT = 13, 8  # words
STRETCH = 50  # characters
RULES = EXACT, LONG_GRAM, SHORT_GRAM, IN_A_ROW = "exact", f"{LONG}-gram", f"{SHORT}-gram", f"{STRETCH} characters"

_BLOCK = STRETCH // 2  # a stretch of 50 always holds one of the blocks of 25 that a text is cut into


@dataclass(frozen=True)
class Item:
    """One item of a test set. name: unique in it.  question: its own words only, without worked examples."""

    name: str
    question: str
    answer: str


@dataclass(frozen=True)
class Hit:
    """rules: those of `RULES` that found a text.  row: the training row in which it was found first, its `id`."""

    rules: tuple[str, ...]
    row: str


@dataclass(frozen=True)
class Found:
    """What of one item occurs in the training set; at least one of the two."""

    question: Hit | None
    answer: Hit | None


@dataclass(frozen=True)
class Overlap:
    """items: by name, only those with an overlap, in the order of the test set.  of: how many the test set has."""

    items: Mapping[str, Found]
    of: int

    @property
    def share(self) -> float:
        """Of the test set, from 0 to 1."""
        return len(self.items) / self.of if self.of else 0.0

    @property
    def marked(self) -> bool:
        """Whether it is too much to be left unsaid."""
        return self.share > MARK

    def summary(self) -> dict[str, int]:
        """How many items: `of`, `items` with any overlap, `question`, `answer`, and of each side by rule."""
        sides = {side: [h for f in self.items.values() if (h := getattr(f, side))] for side in ("question", "answer")}
        counts = {"of": self.of, "items": len(self.items), **{side: len(hits) for side, hits in sides.items()}}
        by_rule = {
            f"{side}: {rule}": sum(rule in h.rules for h in hits) for side, hits in sides.items() for rule in RULES
        }
        return counts | by_rule


def overlap(train: Iterable[Mapping[str, Any]], items: Sequence[Item]) -> Overlap:
    """Compare conversations with a test set.

    train: rows {"id", "messages": [{"role", "content"}, ...]}, what the data step leaves in `rows/NAME.jsonl`; turns
    without a text are passed over.
    """
    wanted = _Wanted(items)
    seen: set[str] = set()
    for number, row in enumerate(train):
        for turn in row["messages"]:
            text = turn.get("content")
            if turn["role"] == "system" or not isinstance(text, str):
                continue
            words = _words(text)
            joined = " ".join(words)
            if joined and joined not in seen:  # a repeated turn finds nothing new
                seen.add(joined)
                wanted.look_in(words, joined, str(row.get("id", number)))
    return Overlap(wanted.found(), len(items))


class _Wanted:
    """The texts of a test set, arranged to be looked for; a text is known by its place, (item's number, side)."""

    def __init__(self, items: Sequence[Item]) -> None:
        self.items = items
        self.exact: dict[str, list[_Place]] = defaultdict(list)
        self.grams: dict[int, dict[tuple[str, ...], list[_Place]]] = {LONG: defaultdict(list), SHORT: defaultdict(list)}
        self.blocks: dict[str, list[tuple[_Place, int]]] = defaultdict(list)
        self.texts: dict[_Place, str] = {}
        self.hits: dict[_Place, dict[str, str]] = defaultdict(dict)  # rule -> the first row
        self.compared: set[str] = set()
        for side in ("question", "answer"):
            whole = [_words(getattr(item, side)) for item in items]
            for number, (words, own) in enumerate(zip(whole, _own_words(whole), strict=True)):
                if words and (side == "question" or len(words) >= SHORT):
                    self._add((number, side), words, own)

    def _add(self, place: _Place, words: list[str], own: list[str]) -> None:
        for text in {" ".join(words), " ".join(own)} - {""}:
            self.exact[text].append(place)
        size = LONG if len(own) >= LONG else SHORT
        for gram in set(_windows(own, size)):
            self.grams[size][gram].append(place)
        self.texts[place] = text = " ".join(own)
        for start in range(0, len(text) - _BLOCK + 1, _BLOCK) if len(text) >= STRETCH else ():
            self.blocks[text[start : start + _BLOCK]].append((place, start))

    def look_in(self, words: list[str], text: str, row: str) -> None:
        """Note all that one turn of a training row holds."""
        for place in self.exact.get(text, ()):
            self.hits[place].setdefault(EXACT, row)
        for size, grams in self.grams.items():
            for gram in _windows(words, size) if grams else ():
                for place in grams.get(gram, ()):
                    self.hits[place].setdefault(LONG_GRAM if size == LONG else SHORT_GRAM, row)
        blocks = self.blocks
        for at in range(len(text) - _BLOCK + 1):
            if text[at : at + _BLOCK] in blocks:
                for place, start in self._candidates(text, at):
                    if _common(self.texts[place], start, text, at) >= STRETCH:
                        self.hits[place].setdefault(IN_A_ROW, row)

    def _candidates(self, text: str, at: int) -> Sequence[tuple[_Place, int]]:
        """The texts that hold the block at a position, unless its surroundings were compared with them before."""
        around = text[max(0, at - _BLOCK) : at + 2 * _BLOCK] + f"|{min(at, _BLOCK)}"
        if around in self.compared:
            return ()
        self.compared.add(around)
        return [(place, s) for place, s in self.blocks[text[at : at + _BLOCK]] if IN_A_ROW not in self.hits[place]]

    def found(self) -> dict[str, Found]:
        """The items with an overlap, by name."""

        def hit(place: _Place) -> Hit | None:
            rules = self.hits.get(place)
            if not rules:
                return None
            named = tuple(rule for rule in RULES if rule in rules)
            return Hit(named, rules[named[0]])

        both = {item.name: Found(hit((n, "question")), hit((n, "answer"))) for n, item in enumerate(self.items)}
        return {name: found for name, found in both.items() if found.question or found.answer}


_Place = tuple[int, str]


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold())


def _windows(words: list[str], size: int) -> Iterator[tuple[str, ...]]:
    """All runs of `size` words."""
    return zip(*(words[i:] for i in range(size)), strict=False)


def _own_words(texts: Sequence[list[str]]) -> list[list[str]]:
    """Each text without the words that all of them begin with, and those that all of them end with."""
    if len(texts) < 2:
        return list(texts)
    first = _alike(texts, lambda words, i: words[i])
    rest = [words[first:] for words in texts]
    last = _alike(rest, lambda words, i: words[-1 - i])
    return [words[: len(words) - last] for words in rest]


def _alike(texts: Sequence[list[str]], word: Callable[[list[str], int], str]) -> int:
    """How many words are the same in all texts, counted by `word(text, number)`."""
    shortest = min(map(len, texts))
    return next((i for i in range(shortest) if len({word(words, i) for words in texts}) > 1), shortest)


def _common(one: str, at: int, other: str, there: int) -> int:
    """How many characters two texts share in a row around a block that both hold; counted up to `_BLOCK` each way."""
    left = right = 0
    while left < _BLOCK and left < min(at, there) and one[at - left - 1] == other[there - left - 1]:
        left += 1
    end, stop = at + _BLOCK, there + _BLOCK
    while right < _BLOCK and right < min(len(one) - end, len(other) - stop) and one[end + right] == other[stop + right]:
        right += 1
    return left + _BLOCK + right
