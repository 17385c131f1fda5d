"""The data step: every member's `curate` over the rows, and a ledger of what it changed. Trains nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.errors import HarnessError, Refused
from harness.methods.base import Method, Row, overrides


def is_identity(stack: Sequence[Method]) -> bool:
    """Whether the stack leaves the rows as they are; then there is nothing to run and nothing to load."""
    return not any(overrides(m, "curate") for m in stack)


def curate(
    stack: Sequence[Method], rows: list[Row], *, seed: int, model: Path | None = None
) -> tuple[dict[str, list[Row]], list[dict[str, Any]]]:
    """Named sets of rows ("train" among them unless the last member names others), and the ledger.

    model: folder of the base, for methods that tokenise.  A ledger entry is {"by": method, "set", "id", "change":
    "dropped" | "added" | "changed"}. Refused if a member that is not the last one to curate splits the rows.
    """
    if is_identity(stack):
        return {"train": rows}, []
    ctx = _context(stack, rows, seed, model)
    curators = [m for m in stack if overrides(m, "curate")]
    ledger: list[dict[str, Any]] = []
    for i, member in enumerate(curators):
        result = member.curate(list(rows), ctx)
        if isinstance(result, dict):
            if i + 1 < len(curators):
                raise Refused(
                    f"`{member.name}` splits the rows into sets, and `{curators[i + 1].name}` curates after it",
                    todo="put the member that splits last",
                )
            sets = {name: list(found) for name, found in result.items()}
        else:
            sets = {"train": list(result)}
        ledger += _ledger(member.name, rows, sets)
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


def _ledger(by: str, before: list[Row], sets: Mapping[str, list[Row]]) -> list[dict[str, Any]]:
    old = {row["id"]: row for row in before}
    kept = {row["id"] for found in sets.values() for row in found}
    lines = [{"by": by, "set": "", "id": i, "change": "dropped"} for i in old if i not in kept]
    for name, found in sets.items():
        for row in found:
            if row["id"] not in old:
                lines.append({"by": by, "set": name, "id": row["id"], "change": "added"})
            elif row != old[row["id"]]:
                lines.append({"by": by, "set": name, "id": row["id"], "change": "changed"})
    return lines
