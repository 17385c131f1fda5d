"""The verdict on one answer: a named outcome and a sentence that says why."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Verdict:
    """`outcome` is "pass" or one of the failures that a scorer lists; `detail` is for people and is never parsed."""

    outcome: str
    detail: str = ""

    @property
    def passed(self) -> bool:
        return self.outcome == "pass"
