"""What of a matrix cannot be done with an encoder, which reads text and writes none: only heads are trained on it."""

from __future__ import annotations

from collections.abc import Sequence

from harness.errors import Refused
from harness.evaluation.task import Task
from harness.matrix import Cell, Matrix
from harness.methods.base import Method


def refusals(matrix: Matrix, cell: Cell, stack: Sequence[Method], tasks: Sequence[Task]) -> list[Refused]:
    """Why a cell of an encoder cannot be planned, each reason with its line of the matrix; empty if it can."""
    found = []
    asks = [f"`{t.name}`" for t in tasks if not t.form.head]
    if asks:
        some = ", ".join(asks[:5]) + (f" and {len(asks) - 5} more" if len(asks) > 5 else "")
        found.append(
            Refused(
                f"model `{cell.model}` is an encoder, which writes no text: it cannot answer {some}",
                where=matrix.where(f"models.{cell.model}"),
                todo="give it a matrix of its own, with head tasks only (`tasks: [sst2_head]`)",
            )
        )
    if [m.name for m in stack] != ["base"]:
        found.append(
            Refused(
                f"method `{cell.method}` cannot be used on model `{cell.model}`, which is an encoder",
                where=matrix.where(f"methods.{cell.method}"),
                todo="use `base`: the heads of the head tasks are trained in any case, the backbone with them",
            )
        )
    return found
