"""The learning-rate schedule, as a function of how much of the budget is spent."""

from __future__ import annotations

import math


def lr_factor(kind: str, warmup: float, before: float, after: float) -> float:
    """What to multiply the learning rate with in a step that spends the budget from `before` to `after` (0 to 1).

    It rises linearly over the share `warmup`, reaching 1 with the last step in it, then is "constant", or falls
    linearly or as a cosine, so that the last step still moves.
    """
    rise = min(1.0, after / warmup) if warmup > 0 else 1.0
    rest = min(1.0, max(0.0, before - warmup) / (1 - warmup))
    fall = {"constant": 1.0, "linear": 1 - rest, "cosine": (1 + math.cos(math.pi * rest)) / 2}[kind]
    return rise * fall
