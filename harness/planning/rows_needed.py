"""What methods need of training rows, as far as planning can tell: fields, pairs, answers that can be checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.errors import Refused
from harness.methods.base import Method, Stage, overrides, owner, stage_stack
from harness.methods.sampling import sampling
from harness.training.verify import checker


def lacking(
    stack: Sequence[Method], stages: Sequence[Stage], data: str, kept: Sequence[str], *, pairs: bool
) -> list[Refused]:
    """What members need of their rows that the data has not and no curation makes. kept: columns of its first row.

    A member that curates reads the rows as those before it left them, the others as all of them did.
    """
    have = {*(f"column:{name}" for name in kept), "pairs" if pairs else "answer"}
    made: set[str] = set()
    before = {}
    for member in stack:
        before[member.name] = set(made)
        made |= member.makes
    wants: dict[str, str] = {}
    for member in (*stack, *(m for s in stages for m in s.run)):
        found = have | (before[member.name] if overrides(member, "curate") and member.name in before else made)
        wants |= {need: member.name for need in member.needs if _of_rows(need) and need not in found}
    return [_lacks(need, wants[need], data, kept) for need in sorted(wants)]


def _of_rows(need: str) -> bool:
    return need in ("pairs", "answer") or need.startswith("column:")


def _lacks(need: str, method: str, data: str, kept: Sequence[str]) -> Refused:
    if need == "answer":
        return Refused(
            f"`{method}` reads one answer a row, and the data `{data}` has pairs of answers",
            todo="give it rows with one answer (`data:`)",
        )
    if need == "pairs":
        return Refused(
            f"`{method}` learns from pairs of answers, and the data `{data}` has one answer a row",
            todo="give it rows with `chosen` and `rejected` (`data:`)",
        )
    name = need.partition(":")[2]
    return Refused(
        f"`{method}` needs the column `{name}` of every row, and the data `{data}` has none",
        why=f"beside its conversation the first row has {', '.join(kept) or 'nothing'}",
        todo=f"give it rows with `{name}` (`data:`)",
    )


def checks_rows(stack: Sequence[Method], stages: Sequence[Stage]) -> str | None:
    """The member whose sampled answers to the training rows are checked by the rows themselves, if there is one: nobody
    brings a reward of its own, and nobody changes the rows."""
    acting = [stage_stack(stack, stage) for stage in stages if stage.rows == "train"]
    checked = [a for a in acting if sampling(a) and not overrides(owner(a, "reward"), "reward")]
    if not checked or any(overrides(m, "curate") for m in stack):
        return None
    return next(m.name for m in checked[0] if m.rollouts is not None)


def check_rows(rows: Sequence[dict[str, Any]]) -> bool:
    """Refused for a row whose answers cannot be checked."""
    for row in rows:
        checker(row)
    return True
