"""`lldb`: only the last decoder block trains."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, ClassVar

from harness.errors import HarnessError
from harness.methods.base import Method

if TYPE_CHECKING:
    from harness.training.context import Context

_BLOCK = re.compile(r"((?:.*?\.)?)(\d+)\..+")  # the first number of a name is its block's


class LLDB(Method):
    """Exploring and Evaluating Personalized Models for Code Generation, arXiv 2208.13928: L-LDB.

    Every parameter of the last decoder block trains (attention, MLP, both norms: 3,540,096 of SmolLM2-135M); the final
    norm, the embeddings and the head do not. Loss and data are the stack's. The backward pass ends in that block, so a
    token costs about 2N + 2(N_block + N_head) + 2 N_block, where `sft` has 6N.

    The paper's learning rate is not known (1e-4 is proposed for 135M, as `train.lr`). The paper stops early on
    validation loss, for which there is `keep_best`.
    """

    name: ClassVar[str] = "lldb"
    paper: ClassVar[str] = "arXiv 2208.13928"
    verified: ClassVar[str] = (
        "parameter counts of SmolLM2-135M; what is frozen stays bit for bit; no backward pass below its block"
    )
    family: ClassVar[str] = "selective"

    def train_only(self, names: Sequence[str], ctx: Context) -> Iterable[str]:
        found = {n: (m[1], int(m[2])) for n in names if (m := _BLOCK.fullmatch(n))}
        if not found:
            raise HarnessError("`lldb` trains the last block, and no parameter of this model is in a numbered block")
        last = max(number for _, number in found.values())
        return [n for n, (_, number) in found.items() if number == last]
