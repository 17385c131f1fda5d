"""What training by a method cost beside `sft`, from the train records in the entries of committed boards.

Compared is one number each for forward tokens, backward tokens, seconds and peak memory, over all stages of a cell and
the mean over its cells, with the cells of `sft` of the same seeds, on the same model at the same budget, batch and
precision: seeds draw rows of other lengths. Opening, saving, curation and generation are not in it.
"""

from __future__ import annotations

import json
import tarfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from harness.results.frame import STEPPING

_RUNNING = (*STEPPING, "data")  # a method that scores rows before it trains on them does so while data are prepared
_SAME = ("budget", "batch_size", "precision")
_PLAIN = "sft"


@dataclass(frozen=True)
class Spent:
    """forward, backward: tokens.  seconds.  peak: bytes."""

    forward: float
    backward: float
    seconds: float
    peak: float


def relative_costs(boards: Path) -> dict[str, Spent]:
    """By method, how many times what `sft` spent. A method is in it if a cell of it alone was trained by us, and one of
    `sft` in the same way with the same seed. boards: a folder of boards, each with a folder `entries`; it may be
    missing."""
    found: dict[str, dict[str, list[tuple[int, Spent]]]] = defaultdict(lambda: defaultdict(list))
    for file in sorted(boards.glob("*/entries/**/*.tar.gz")):
        records = list(_train_records(file))
        if records and (name := _method(records)):
            identity = records[0]["identity"]
            found[_way(identity)][name].append((identity["seed"], _spent([r["cost"] for r in records])))
    made: dict[str, Spent] = {}
    for cells in found.values():
        for name, ours in cells.items():
            seeds = {seed for seed, _ in ours} & {seed for seed, _ in cells.get(_PLAIN, ())}
            if seeds:
                spent, plain = (astuple(_mean([s for seed, s in of if seed in seeds])) for of in (ours, cells[_PLAIN]))
                made[name] = Spent(*(a / b for a, b in zip(spent, plain, strict=True)))
    return made


def _train_records(file: Path) -> Iterator[dict[str, Any]]:
    with tarfile.open(file) as tar:
        for member in tar:
            if member.name.startswith("train/") and member.name.endswith("/record.json"):
                stream = tar.extractfile(member)
                record = json.load(stream) if stream else {}
                if record.get("status") == "ok":
                    yield record


def _method(records: Sequence[Mapping[str, Any]]) -> str | None:
    """The one method of a cell that the native trainer ran, in stages or not; None for a stack and for a chain."""
    identity = records[0]["identity"]
    stack, trainer = identity["stack"], identity["trainer"]
    if any(record["identity"]["stack"] != stack for record in records):
        return None
    return str(stack[0][0]) if len(stack) == 1 and trainer[0] == "native" else None


def _way(identity: Mapping[str, Any]) -> str:
    settings = identity["settings"]
    return json.dumps([identity["model"], {name: settings[name] for name in _SAME}], sort_keys=True)


def _spent(costs: Sequence[Mapping[str, Any]]) -> Spent:
    trained = sum(cost["trained_tokens"] for cost in costs)
    return Spent(
        forward=trained + sum(sum(cost["extra_forward_tokens"].values()) for cost in costs),
        backward=trained,
        seconds=sum(cost["seconds"].get(phase, 0.0) for cost in costs for phase in _RUNNING),
        peak=max(max(cost["peak_bytes"].values(), default=0) for cost in costs),
    )


def _mean(cells: Sequence[Spent]) -> Spent:
    return Spent(*(fmean(values) for values in zip(*map(astuple, cells), strict=True)))
