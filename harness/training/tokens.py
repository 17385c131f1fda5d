"""`tok`: the loss tokens of a batch, flat and lazy.

One entry a loss token, so there is no padding and no mask to get wrong. Nothing runs until it is read; what is read is
computed once. The output head is applied to slices of loss positions and, where there are several, recomputed in the
backward pass, so logits of a whole batch never exist.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from harness.methods.base import NO_TARGET
from harness.training import blocks
from harness.training.forward import make_batch, run_model
from harness.training.sequences import Seq

if TYPE_CHECKING:
    from harness.training.context import Context

SLICE = 2**25  # logits alive at once: 128 MiB in fp32


class Tokens:
    """Shapes: N loss tokens, R sequences, L the longest, H the width.

    row [N]: number of the sequence a token is in.  ids [N]: the target tokens.  at [N]: the position that predicts it.
    An entry stands for a target; `hidden[n]` is the state that predicts it.
    """

    def __init__(
        self,
        ctx: Context,
        seqs: Sequence[Seq],
        model: nn.Module,
        *,
        name: str = "live",
        grad: bool = True,
        embeds: Callable[[Tensor], Tensor] | None = None,
        training: bool = False,
    ) -> None:
        self.ctx, self.seqs, self.name = ctx, tuple(seqs), name
        self._model, self._grad, self._embeds, self._training = model, grad, embeds, training
        self.batch = make_batch(seqs, ctx.device)
        self.row, self.at = (self.batch.targets != NO_TARGET).nonzero(as_tuple=True)
        self.ids = self.batch.targets[self.row, self.at]
        self.R = len(self.seqs)
        counts = [sum(t != NO_TARGET for t in q.targets) for q in self.seqs]
        weights = [torch.ones(n) if q.weight is None else q.weight for n, q in zip(counts, self.seqs, strict=True)]
        self._weight = torch.cat(weights).to(ctx.device, torch.float32)
        self._first = [sum(counts[:i]) for i in range(len(counts))]
        self._kept: dict[str, Any] = {}
        self.weight_read = False

    # --- what the model says ------------------------------------------------------------------------------------
    @property
    def out(self) -> Any:
        """What the model returned: `hidden` [R, L, H], `head`, `states` and `attentions` where needed, or its own."""
        return self._once("out", self._run)

    @property
    def hidden(self) -> Tensor:
        """Last hidden state of the predicting positions, [N, H]."""
        return self._once("hidden", lambda: self.out.hidden[self.row, self.at])

    @property
    def logp(self) -> Tensor:
        """Log-probability of the targets in nats, fp32, [N]."""
        return self._once("logp", lambda: self._slices(blocks.log_probability, by_row=False))

    @property
    def entropy(self) -> Tensor:
        """Entropy of the distributions the targets are from, in nats, [N]."""
        return self._once("entropy", lambda: self._slices(blocks.entropy, by_row=False))

    @property
    def ref(self) -> Tokens:
        """The same tokens from the stage's frozen reference model."""
        made: Tokens = self._once("ref", lambda: self.ctx.forward(self.seqs, model="ref", grad=False))
        return made

    def vocab(
        self,
        f: Callable[..., Tensor],
        *others: Tokens,
        hidden: Tensor | None = None,
        head: Callable[[Tensor], Tensor] | None = None,
        at: Tensor | None = None,
    ) -> Tensor:
        """`f(logits, ..., target)` over all loss tokens, in slices that stay within a row -> [N, ...].

        f gets fp32 logits [n, V] of this model and of each of `others`, and targets [n]. It may be called again in
        the backward pass; numbers drawn from `ctx.rng` are then the same.  hidden [N, H]: other states for the head.
        head: another output layer than the model's.  at: only these entries.
        """
        return self._slices(f, *others, hidden=hidden, head=head, at=at)

    # --- columns, rows and views ----------------------------------------------------------------------------------
    @property
    def weight(self) -> Tensor:
        """Product of the weights the stack has given, [N]."""
        self.weight_read = True
        return self._weight

    def __getitem__(self, column: str) -> Tensor:
        """A column of the rows: [N] where it has one value a token, else [R, ...]."""
        if column in self.seqs[0].per_token:
            return torch.cat([q.per_token[column] for q in self.seqs]).to(self.ctx.device)
        return torch.stack([torch.as_tensor(q.columns[column]) for q in self.seqs]).to(self.ctx.device)

    def row_sum(self, values: Tensor) -> Tensor:
        """Weighted sum over each sequence's tokens, [N] -> [R]."""
        return self._by_row(self.weight * values)

    def row_mean(self, values: Tensor) -> Tensor:
        """Weighted sum over each sequence's tokens by the number of those that count, [N] -> [R]."""
        return self.row_sum(values) / self._by_row((self.weight != 0).float()).clamp(min=1)

    def view(self, name: str) -> View:
        """The sequences of one view, in row order, so that two views line up."""
        return View(self, [i for i, q in enumerate(self.seqs) if q.view == name])

    def gather(self, values: Tensor, back: int = 0) -> tuple[Tensor, Tensor]:
        """values [R, L, ...] at `back` positions before the predicting ones -> [N, ...], and 1.0 where that exists.

        back=-1 is the position of the target token itself.
        """
        place = self.at - back
        there = (place >= 0) & (place < self.batch.lengths[self.row])
        return values[self.row, place.clamp(0, values.shape[1] - 1)], there.float()

    # --- for the host ---------------------------------------------------------------------------------------------
    def detach(self) -> Detached:
        """The same forward with its graph hidden: what `token_weight` sees."""
        return Detached(self)

    def weigh(self, weights: Tensor | None) -> None:
        """Multiply in the weights of a member: [R] or [N]."""
        if weights is None:
            return
        weights = torch.as_tensor(weights).detach().to(self.ctx.device, torch.float32)
        per_row = len(weights) == self.R and len(weights) != len(self.row)
        self._weight = self._weight * (weights[self.row] if per_row else weights)

    def kept(self) -> list[Seq]:
        """The sequences of rows that have a weight other than zero, carrying their weights."""
        parts = self._weight.split([sum(t != NO_TARGET for t in q.targets) for q in self.seqs])
        alive = [bool((w != 0).any()) or len(w) == 0 for w in parts]
        rows = {q.row for q, on in zip(self.seqs, alive, strict=True) if on}
        changed = bool((self._weight != 1).any())
        return [
            q.but(weight=w.cpu()) if changed else q
            for q, w, on in zip(self.seqs, parts, alive, strict=True)
            if on or (q.view and q.row in rows)
        ]

    # --- how ------------------------------------------------------------------------------------------------------
    def _once(self, name: str, make: Callable[[], Any]) -> Any:
        """Computed at most once, and with its graph whatever the reader's gradient mode: a value first read under
        no_grad would otherwise be reused by the loss and train nothing."""
        if name not in self._kept:
            with torch.set_grad_enabled(self._grad), self.ctx.autocast():
                self._kept[name] = make()
        return self._kept[name]

    def _run(self) -> Any:
        ctx, batch = self.ctx, self.batch
        ctx.batch = batch
        ctx.meter.forward(self.name, batch.tokens, training=self._training)
        hooks = ctx.embedding_hooks if self.name == "live" else []
        if self._embeds is not None:
            hooks = [*hooks, lambda emb, batch, ctx: self._embeds(emb)]  # type: ignore[misc]

        def embed(emb: Tensor) -> Tensor:
            for hook in hooks:
                emb = hook(emb, batch, ctx)
            return emb

        needs = ctx.needs
        return run_model(
            self._model,
            batch,
            embed=embed if hooks else None,
            states=any(n.startswith("hidden:") for n in needs),
            attentions=any(n.startswith("attention:") for n in needs),
        )

    def _by_row(self, values: Tensor) -> Tensor:
        return torch.zeros(self.R, device=values.device, dtype=values.dtype).index_add(0, self.row, values)

    def _cuts(self, row: Tensor, size: int, by_row: bool) -> list[int]:
        """Where slices of at most `size` entries begin; those of a row do not depend on the rows around it."""
        n = len(row)
        if not by_row:
            return [*range(0, n, size), n]
        starts = [0, *((row[1:] != row[:-1]).nonzero()[:, 0] + 1).tolist(), n]
        return [i for a, b in pairwise(starts) for i in range(a, b, size)] + [n]

    def _slices(
        self,
        f: Callable[..., Tensor],
        *others: Tokens,
        hidden: Tensor | None = None,
        head: Callable[[Tensor], Tensor] | None = None,
        at: Tensor | None = None,
        by_row: bool = True,
    ) -> Tensor:
        states = [self.hidden if hidden is None else hidden, *(o.hidden for o in others)]
        heads = [head or self.out.head, *(o.out.head for o in others)]
        ids, row = self.ids, self.row
        if at is not None:
            states, ids, row = [h[at] for h in states], ids[at], row[at]
        if not len(ids):
            return torch.zeros(0, device=self.ctx.device)
        size = max(16, SLICE // getattr(self.out.head, "out_features", 2**17))
        cuts = self._cuts(row, size, by_row)
        recompute = self._grad and torch.is_grad_enabled() and len(ids) > size

        def one(i: int, j: int) -> Tensor:
            key = f"{self.seqs[int(row[i])].row}/{i - self._first[int(row[i])]}" if by_row and at is None else f"{i}"

            def of(*parts: Tensor) -> Tensor:
                with self.ctx.drawing_for(key):
                    return f(*[head(h).float() for head, h in zip(heads, parts, strict=True)], ids[i:j])

            parts = [h[i:j] for h in states]
            if recompute:
                made: Tensor = checkpoint(of, *parts, use_reentrant=False, preserve_rng_state=False)
                return made
            return of(*parts)

        with self.ctx.autocast():
            return torch.cat([one(i, j) for i, j in pairwise(cuts)])


class Detached:
    """Tokens as `token_weight` sees them: every value without its graph, and no graph made.

    The forward pass behind it keeps its graph for the loss.
    """

    def __init__(self, tok: Tokens) -> None:
        self._tok = tok

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._tok, name)
        if isinstance(value, Tensor):
            return value.detach()
        if callable(value):

            def quiet(*args: Any, **options: Any) -> Any:
                with torch.no_grad():
                    return value(*args, **options)

            return quiet
        return value

    def __getitem__(self, column: str) -> Tensor:
        return self._tok[column]


class View:
    """The sequences of one view of a batch of pairs."""

    def __init__(self, tok: Tokens, rows: list[int]) -> None:
        self._tok = tok
        self._rows = torch.tensor(rows, device=tok.row.device)

    def row_sum(self, values: Tensor) -> Tensor:
        """As `Tokens.row_sum`, of these sequences: [N] -> [rows]."""
        return self._tok.row_sum(values)[self._rows]

    def row_mean(self, values: Tensor) -> Tensor:
        """As `Tokens.row_mean`, of these sequences: [N] -> [rows]."""
        return self._tok.row_mean(values)[self._rows]

    def only(self, values: Tensor) -> Tensor:
        """The entries of these sequences: [N, ...] -> [fewer, ...]."""
        return values[torch.isin(self._tok.row, self._rows)]
