"""What a method's `rollouts` may say: how a stage samples answers from the model it trains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from harness.errors import Refused
from harness.methods.base import Method


class Sampling(BaseModel):
    """n: answers a prompt.  max_tokens: the longest answer.  temperature, top_p: as in a request.

    every: steps between two refreshes of the weights that sample.
    reference: whether the row's own answer joins its group, unsampled.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    n: int = Field(default=8, ge=1)
    temperature: float = Field(default=1.0, gt=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    max_tokens: int = Field(default=256, ge=1)
    every: int = Field(default=1, ge=1)
    reference: bool = False


def sampling(stack: Sequence[Method]) -> Sampling | None:
    """How the stack samples, or None where it does not. Refused, naming the member, if that cannot be read."""
    member = next((m for m in stack if m.rollouts is not None), None)
    if member is None:
        return None
    given: Mapping[str, Any] = member.rollouts or {}
    try:
        return Sampling(**given)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise Refused(f"`{member.name}` sets `rollouts`, and its `{where}` is wrong: {first['msg']}") from error
