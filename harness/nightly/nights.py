"""Nights: what each night of a board measured, in files that are only ever added to.

    BOARD/NIGHT/night.json       when, software, machine, matrix; written first
                results.jsonl    a line for every cell, task and metric of every part of the night
                items/           scores by item, one Parquet file a cell and seed, named by its digest; kept for ever
                stores/          the steps behind them: answers and weights, which may be deleted
                report.json      the verdict; a night without one is not finished
    BOARD/baseline.json          the accepted night (`baseline.py`)

A part is one set of measurements (`frozen`, `retrained`, ...). Its lines are followed by one that says it is whole, so
that what a kill cut off is measured again and never read. A night that was missed is not there, and nothing stands in
for it. Nothing is compared here.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.results.frame import Result, TaskView
from harness.results.items import KnownItems, Samples, read_items
from harness.store import disk

FACTS = ("started", "packages", "environment", "machine", "matrix", "overrides", "limit", "only", "seeds")
REPAIR = "take it from a copy, or move the night's folder away: the other nights do not need it"
NAME = re.compile(r"\d{4}-\d\d-\d\d(\.[1-9]\d*)?")


@dataclass(frozen=True)
class Line:
    """One cell (without its seed) on one task by one metric.

    value: mean over seeds, None where a seed has none, and `reason` says why.  by_seed: in the order of `seeds`.
    keys: of the score steps.  items: digests of the per-item files.  protocol: digest of how it was measured, software
    versions apart.  training: digest of how it was trained, its seed apart.  environment: digest of the software.
    store: where its steps are, in the night's folder.  names: of the cells, one a seed.
    """

    part: str
    cell: str
    suite: str
    task: str
    metric: str
    headline: bool
    state: str
    reason: str
    value: float | None
    n: int | None
    seeds: tuple[int | None, ...]
    by_seed: tuple[float | None, ...]
    names: tuple[str, ...]
    keys: tuple[str, ...]
    items: tuple[str, ...]
    protocol: str
    training: str
    environment: str
    machine: str
    store: str

    @property
    def what(self) -> tuple[str, str, str]:
        """What it is a measurement of."""
        return self.cell, self.task, self.metric

    @classmethod
    def from_json(cls, body: dict[str, Any]) -> Line:
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in body.items()}
        return cls(**fields)


@dataclass(frozen=True)
class Measured:
    """A line with its results, one a seed, whose samples hold the scores by item. No results where it has no value."""

    line: Line
    results: tuple[Result, ...]


class Night:
    """One night's folder. It is made by `begin`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.torn: list[str] = []

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def finished(self) -> bool:
        return (self.folder / "report.json").exists()

    def facts(self) -> dict[str, Any]:
        """What is known of the night as a whole: software, machine, matrix."""
        return _read(self.folder / "night.json", FACTS)

    def report(self) -> dict[str, Any]:
        """The report of a finished night."""
        return _read(self.folder / "report.json", ("code", "verdict", "findings", "accepted", "costs"))

    def begin(self, facts: dict[str, Any]) -> None:
        """Make the folder."""
        self.folder.mkdir(parents=True)
        disk.write_whole(self.folder / "night.json", json.dumps(facts, indent=1).encode(), durable=True)

    def add(self, part: str, lines: Sequence[Line], extra: dict[str, Any] | None = None) -> None:
        """Append the lines of a part, and that it is whole. extra: what else there is to say of it."""
        end = {"end": part, "lines": len(lines), **(extra or {})}
        text = "".join(json.dumps(body) + "\n" for body in [*map(asdict, lines), end])
        with disk.guard(self.folder), (self.folder / "results.jsonl").open("a+b") as file:
            file.seek(0, os.SEEK_END)
            if file.tell() and _last_byte(file) != b"\n":
                text = "\n" + text  # what a kill cut off stays as it is, on a line of its own
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())

    def parts(self) -> dict[str, tuple[list[Line], dict[str, Any]]]:
        """Every whole part, with its lines and what was said of it. Torn lines are named in `torn`."""
        self.torn = []
        found: dict[str, tuple[list[Line], dict[str, Any]]] = {}
        open_lines: list[Line] = []
        for body in self._bodies():
            if not isinstance(body, dict) or "end" not in body:
                open_lines.append(self._line(body))
                continue
            mine = [line for line in open_lines if line.part == body["end"]][-body["lines"] :] if body["lines"] else []
            found[body["end"]] = (mine, body)
            open_lines = []
        return found

    def _bodies(self) -> Iterator[dict[str, Any]]:
        file = self.folder / "results.jsonl"
        if not file.exists():
            return
        for number, text in enumerate(file.read_text(encoding="utf-8").split("\n"), 1):
            if not text:
                continue
            try:
                yield json.loads(text)
            except ValueError:
                self.torn.append(f"{file}:{number}: a line was cut off and is not read")

    def _line(self, body: Any) -> Line:
        try:
            return Line.from_json(body)
        except (TypeError, AttributeError) as error:
            raise HarnessError(
                "a line of the night's results has not the fields of one",
                where=str(self.folder / "results.jsonl"),
                why=str(error),
                todo=REPAIR,
            ) from None

    def measured(self, part: str, known: KnownItems | None = None) -> list[Measured]:
        """A part with its scores by item."""
        return self.with_samples(self.parts()[part][0], known)

    def with_samples(self, lines: Sequence[Line], known: KnownItems | None = None) -> list[Measured]:
        """Lines of this night with their scores by item."""
        cache: dict[str, dict[tuple[str, str], Samples]] = {}
        shared: KnownItems = {} if known is None else known
        return [Measured(line, self._results(line, cache, shared)) for line in lines]

    def _results(
        self, line: Line, cache: dict[str, dict[tuple[str, str], Samples]], known: KnownItems
    ) -> tuple[Result, ...]:
        if line.value is None:
            return ()
        task = TaskView(line.suite, line.task, line.metric, line.headline, "", line.protocol)
        found = []
        for seed, value, key, digest in zip(line.seeds, line.by_seed, line.keys, line.items, strict=True):
            if digest not in cache:
                cache[digest] = read_items(self.folder / "items" / f"{digest}.parquet", known)
            samples = cache[digest].get((key, line.metric))
            found.append(Result(task, "ok", "", value, line.n, samples, seed=seed, settled=seed is None))
        return tuple(found)


def _read(file: Path, names: Sequence[str]) -> dict[str, Any]:
    """A file of a night. HarnessError where it cannot be read or lacks one of the names."""
    try:
        body: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        missing = [name for name in names if name not in body]
    except (OSError, ValueError, TypeError) as error:
        raise HarnessError("a file of a night cannot be read", where=str(file), why=str(error), todo=REPAIR) from None
    if missing:
        why = f"it lacks {', '.join(missing)}"
        raise HarnessError("a file of a night is not what it should be", where=str(file), why=why, todo=REPAIR)
    return body


def _last_byte(file: Any) -> bytes:
    file.seek(-1, os.SEEK_END)
    last: bytes = file.read(1)
    return last


@dataclass(frozen=True)
class Nights:
    """All nights of one board, in their order."""

    root: Path
    board: str
    unreadable: list[str] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        return self.root / self.board

    def all(self) -> list[Night]:
        """Every night that was begun, the oldest first. Folders of other names are no nights."""
        files = [f for f in self.folder.glob("*/night.json") if NAME.fullmatch(f.parent.name)]
        return [Night(f.parent) for f in sorted(files, key=lambda f: night_order(f.parent.name))]

    def finished(self) -> list[Night]:
        return [night for night in self.all() if night.finished]

    def named(self, name: str) -> Night:
        """A night by name; `last` is the newest finished one. HarnessError with the names there are."""
        nights = self.all()
        if name == "last" and (done := [n for n in nights if n.finished]):
            return done[-1]
        for night in nights:
            if night.name == name:
                return night
        if name == "last" and nights:
            todo = "the same `harness nightly` command goes on with it"
            raise HarnessError("no night is finished yet", where=str(nights[-1].folder), todo=todo)
        known = ", ".join(n.name for n in nights[-5:]) or "none yet: run `harness nightly` first"
        raise HarnessError(f"there is no night `{name}`", where=str(self.folder), todo=f"the latest are: {known}")

    def new(self, date: str) -> Night:
        """The next night of a date: `2026-01-31`, then `2026-01-31.2`."""
        taken = {night.name for night in self.all()}
        number = 1
        while (name := date if number == 1 else f"{date}.{number}") in taken:
            number += 1
        return Night(self.folder / name)


def night_order(name: str) -> tuple[str, int]:
    """By date, and within a date by number, as a number."""
    date, _, number = name.partition(".")
    return date, int(number or 1)
