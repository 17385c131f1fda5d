"""What the search for the parameters of a cell came to, as tables show it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.store import Record


@dataclass(frozen=True)
class Tuning:
    """What a search for parameters came to. loss, default_loss: on held-out training rows, with the best parameters and
    with the default ones; None where these diverged.  diverged, failed: trials that count as spent all the same."""

    trials: int
    parameters: Mapping[str, float]
    loss: float | None
    default_loss: float | None
    diverged: int
    failed: int
    held_out: int


def tuning_of(searched: Record | None) -> Tuning | None:
    """From the record of a search, if there is one."""
    if searched is None:
        return None
    named = {f.name: searched.extra[f.name] for f in fields(Tuning) if f.name != "trials"}
    return Tuning(trials=searched.cost["trials"], **named)
