"""Which rows make which batch: deterministic by seed and epoch, bucketed by length, and without state.

Batch number k is a function of (seed, k), so resuming needs nothing but k. No tensors are made here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

import torch

from harness.training.randomness import generator
from harness.training.sequences import Seq

WINDOW = 32  # batches sorted together by length; more saves padding, fewer keeps the order nearer to random


class Order:
    """The endless sequence of batches over `rows` rows, `size` rows each (all of them if there are fewer).

    Every epoch is a new permutation; rows that do not fill a last batch are left out of that epoch. Within a window of
    32 batches rows are sorted by length and the batches then shuffled. length(i): tokens of row i, asked only for
    windows that are reached.
    """

    def __init__(self, rows: int, size: int, seed: int, length: Callable[[int], int]) -> None:
        self.rows, self.size, self.seed, self.length = rows, min(size, rows), seed, length
        self.per_epoch = rows // self.size
        self._windows: dict[tuple[int, int], list[list[int]]] = {}

    def batch(self, k: int) -> list[int]:
        """Row numbers of batch k."""
        epoch, at = divmod(k, self.per_epoch)
        window, place = divmod(at, WINDOW)
        if (epoch, window) not in self._windows:
            self._windows = {(epoch, window): self._window(epoch, window)}
        return self._windows[epoch, window][place]

    def _window(self, epoch: int, window: int) -> list[list[int]]:
        order = torch.randperm(self.rows, generator=generator(self.seed, "order", epoch)).tolist()
        span = WINDOW * self.size
        rows = order[window * span : min((window + 1) * span, self.per_epoch * self.size)]
        rows.sort(key=self.length)
        batches = [rows[i : i + self.size] for i in range(0, len(rows), self.size)]
        mixed = torch.randperm(len(batches), generator=generator(self.seed, "batches", epoch, window)).tolist()
        return [batches[i] for i in mixed]


def steps_for(tokens: int, order: Order) -> int:
    """Optimiser steps that a token budget pays for; the last step may go over it."""
    steps = spent = 0
    while spent < tokens:
        spent += sum(order.length(i) for i in order.batch(steps))
        steps += 1
    return steps


def split(seqs: Sequence[Seq], rows: int) -> Iterator[list[Seq]]:
    """Micro-batches of at most `rows` rows. The sequences of one row stay together."""
    whole = [list(same) for _, same in groupby(enumerate(seqs), key=lambda p: _row_start(seqs, p[0]))]
    for i in range(0, len(whole), rows):
        yield [seq for row in whole[i : i + rows] for _, seq in row]


def _row_start(seqs: Sequence[Seq], i: int) -> int:
    """Where the row of sequence i begins: sequences with a view belong to the one before if it is of the same row."""
    while i > 0 and seqs[i].view and seqs[i - 1].row == seqs[i].row and seqs[i - 1].view != seqs[i].view:
        i -= 1
    return i
