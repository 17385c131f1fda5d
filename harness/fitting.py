"""What of a matrix a model cannot do: told from its files at planning, before anything is trained.

An encoder reads text and writes none, so only heads are trained on it. Of a model that writes, each method says itself
what it cannot take (`Method.fits`).
"""

from __future__ import annotations

from collections.abc import Sequence

from harness.data.facts import facts_of
from harness.data.models import ModelSource
from harness.errors import HarnessError, Refused
from harness.evaluation.task import Task
from harness.matrix import Matrix
from harness.methods.base import Method


def check_writes(label: str, model: ModelSource) -> None:
    """HarnessError for a model that neither writes text nor is an encoder: one without an output head."""
    if not model.encoder and not facts_of(model).writes:
        raise HarnessError(
            f"model `{label}` has no output head, so it writes no text",
            why="its config.json names no class for causal language models",
            todo="use the model as it was published for generation (`...ForCausalLM`)",
        )


def refusals(
    matrix: Matrix, pair: tuple[str, str], model: ModelSource, members: Sequence[Method], tasks: Sequence[Task]
) -> list[Refused]:
    """Why the cells of a pair of labels, model and method, cannot be planned, each reason with its line; empty if none.

    members: of the stack, and those that its stages bring.
    """
    if model.encoder:
        return _of_encoder(matrix, pair, members, tasks)
    facts, found = facts_of(model), []
    for member in members:
        try:
            member.fits(facts)
        except Refused as refused:
            refused.what = f"`{member.name}` does not fit the model `{pair[0]}`: {refused.what}"
            refused.where = matrix.where(f"methods.{pair[1]}")
            found.append(refused)
    return found


def _of_encoder(
    matrix: Matrix, pair: tuple[str, str], members: Sequence[Method], tasks: Sequence[Task]
) -> list[Refused]:
    found, (model, method) = [], pair
    asks = [f"`{t.name}`" for t in tasks if not t.form.head]
    if asks:
        some = ", ".join(asks[:5]) + (f" and {len(asks) - 5} more" if len(asks) > 5 else "")
        found.append(
            Refused(
                f"model `{model}` is an encoder, which writes no text: it cannot answer {some}",
                where=matrix.where(f"models.{model}"),
                todo="give it a matrix of its own, with head tasks only (`tasks: [sst2_head]`)",
            )
        )
    if [m.name for m in members] != ["base"]:
        found.append(
            Refused(
                f"method `{method}` cannot be used on model `{model}`, which is an encoder",
                where=matrix.where(f"methods.{method}"),
                todo="use `base`: the heads of the head tasks are trained in any case, the backbone with them",
            )
        )
    return found
