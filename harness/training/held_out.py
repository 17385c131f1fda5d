"""The loss of what a training left on rows that it did not see: plain log-likelihood, whatever the method's own loss.

The artifact is opened as it would be served, in fp32, and asked what the evaluation would ask: the members' `prompt` is
applied, everything else that a method does in training is not.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.engines.unmerged import attach
from harness.matrix import TrainSettings
from harness.methods.base import Method, Row, Stage, overrides
from harness.training.artifacts import read_artifact, read_memory
from harness.training.context import Context
from harness.training.opening import open_base, open_tokenizer
from harness.training.stage import device
from harness.training.tokens import Tokens


@dataclass(frozen=True)
class HeldOut:
    """loss: mean over all tokens of all answers, in nats.  tokens: of the rows, prompts included."""

    loss: float
    tokens: int
    seconds: float


def held_out_loss(
    model: Path, artifact: Path, stack: Sequence[Method], rows: Sequence[Row], settings: TrainSettings
) -> HeldOut:
    """model: folder of the base.  artifact: what the last stage left.  settings: only placement, length and precision
    count. HarnessError for a row that cannot be encoded."""
    started = time.perf_counter()
    own = artifact if (artifact / "tokenizer_config.json").exists() else model
    ctx = Context(
        seed=0,
        device=device(),
        tokenizer=open_tokenizer(own),
        limit=settings.max_length,
        precision=settings.precision,
    )
    ctx.enter(Stage("held out"), [m for m in stack if overrides(m, "prompt")])
    ctx.needs = frozenset()  # a method that wants pairs is compared on the better answers, like any other
    ctx.memory.update(read_memory(artifact))
    adapter = read_artifact(artifact)["kind"] == "adapter"
    opened = open_base(model if adapter else artifact)
    if adapter:
        attach(opened, artifact)
    opened.eval().to(ctx.device)
    seqs = ctx.encode(rows, where="held-out rows")
    total, count = 0.0, 0
    for first in range(0, len(seqs), settings.micro_batch):
        logp = Tokens(ctx, seqs[first : first + settings.micro_batch], opened, name="held out", grad=False).logp
        total, count = total - float(logp.double().sum()), count + len(logp)
    return HeldOut(total / count, sum(len(q.ids) for q in seqs), time.perf_counter() - started)
