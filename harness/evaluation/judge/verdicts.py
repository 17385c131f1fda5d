"""From a judge's words to a verdict, or to the reason why there is none. Nothing is guessed from its prose."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from harness.engines.base import Response

Better = Literal["1", "2", "tie"]

_READ = 20_000  # characters from the end of a reply; a verdict stands there, or there is none
_LINE = 80  # characters a line with a verdict has at most
_DRESS = re.compile(r"[*_`#>\[\]\s]+")
_VERDICT = re.compile(r"(?:final )?verdict ?: ?(?:answer )?(1|2|tie)\.?", re.IGNORECASE)
_GRADE = re.compile(r"(?:\W{0,3})(\w+) ?[:=] ?(\d{1,4})(?: ?/ ?(\d{1,4}))?\.?", re.IGNORECASE)


@dataclass(frozen=True)
class Verdict:
    """better: what the judge prefers as shown, None where it did not say.  why: the reason for None."""

    better: Better | None
    why: str = ""


@dataclass(frozen=True)
class Grades:
    """values: a grade for each aspect, None where it was not given.  why: what is missing."""

    values: dict[str, int | None]
    why: str = ""

    @property
    def complete(self) -> bool:
        return None not in self.values.values()


def read_verdict(reply: Response) -> Verdict:
    """The verdict of a comparison. Two different ones are none."""
    said = {m[1].lower() for line in _lines(reply.text) if (m := _VERDICT.fullmatch(line))}
    if len(said) == 1:
        better: Better = "1" if "1" in said else "2" if "2" in said else "tie"
        return Verdict(better)
    return Verdict(None, _no_reply(reply) or ("gave several verdicts" if said else "gave no verdict"))


def read_grades(reply: Response, aspects: Sequence[str], scale: int) -> Grades:
    """The grades of an answer: whole numbers from 1 to `scale`, one for each aspect. Two different ones are none."""
    found: dict[str, set[int]] = {name: set() for name in aspects}
    for line in _lines(reply.text):
        match = _GRADE.fullmatch(line)
        if match and match[1].lower() in found and int(match[3] or scale) == scale:
            found[match[1].lower()].add(int(match[2]))
    values = {name: _only(said, scale) for name, said in found.items()}
    missing = [name for name, value in values.items() if value is None]
    return Grades(values, _no_reply(reply) or f"gave no grade for {', '.join(missing)}" if missing else "")


def _only(said: set[int], scale: int) -> int | None:
    (value,) = said if len(said) == 1 else (0,)
    return value if 1 <= value <= scale else None


def _no_reply(reply: Response) -> str:
    known = {"too_long": "was not asked: the prompt does not fit its context", "refused": "refused to answer"}
    return known.get(reply.finish, "")


def _lines(text: str) -> Iterator[str]:
    """The short lines of a reply without what dresses them up."""
    for line in text[-_READ:].splitlines():
        if len(line) <= _LINE:
            yield _DRESS.sub(" ", line).strip()
