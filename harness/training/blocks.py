"""Shared maths, as functions of logits. Methods use these; they do not inherit from each other.

Every function takes fp32 logits [n, vocabulary] of n loss tokens and gives one value a token, so it can be mapped over
slices (`tok.vocab`) and the logits of a whole batch never exist.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def log_probability(logits: Tensor, target: Tensor) -> Tensor:
    """log p(target), natural logarithm. logits [n, V], target [n] -> [n].

    By the fused kernel: `gather` and `logsumexp` write [n, V] several times more, half as slow again.
    """
    return -functional.cross_entropy(logits, target, reduction="none")


def entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Entropy of the next-token distribution in nats. logits [n, V] -> [n]; the target is not used."""
    logp = logits.log_softmax(-1)
    return -(logp.exp() * logp).sum(-1)
