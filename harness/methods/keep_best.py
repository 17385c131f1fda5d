"""`keep_best`: the weights of the step with the lowest validation loss are what a stage leaves."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from harness.digest import digest
from harness.errors import HarnessError
from harness.methods.base import Method, Row

if TYPE_CHECKING:
    from torch.nn import Module

    from harness.training.context import Context

SET = "validation"
AT_ONCE = 8  # rows a forward pass


class Params(BaseModel):
    """share: of the rows that are held out, `rows` at most, for a look passes over all of them and thousands would cost
    many times a short training; by groups of one value of the column `together` where one is named, so that no such
    group is on both sides.  interval: steps between looks.  patience: looks without a lower loss after which nothing is
    looked at again.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    share: float = Field(default=0.1, gt=0, lt=1)
    rows: int = Field(default=200, gt=0)
    together: str | None = None
    interval: int = Field(default=10, gt=0)
    patience: int = Field(default=3, gt=0)


class KeepBest(Method):
    """Early stopping on validation loss, as the specification of arXiv 2208.13928 asks; stands beside any method.

    Every `interval` steps, and at the last one: v = mean over the held-out completion tokens of -log p, whoever owns
    the training loss; the weights of the lowest v are kept. After `patience` looks without a lower v the weights kept
    are final. Deviation: training goes on to its budget all the same, so that rows of a table have spent the same; what
    is left is what stopping would have left. The looks are billed; `validation.pt` has the loss by step.
    """

    name: ClassVar[str] = "keep_best"
    paper: ClassVar[str] = "arXiv 2208.13928"
    verified: ClassVar[str] = "training equals that of the stack alone; the weights of the lowest loss are left"
    family: ClassVar[str] = "selection"
    Params: ClassVar[type[BaseModel]] = Params

    sets = frozenset({SET})

    share: float
    rows: int
    together: str | None
    interval: int
    patience: int

    @property
    def needs(self) -> frozenset[str]:  # type: ignore[override]
        return frozenset({f"column:{self.together}"} if self.together else ())

    def curate(self, rows: list[Row], ctx: Context) -> dict[str, list[Row]]:
        groups: dict[str, list[Row]] = {}
        for row in rows:
            groups.setdefault(str(row["id"] if self.together is None else self._value(row)), []).append(row)
        most = max(1, min(self.rows, round(self.share * len(rows))))
        held: set[str] = set()
        for name in sorted(groups, key=lambda name: digest([ctx.seed, name])):
            if sum(len(groups[n]) for n in (*held, name)) > most:
                continue
            held.add(name)
        if not held or len(held) == len(groups):
            raise HarnessError(
                f"`keep_best` cannot hold out {self.share:.0%} of {len(rows)} rows in {len(groups)} groups, "
                f"and {self.rows} rows at most",
                todo="give it more rows, or another `share`, `rows` or `together`",
            )
        sides: dict[str, list[Row]] = {"train": [], SET: []}
        for name, members in groups.items():
            sides[SET if name in held else "train"] += members
        return sides

    def _value(self, row: Row) -> Any:
        if self.together not in row:
            raise HarnessError(f"row {row['id']} has no column `{self.together}`", todo="name another as `together`")
        return row[self.together]

    def after_step(self, model: Module, ctx: Context) -> None:
        seen = ctx.memory.setdefault(f"keep_best {ctx.stage.name}", {"loss": math.inf, "since": 0, "looks": {}})
        if seen["since"] >= self.patience or (ctx.step % self.interval and ctx.progress < 1):
            return
        with ctx.meter.phase("held out"):
            loss = self._loss(ctx)
        seen["looks"][ctx.step] = loss
        ctx.save(SET, seen["looks"])
        seen["since"] += 1
        if loss < seen["loss"]:
            seen |= {"loss": loss, "since": 0}
            ctx.keep()

    def _loss(self, ctx: Context) -> float:
        rows, total, count = ctx.rows(SET), 0.0, 0
        for i in range(0, len(rows), AT_ONCE):
            logp = ctx.forward(rows[i : i + AT_ONCE], grad=False).logp
            total, count = total - float(logp.sum()), count + len(logp)
        return total / count
