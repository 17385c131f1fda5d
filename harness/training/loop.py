"""The host of methods: the optimiser steps of one stage, with the hooks asked in the seam's order.

What a stage is made of (model, optimiser, data) comes ready from `stage.py`; saving is not done here.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from harness.errors import HarnessError
from harness.matrix import TrainSettings
from harness.methods.base import Method, Row, overrides, owner
from harness.training import checkpoint
from harness.training.batches import Order, split
from harness.training.context import Context
from harness.training.objective import Objective, as_terms
from harness.training.randomness import seeded
from harness.training.rollouts import Rollouts
from harness.training.schedule import lr_factor
from harness.training.sequences import Seq, without_dropped
from harness.training.tokens import Tokens

Report = Callable[[float, float, str], None]


class Diverged(Exception):
    """The loss or the gradient stopped being a number, at a step counted from 1."""

    def __init__(self, step: int, what: str) -> None:
        super().__init__(f"{what} at step {step}")
        self.step, self.what = step, what


@dataclass
class Run:
    """One stage under way.

    rows: the stage's data.  order: which of them make which batch.  steps: of the whole stage where they are known
    beforehand, else None and `tokens` is the budget.  offered: batches taken so far.  curve: one entry a step.
    rollouts: samples the batches, where a member has it so.
    choose: asks the members anew which parameters train, and makes the optimiser follow.
    """

    ctx: Context
    settings: TrainSettings
    rows: list[Row]
    where: str
    order: Order
    optimizer: Any
    work: Path
    report: Report
    steps: int | None
    tokens: int
    fingerprint: str
    choose: Callable[[], None]
    rollouts: Rollouts | None = None
    offered: int = 0
    curve: list[dict[str, Any]] = field(default_factory=list)
    saved_at: float = field(default_factory=time.monotonic)

    @property
    def finished(self) -> bool:
        return self.ctx.progress >= 1.0


def train(run: Run) -> None:
    """Run steps until the budget is spent. Diverged if loss or gradient stop being numbers; the curve is on disk."""
    with (run.work / "curve.jsonl").open("w") as curve:
        curve.writelines(json.dumps(line) + "\n" for line in run.curve)
        while not run.finished:
            train_step(run, curve)
            due = time.monotonic() - run.saved_at >= run.settings.checkpoint_seconds
            fresh = not run.rollouts or run.ctx.step % run.rollouts.how.every == 0  # older weights are nowhere kept
            if due and fresh and not run.finished:
                with run.ctx.meter.phase("checkpoint"):
                    checkpoint.write(run.work / "checkpoint", snapshot(run))
                run.saved_at = time.monotonic()


def train_step(run: Run, curve: Any) -> None:
    """One optimiser step, in the seam's order."""
    ctx, meter = run.ctx, run.ctx.meter
    ctx.logged, ctx.means = {}, {}
    with meter.phase("data"):
        seqs = gather(run)
        parts = micro_batches(run, seqs)
    tokens = sum(len(q.ids) for q in seqs)
    after = (ctx.step + 1) / run.steps if run.steps else (meter.trained + tokens) / run.tokens
    objective = Objective(ctx.trainable, len(parts), sum(q.loss_tokens for q in seqs))
    with _counted(ctx):
        loss_tokens = sum(_forward_backward(run, objective, part) for part in parts)
    meter.step(tokens, loss_tokens, sum(max(len(q.ids) for q in part) * len(part) for part in parts))
    with meter.phase("optimizer"):
        losses = _update(run, objective, min(1.0, after), curve)
        if not run.finished and any(m.every and ctx.step % m.every == 0 for m in ctx.stack):
            run.choose()
    done, total = (ctx.step, run.steps) if run.steps else (meter.trained, run.tokens)
    run.report(float(done), float(total), f"loss {losses['loss']:.3f}")


def _update(run: Run, objective: Objective, progress: float, curve: Any) -> dict[str, float]:
    """From gradients to new weights; the parts of the loss. Diverged if loss or gradient is not finite."""
    ctx, stack = run.ctx, run.ctx.stack
    losses = objective.finish()
    for member in stack:
        member.after_backward(ctx.model, ctx)
    norm = _clip(objective.parameters, run.settings.clip)
    factor = lr_factor(run.settings.schedule, run.settings.warmup, ctx.progress, progress)
    line = {"step": ctx.step + 1, "tokens": ctx.meter.trained, **losses, "norm": norm, "lr": run.settings.lr * factor}
    _write(run, curve, {**line, **ctx.logged})
    for what, value in (("the loss is not finite", losses["loss"]), ("the gradient is not finite", norm)):
        if not math.isfinite(value):
            raise Diverged(ctx.step + 1, what)
    for group in run.optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor
    run.optimizer.step()
    ctx.step, ctx.progress = ctx.step + 1, progress
    for member in stack:
        member.after_step(ctx.model, ctx)
    run.optimizer.zero_grad(set_to_none=True)
    return losses


def gather(run: Run) -> list[Seq]:
    """The sequences of one step: offered, collated, picked from, and refilled until they fill a batch."""
    ctx, stack = run.ctx, run.ctx.stack
    pickers = [m for m in stack if overrides(m, "pick")]
    pool = max([m.pool or 0 for m in stack], default=0)
    seqs: list[Seq] = []
    rows = asked = 0
    while rows < run.order.size:
        offered = _offer(run, max(pool, run.order.size))
        sampled = run.rollouts.gather(offered, asked) if run.rollouts else ctx.encode(offered, where=run.where)
        asked += len(offered)
        new = ctx.collate(sampled)
        if pickers:
            tok = Tokens(ctx, new, ctx.model, grad=False)
            with torch.no_grad(), _counted(ctx):
                for member in pickers:
                    tok.weigh(member.pick(tok, ctx))
            new = [without_dropped(q) for q in tok.kept()] if any(m.drops for m in pickers) else tok.kept()
        seqs += new
        rows += len({q.columns.get("group", q.row) for q in new})
        if not rows and asked >= max(2 * len(run.rows), 2 * pool):
            names = ", ".join(f"`{m.name}`" for m in pickers)
            raise HarnessError(f"{names} kept none of {asked} rows offered at step {ctx.step + 1}")
    return seqs


def _counted(ctx: Context) -> AbstractContextManager[None]:
    """Floating-point operations are counted in the first step."""
    return ctx.meter.count_flops() if ctx.step == 0 else nullcontext()


def _offer(run: Run, least: int) -> list[Row]:
    """Whole batches of the order, at least so many rows."""
    rows: list[Row] = []
    while len(rows) < least:
        rows += [run.rows[i] for i in run.order.batch(run.offered)]
        run.offered += 1
    return rows


def micro_batches(run: Run, seqs: list[Seq]) -> list[list[Seq]]:
    """A row is never split, and a step that a member needs whole never is."""
    whole = "whole_batch" in run.ctx.needs
    return list(split(seqs, len(seqs) if whole else run.settings.micro_batch))


def _forward_backward(run: Run, objective: Objective, part: list[Seq]) -> int:
    """One micro-batch; the number of tokens that carried loss."""
    ctx, stack = run.ctx, run.ctx.stack
    with ctx.meter.phase("forward"), _dropout(ctx, part):
        tok = Tokens(ctx, part, ctx.model, training=True)
        for member in _that(stack, "token_weight"):
            tok.weigh(member.token_weight(tok.detach(), ctx))  # type: ignore[arg-type]
        tok.weight_read = False
        chief = owner(stack, "loss")
        norm = next((m.norm for m in stack if m.norm != "tokens"), "tokens")
        terms = as_terms(tok, chief.loss(tok, ctx), norm, chief)
        for member in _that(stack, "auxiliary"):
            more = member.auxiliary(tok, ctx)
            if twice := sorted(terms.keys() & more.keys()):
                raise HarnessError(
                    f"`{member.name}` adds a term `{twice[0]}` to the loss, and another member has one of that name",
                    todo="give the term another name in its `auxiliary`",
                )
            terms |= more
        if run.rollouts:
            run.rollouts.measure(tok)
    with ctx.meter.phase("backward"):
        objective.add(terms)
    return int((tok.weight != 0).sum())


def _that(stack: tuple[Method, ...], hook: str) -> Iterator[Method]:
    return (m for m in stack if overrides(m, hook))


def _dropout(ctx: Context, part: list[Seq]) -> Any:
    """Dropout draws from torch's own generator: seeded here, so that a resumed run draws the same."""
    return seeded(ctx.seed, "dropout", ctx.stage.name, ctx.step, part[0].row)


def _clip(parameters: Sequence[torch.Tensor], limit: float | None) -> float:
    """Clip to a norm over all gradients; the norm before that."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    if limit is not None and norm > limit:
        torch._foreach_mul_(gradients, float(limit / (norm + 1e-6)))
    return float(norm)


def _write(run: Run, curve: Any, line: dict[str, Any]) -> None:
    line = {k: v if math.isfinite(v) else None for k, v in line.items()}  # JSON knows no NaN
    run.curve.append(line)
    curve.write(json.dumps(line) + "\n")
    curve.flush()


# --- checkpoints --------------------------------------------------------------------------------------------------
def snapshot(run: Run) -> dict[str, Any]:
    """Everything that differs from a run made anew."""
    ctx = run.ctx
    return {
        "fingerprint": run.fingerprint,
        "step": ctx.step,
        "progress": ctx.progress,
        "offered": run.offered,
        "cursors": dict(ctx.cursors),
        "model": {n: p.detach() for n, p in ctx.model.named_parameters() if n in ctx.touched},
        "optimizer": run.optimizer.state_dict(),
        "memory": ctx.memory,
        "kept": ctx.kept,
        "saved": ctx.saved,
        "meter": ctx.meter.state(),
        "curve": run.curve,
    }


def restore(run: Run, state: dict[str, Any]) -> None:
    """Continue where a snapshot was taken."""
    ctx = run.ctx
    mine = dict(ctx.model.named_parameters())
    with torch.no_grad():
        for name, value in state["model"].items():
            mine[name].copy_(value)
    ctx.touched |= state["model"].keys()
    ctx.step, ctx.progress, run.offered = state["step"], state["progress"], state["offered"]
    ctx.cursors, ctx.kept, ctx.saved = state["cursors"], state["kept"], state["saved"]
    ctx.memory.clear()
    ctx.memory.update(state["memory"])
    ctx.meter.restore(state["meter"])
    run.curve = state["curve"]
    if any(m.every for m in ctx.stack):
        run.choose()
    run.optimizer.load_state_dict(state["optimizer"])
