"""Part 3 of `training.py`: what each method of a board costs beside SFT, and what the passes it is billed for explain.

Every method that a matrix trains from the base model, with the matrix's own data, parameters and settings and all its
stages. Left out are those that change the rows first, whose time is an engine's, those whose parameters are searched,
and those trained by groups, on rows of their own. Methods that sample their answers are compared by the seconds of
passes and optimiser alone: how fast an engine samples is part 4.
"""

from __future__ import annotations

import functools
import json
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

from training_runs import Bench, Spent, in_turns

from harness import methods
from harness.data import sources
from harness.data.chat import to_rows
from harness.engines.base import EngineSpec
from harness.matrix import Budget, load_matrix
from harness.matrix.method_entries import TUNED
from harness.matrix.schema import DataEntry
from harness.methods.base import generates, overrides

PLAIN = "sft"
ROWS = 300


def write_rows(entry: DataEntry, mirror: Path | None, file: Path) -> Path:
    """The first rows of a data set as conversations."""
    few = entry.model_copy(update={"rows": entry.rows or ROWS})
    rows = to_rows(sources.rows(sources.pin(few, mirror=mirror, offline=mirror is not None)), few)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def runs_of(
    matrix: Path, model: Path, mirror: Path | None, steps: int, folder: Path, only: Sequence[str]
) -> tuple[dict[str, Callable[[], Spent]], set[str]]:
    """A run of every method that trains from the base model, SFT first, and which of them sample."""
    read = load_matrix(matrix)
    files: dict[str, Path] = {}
    found: dict[str, Callable[[], Spent]] = {}
    sampled = set()
    for name, entry in read.methods.items():
        stack = methods.build(entry.stack)
        idle = entry.start or not all(m.trains for m in stack) or any(overrides(m, "curate") for m in stack)
        if idle or entry.groups or name.endswith(TUNED) or (only and name not in (PLAIN, *only)):
            continue
        if any(m.rollouts is not None for m in stack):
            sampled.add(name)
        if entry.data not in files:
            files[entry.data] = write_rows(read.data[entry.data], mirror, folder / f"{entry.data}.jsonl")
        settings = entry.train.model_copy(update={"budget": Budget(steps=steps)})
        engine = EngineSpec(max_model_len=read.engine.max_model_len) if generates(stack) else None
        bench = Bench(model, [], files[entry.data], settings)
        found[name] = functools.partial(bench.train, "native", entry.stack, engine)
    return {PLAIN: found.pop(PLAIN), **found}, sampled


def overhead(
    matrix: Path, model: Path, mirror: Path | None, *, steps: int, rounds: int, folder: Path, only: Sequence[str]
) -> list[str]:
    """A line for each method."""
    runs, sampled = runs_of(matrix, model, mirror, steps, folder, only)
    found = in_turns(runs, rounds)
    lines = [
        f"seconds a trained token, as a multiple of SFT's, median of {rounds} rounds in turns of {steps} steps",
        "extra tokens: of further forward passes, for each trained; explained: by them, a pass being a third of a step",
        "*: answers are sampled, and only passes and optimiser are compared",
        f"  {'method':<12}{'measured':>10}{'lowest':>9}{'highest':>9}{'extra tokens':>14}{'explained':>11}",
    ]
    for name in [n for n in runs if n != PLAIN]:
        pairs = list(zip(found[PLAIN], found[name], strict=True))
        ratios = [a.passes / b.passes if name in sampled else a.rate / b.rate for a, b in pairs]
        extra = found[name][-1].extra / found[name][-1].tokens
        numbers = f"{statistics.median(ratios):>10.2f}{min(ratios):>9.2f}{max(ratios):>9.2f}{extra:>14.2f}"
        lines.append(f"  {name + '*' * (name in sampled):<12}{numbers}{1 + extra / 3:>11.2f}")
    return lines
