"""The objective of one optimiser step: every Term's sum over its own count, both over all micro-batches.

So how a step is cut into micro-batches cannot change the answer. A micro-batch is sent backward as soon as its terms
are known, which frees its graph. With one term, its gradient is collected over a provisional count and put right once
at the end; with several terms over several micro-batches each keeps its own gradient until its count is known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from harness.errors import Refused
from harness.methods.base import Method, Term
from harness.training.tokens import Tokens


def as_terms(tok: Tokens, loss: Tensor | Term | Mapping[str, Term], norm: str, owner: Method) -> dict[str, Term]:
    """What a `loss` hook returned, as Terms. A tensor [loss tokens] is weighted here and averaged as `norm` says:

    "tokens": by the number of tokens of weight other than zero.  "weights": by the sum of weights.
    "rows": the mean over each row's tokens, then over rows.
    Refused if the loss came as Terms and ignores weights that other members gave.
    """
    if isinstance(loss, Tensor):
        weight = tok.weight
        if norm == "rows":
            return {"loss": Term(tok.row_mean(loss), (tok._by_row((weight != 0).float()) > 0).float())}
        return {"loss": Term(weight * loss, weight if norm == "weights" else (weight != 0).float())}
    if not tok.weight_read and bool((tok._weight != 1).any()):
        raise Refused(
            f"`{owner.name}` computes its own mean and ignores the token weights that its stack gives",
            todo="use `tok.weight`, `tok.row_sum` or `tok.row_mean` in its loss, or take the weighting member out",
        )
    return {"loss": loss} if isinstance(loss, Term) else dict(loss)


@dataclass
class _Sum:
    """value: without its scale and undivided."""

    value: float = 0.0
    count: float = 0.0
    scale: float = 1.0


class Objective:
    """One optimiser step over `parameters` in `parts` micro-batches. expected: a first guess of the count."""

    def __init__(self, parameters: Sequence[Tensor], parts: int, expected: float) -> None:
        self.parameters, self.parts, self.expected = parameters, parts, max(expected, 1.0)
        self.sums: dict[str, _Sum] = {}
        self._gradients: dict[str, list[Tensor | None]] = {}

    def add(self, terms: Mapping[str, Term]) -> None:
        """Send one micro-batch backward."""
        counts = {name: _count(term) for name, term in terms.items()}
        for name, term in terms.items():
            total = self.sums.setdefault(name, _Sum(scale=term.scale))
            total.value += float(term.value.detach().sum())
            total.count += counts[name]
        if self.parts == 1:
            whole = sum(t.scale * t.value.sum() / max(counts[n], _LEAST) for n, t in terms.items())
            if isinstance(whole, Tensor) and whole.requires_grad:
                whole.backward()
        elif len(self.sums) == 1:
            (term,) = terms.values()
            if term.value.requires_grad:
                (term.scale * term.value.sum() / self.expected).backward()
        else:
            self._keep_apart(terms)

    def finish(self) -> dict[str, float]:
        """Put the gradients right and return the parts of the loss, with their sum as "loss"."""
        if self._gradients:
            self._join()
        elif self.parts > 1 and len(self.sums) == 1:  # of several without any gradient there is nothing to put right
            (total,) = self.sums.values()
            factor = self.expected / max(total.count, _LEAST)
            gradients = [p.grad for p in self.parameters if p.grad is not None]
            if factor != 1.0:
                torch._foreach_mul_(gradients, factor)
        means = {name: s.scale * s.value / max(s.count, _LEAST) for name, s in self.sums.items()}
        return {"loss": sum(means.values())} if len(means) == 1 else {**means, "loss": sum(means.values())}

    def _keep_apart(self, terms: Mapping[str, Term]) -> None:
        if not self._gradients:  # an earlier micro-batch may have had the first term alone
            grads = [None if p.grad is None else p.grad * self.expected for p in self.parameters]
            if any(g is not None for g in grads):
                self._gradients[next(iter(self.sums))] = grads
            for p in self.parameters:
                p.grad = None
        live = {name: t for name, t in terms.items() if t.value.requires_grad}
        for i, (name, term) in enumerate(live.items()):
            new = torch.autograd.grad(
                term.scale * term.value.sum(), self.parameters, retain_graph=i + 1 < len(live), allow_unused=True
            )
            old = self._gradients.get(name, [None] * len(new))
            self._gradients[name] = [
                b if a is None else a if b is None else a + b for a, b in zip(old, new, strict=True)
            ]

    def _join(self) -> None:
        for name, gradients in self._gradients.items():
            count = max(self.sums[name].count, _LEAST)
            for p, g in zip(self.parameters, gradients, strict=True):
                if g is not None:
                    p.grad = g / count if p.grad is None else p.grad + g / count


_LEAST = 1e-9  # a term without anything to count has a sum of zero


def _count(term: Term) -> float:
    return float(term.value.numel() if term.count is None else term.count.detach().sum())
