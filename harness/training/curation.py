"""The data step: every member's `curate` over the rows, and a ledger of what it changed. Trains nothing.

The rows that a stage makes for itself are kept here too, with a ledger of the same form.
"""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.engines.base import Artifact, EngineSpec
from harness.errors import HarnessError
from harness.methods.base import Method, Row, overrides
from harness.training.data import read_rows

if TYPE_CHECKING:
    from harness.training.budget import Meter
    from harness.training.context import Context


def is_identity(stack: Sequence[Method]) -> bool:
    """Whether the stack leaves the rows as they are; then there is nothing to run and nothing to load."""
    return not any(overrides(m, "curate") for m in stack)


def curate(
    stack: Sequence[Method],
    rows: list[Row],
    *,
    seed: int,
    model: Path | None = None,
    engine: EngineSpec | None = None,
    meter: Meter | None = None,
    told: Callable[[int, int], None] = lambda answered, asked: None,
) -> tuple[dict[str, list[Row]], list[dict[str, Any]]]:
    """Named sets of rows ("train" among them unless the last member names others), and the ledger.

    model: folder of the base, for methods that tokenise.  engine: what answers for methods that need a generator, as
    the model "base".  meter: bills it.  told: hears how many of its requests are answered.  A ledger entry is
    {"by": method, "set", "id", "change": "dropped" | "added" | "changed" | "kept"}, and what the member noted of that
    row; rows that it left as they were and noted nothing of are not in it. HarnessError for a set that a member does
    not name in `sets`.
    """
    if is_identity(stack):
        return {"train": rows}, []
    ctx = _context(stack, rows, seed, model)
    ctx.meter = meter or ctx.meter
    if not (engine and model):
        return _curated(stack, rows, ctx)
    from harness.training.resident import Resident

    ctx.generator = Resident(engine, model, functools.partial(_only_base, model), ctx.meter.phase, told)
    try:
        return _curated(stack, rows, ctx)
    finally:
        ctx.generator.close()


def _only_base(folder: Path, name: str) -> Artifact:
    if name != "base":
        raise HarnessError(f"rows are curated before anything trains, so there is no model `{name}`")
    return Artifact(folder, "base", name=name)


def _curated(
    stack: Sequence[Method], rows: list[Row], ctx: Context
) -> tuple[dict[str, list[Row]], list[dict[str, Any]]]:
    curators = [m for m in stack if overrides(m, "curate")]
    ledger: list[dict[str, Any]] = []
    for member in curators:
        with ctx.meter.phase("curate"):
            result = member.curate(list(rows), ctx)
        if isinstance(result, dict):
            if unknown := sorted(result.keys() - member.sets - {"train"}):
                raise HarnessError(
                    f"`{member.name}` gives the set of rows `{unknown[0]}`, which it does not name in `sets`",
                    todo=f'in its class: sets = frozenset({{"{unknown[0]}"}})',
                )
            sets = {name: list(found) for name, found in result.items()}
        else:
            sets = {"train": list(result)}
        ledger += ledger_of(member.name, rows, sets, ctx.notes)
        ctx.notes = {}
        rows = sets.get("train", [])
    empty = [name for name, found in sets.items() if not found]
    if empty:
        raise HarnessError(f"`{curators[-1].name}` left no rows in the set `{empty[0]}`")
    return sets, ledger


def _context(stack: Sequence[Method], rows: list[Row], seed: int, model: Path | None) -> Any:
    from harness.methods.base import Stage
    from harness.training.context import Context
    from harness.training.opening import open_tokenizer
    from harness.training.stage import device

    tokenizer = open_tokenizer(model) if model else None
    ctx = Context(seed=seed, device=device(), tokenizer=tokenizer, limit=2**31, precision="fp32")
    ctx.enter(Stage("curate"), stack)
    ctx.add_rows("train", rows)
    return ctx


def ledger_of(
    by: str, before: Iterable[Row], sets: Mapping[str, list[Row]], notes: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """One line for every change and every noted row. before: where a row stands there in several forms, all count."""
    old: dict[str, list[Row]] = {}
    for row in before:
        old.setdefault(row["id"], []).append(row)
    left = {row["id"] for found in sets.values() for row in found}
    lines = [{"by": by, "set": "", "id": i, "change": "dropped"} for i in old if i not in left]
    for name, found in sets.items():
        for row in found:
            if row["id"] not in old:
                lines.append({"by": by, "set": name, "id": row["id"], "change": "added"})
            elif row not in old[row["id"]]:
                lines.append({"by": by, "set": name, "id": row["id"], "change": "changed"})
    told = {line["id"] for line in lines}
    for name, found in sets.items():
        noted = [row["id"] for row in found if row["id"] in notes and row["id"] not in told]
        lines += [{"by": by, "set": name, "id": i, "change": "kept"} for i in noted]
    return [{**line, **notes.get(line["id"], {})} for line in lines]


def made_rows(
    ctx: Context, make: Callable[[Context], list[Row]], by: str, sets: Iterable[str], folders: Sequence[Path]
) -> list[Row]:
    """The rows that a stage makes. Those that took a generator are kept as `rows.jsonl`, with a `ledger.jsonl`, in the
    first folder: they cost much, and asked again might differ. Such rows are plain values, and making them leaves
    `ctx.memory` alone.

    by: the method.  sets: names of those that they are held against.  folders: the others are of attempts that ended,
    and may have the rows.
    """
    if "generator" not in ctx.needs:
        return make(ctx)
    names = ("ledger.jsonl", "rows.jsonl")  # written in this order, so that there are rows only beside a ledger
    work = folders[0]
    done = next((folder for folder in folders if (folder / names[-1]).exists()), None)
    if done is None:
        rows = make(ctx)
        before = (row for name in sets for row in ctx.rows(name))
        _write(work / names[0], ledger_of(by, before, {ctx.stage.name: rows}, ctx.notes))
        _write(work / names[1], rows)
        ctx.notes = {}
        return rows
    if done != work:
        for name in names:
            shutil.copyfile(done / name, work / name)
    return read_rows(work / names[1])


def _write(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    part = path.with_suffix(".part")
    part.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    part.replace(path)
