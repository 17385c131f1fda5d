"""What methods need of training rows, as far as planning can tell: fields, pairs, answers that can be checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.errors import Refused
from harness.methods.base import Method, Stage, overrides, owner, stage_stack
from harness.methods.sampling import sampling
from harness.training.verify import checker


def of_rows(need: str) -> bool:
    """Whether a need is one of the rows."""
    return need == "pairs" or need.startswith("column:")


def lacking(need: str, method: str, data: str, kept: Sequence[str]) -> Refused:
    """A method needs something of its rows that the first row of the data has not. kept: that row's columns."""
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
