"""The accepted night of a board: a small file that only `harness accept` changes, with who, why and when.

`since`: from which night on the level is the same, so that later nights may be averaged with it. It moves to the
accepted night where that one had found a change, and stays where it is otherwise.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from harness.errors import HarnessError, Refused
from harness.nightly.nights import Night, Nights, night_order
from harness.store import disk

FILE = "baseline.json"
CHANGED = (3, 4)  # verdicts of a night whose acceptance means that the level has moved


@dataclass(frozen=True)
class Baseline:
    """Which night is accepted."""

    night: str
    who: str
    why: str
    when: str
    since: str

    def covers(self, name: str) -> bool:
        """Whether a night is not older than the level."""
        return night_order(name) >= night_order(self.since)


def read_baseline(nights: Nights) -> Baseline | None:
    """The pointer, or None before the first acceptance. HarnessError if it is no such file."""
    file = nights.folder / FILE
    if not file.exists():
        return None
    try:
        body: dict[str, Any] = json.loads(file.read_text())
        history_of(body)
        return Baseline(**{name: body[name] for name in ("night", "who", "why", "when", "since")})
    except (ValueError, KeyError, TypeError) as error:
        todo = "take it from a copy, or remove it and accept a night anew"
        raise HarnessError("the baseline cannot be read", where=str(file), why=repr(error), todo=todo) from None


def history_of(body: dict[str, Any]) -> list[dict[str, Any]]:
    """Every acceptance, the oldest first. KeyError or TypeError where there is no such list."""
    return [{name: each[name] for name in ("night", "who", "why", "when", "since")} for each in body["history"]]


def accept(nights: Nights, night: Night, *, who: str, why: str, when: str) -> Baseline:
    """Make a finished night the baseline. Refused for one that is not, or that has no result at all."""
    if not why.strip():
        raise HarnessError("an acceptance needs a reason", todo="--why 'transformers 5.20, checked by hand'")
    if not night.finished:
        raise Refused(
            f"night {night.name} is not finished", where=str(night.folder), todo="run `harness nightly` again"
        )
    if part := night.facts()["only"]:
        why = f"it measured only {', '.join(part)}"
        raise Refused(f"night {night.name} is a part of the matrix", where=str(night.folder), why=why)
    if not any(line.value is not None for lines, _ in night.parts().values() for line in lines):
        raise Refused(f"night {night.name} has no result", where=str(night.folder), todo="accept another night")
    before = read_baseline(nights)
    moved = before is None or night.report()["code"] in CHANGED
    made = Baseline(night.name, who, why, when, night.name if before is None or moved else before.since)
    history = history_of(json.loads((nights.folder / FILE).read_text())) if before else []
    body = {"schema": "harness-baseline", "version": 1, **asdict(made), "history": [*history, asdict(made)]}
    disk.write_whole(nights.folder / FILE, json.dumps(body, indent=1).encode(), durable=True)
    return made
