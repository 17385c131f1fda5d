"""What every step function gets, and how it takes a step."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.planning.plan import Plan
from harness.planning.planned import WHOLE, PlannedCell, Step
from harness.planning.tuning import rebuilt, with_parameters
from harness.store import Attempt, Busy, Done, Record, Store

Report = Callable[[str, float, float, str], None]  # step key, done, total, note

WAIT = 1.0  # seconds between looks at a step that another run is working on


@dataclass(frozen=True)
class Bench:
    """The plan, the store, where to report progress, and where this process's log goes (for `harness status`)."""

    plan: Plan
    store: Store
    report: Report
    log: Path | None = None

    def hold(self, step: Step) -> Attempt | Record:
        """Claim a step, or wait until whoever holds it is done or dead. A Record means that it is finished.

        A step whose weights or answers were not kept is claimed again, since it would not be asked for if nothing
        needed them.
        """
        while True:
            try:
                return self.store.claim(step.kind, step.key, step.identity, whole=step.kind in WHOLE, log=self.log)
            except Done as done:
                return done.record
            except Busy as busy:
                self.report(step.key, 0, 0, f"waiting for {busy}")
                time.sleep(WAIT)

    def finished(self, kind: str, key: str) -> Record:
        """The record of a step that must be there by now, with its weights or answers. HarnessError without."""
        record = self.store.find(kind, key, whole=kind in WHOLE)
        if record is None:
            past = self.store.history(kind, key)
            why = past[-1].message if past else "it was not done"
            raise HarnessError(f"the {kind} step {key} is not in the store", why=why, todo="run the same command again")
        return record

    def settled(self, cell: PlannedCell) -> PlannedCell:
        """The cell with the parameters that its search has found; as it is where there was none."""
        if cell.tune is None:
            return cell
        chosen = with_parameters(cell.cell, self.finished("tune", cell.tune.key).extra["parameters"])
        stack, stages = rebuilt(chosen, cell.stages)
        return replace(cell, cell=chosen, stack=stack, stages=stages)


def write_lines(file: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """JSON Lines, one object a line, UTF-8."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", encoding="utf-8") as f:
        for row in rows:
            f.write(json.dumps(row, ensure_ascii=False) + "\n")
