"""What a board measures, resolved: its tasks, and for each the digests of data, questions and scorer.

Today's code gives the digests; a board pins them in board.yaml, and both must agree before anything is compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.boards.board import BOARD, Board, Pins
from harness.digest import digest
from harness.engines.base import EngineSpec
from harness.errors import HarnessError, Problems
from harness.evaluation.suite import choose_tasks, load_suite
from harness.evaluation.task import Task
from harness.planning.keys import answerer
from harness.planning.plan import Where


@dataclass(frozen=True)
class Measured:
    """A task of a board. what: all that is measured but the model, as in `plan.measured`."""

    task: Task
    what: Mapping[str, Any]
    pins: Pins

    @property
    def limited(self) -> int | None:
        """The limit on its test set, None for the whole."""
        limit: int | None = self.what["task"]["limit"]
        return limit


def short(value: Any) -> str:
    """A digest as boards pin it."""
    return digest(value)[:16]


def measured_by(board: Board, where: Where) -> dict[str, Measured]:
    """A board's tasks by name, by today's code. HarnessError or Problems where their data are not at hand."""
    engine = EngineSpec(**board.engine.model_dump())
    found: dict[str, Measured] = {}
    for name, entry in board.suites.items():
        tasks, _ = choose_tasks(
            load_suite(name),
            limit=entry.limit,
            only=entry.tasks,
            made=entry.made,
            mirror=where.mirror,
            offline=where.offline,
        )
        for task in tasks:
            found[task.name] = _measured(task, engine)
    return found


def _measured(task: Task, engine: EngineSpec) -> Measured:
    if task.form.judge:
        raise HarnessError(
            f"task `{task.name}` asks a judge, and boards admit no judged tasks",
            why="a judge's words cannot be had again from the entry alone",
            todo="leave it out of `suites`",
        )
    asking, scoring, by = task.asking(), task.scoring(), answerer(task, engine)
    pins = Pins(data=task.source.digest[:16], asked=short({"task": asking, **by}), scorer=short(scoring))
    return Measured(task, {"task": asking, "scoring": scoring, **by}, pins)


def check_pins(board: Board, tasks: Mapping[str, Measured], folder: Path) -> None:
    """Problems where board.yaml pins something else than today's code measures, or pins nothing."""
    problems = list(_pin_problems(board, tasks, str(folder / BOARD)))
    if problems:
        raise Problems(problems)


def _pin_problems(board: Board, tasks: Mapping[str, Measured], file: str) -> Iterator[HarnessError]:
    todo = f"harness publish {Path(file).parent} --protocol prints today's; other digests make another board"
    for name in sorted(board.protocol.keys() - tasks.keys()):
        yield HarnessError("no suite of the board has such a task", where=f"{file}: protocol.{name}", todo=todo)
    for name, task in tasks.items():
        pinned = board.protocol.get(name)
        if pinned is None:
            yield HarnessError("nothing is pinned for this task", where=f"{file}: protocol.{name}", todo=todo)
            continue
        for part in Pins.model_fields:
            was, now = getattr(pinned, part), getattr(task.pins, part)
            if was != now:
                what = f"the board pins {was}, and today's code measures {now}"
                yield HarnessError(what, where=f"{file}: protocol.{name}.{part}", todo=todo)
    allowed = board.admission.regimes
    for name, task in tasks.items():
        if allowed is not None and task.task.form.regime not in allowed:
            what = f"its regime is `{task.task.form.regime}`; the board admits {', '.join(allowed)}"
            yield HarnessError(what, where=f"{file}: admission.regimes ({name})")


def as_yaml(tasks: Mapping[str, Measured]) -> str:
    """The `protocol:` of a board, to be pasted into its board.yaml."""
    lines = [
        f"  {name}: {{data: '{t.pins.data}', asked: '{t.pins.asked}', scorer: '{t.pins.scorer}'}}"
        for name, t in tasks.items()
    ]
    return "\n".join(["protocol:", *lines])
