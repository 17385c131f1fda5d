"""One stage of one stack, from files to an artifact: open, wrap, choose what trains, train, save.

Every stage is a process of its own; earlier stages are read from their artifacts.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from harness.digest import digest
from harness.engines.prompts import Prompts
from harness.errors import HarnessError, nearest
from harness.matrix import TrainSettings
from harness.matrix.schema import PLACEMENT
from harness.methods.base import Method, Row, Stage, overrides, owner
from harness.methods.sampling import sampling
from harness.training import artifacts, checkpoint
from harness.training.adapters import TrainResult, TrainTask
from harness.training.batches import Order, steps_for
from harness.training.context import Context
from harness.training.curation import made_rows
from harness.training.data import read_rows
from harness.training.forward import check_head
from harness.training.live import Models
from harness.training.loop import Diverged, Report, Run, restore, train
from harness.training.opening import Opener, choose_trainable, open_tokenizer, start_weights, tokenizer_of
from harness.training.resident import Resident
from harness.training.rollouts import Rollouts
from harness.training.sequences import is_pair


def device() -> torch.device:
    """A GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def run_stage(
    task: TrainTask, stack: Sequence[Method], work: Path, earlier: Sequence[Path], report: Report
) -> TrainResult:
    """Leaves work/artifact and work/curve.jsonl. earlier: folders of attempts that ended, read for checkpoints."""
    ctx = Context(
        seed=task.seed,
        device=device(),
        tokenizer=open_tokenizer(tokenizer_of(task.model, task.init)),
        limit=task.settings.max_length,
        precision=task.settings.precision,
    )
    stages = owner(stack, "stages").stages(ctx)
    opener = Opener(task.model, task.init, stack, stages, task.done)
    models = Models(ctx, opener)

    def told(answered: int, asked: int) -> None:
        report(ctx.progress, 1.0, f"{answered} of {asked} answers")

    resident = Resident(task.engine, task.model, models.find, ctx.meter.phase, told) if task.engine else None
    ctx.generator = resident or ctx.generator
    try:
        return _run(task, stack, ctx, opener, stages, models, [work, *earlier], report)
    finally:
        if resident:
            resident.close()
        models.close()


def _run(
    task: TrainTask,
    stack: Sequence[Method],
    ctx: Context,
    opener: Opener,
    stages: Sequence[Stage],
    models: Models,
    folders: Sequence[Path],
    report: Report,
) -> TrainResult:
    """The stage itself. folders: its own, and those of attempts that ended."""
    work, tokenizer = folders[0], ctx.tokenizer
    ctx.open_frozen = lambda name: opener.frozen(ctx, name)
    for name, path in task.rows.items():
        ctx.add_rows(name, read_rows(path), path)
    for folder in task.done.values():
        ctx.memory.update(artifacts.read_memory(folder))
    if not stages:
        return _without_training(task, stack, ctx, opener, work)
    stage = stages[task.stage]
    with ctx.meter.phase("open"):
        ctx.model = opener.fresh(ctx, stage)
        check_head(ctx.model)
        ctx.limit = min(ctx.limit, context_length(ctx.model))
    with ctx.meter.phase("data"):
        run = _prepare(task, ctx, opener, stages, folders, report)
        models.every = run.rollouts.how.every if run.rollouts else 1
    size = sum(p.numel() for p in ctx.trainable)  # saving unwraps: what trained may be gone by then
    state = checkpoint.find(folders, run.fingerprint)
    if state is not None:
        with ctx.meter.phase("open"):
            restore(run, state)
    try:
        train(run)
    except Diverged as problem:
        shutil.rmtree(work / "checkpoint", ignore_errors=True)
        summary = {**summary_of(run.curve, ctx.step, state), "diverged": str(problem)}
        return TrainResult("diverged", cost_of(ctx, work, size), summary)
    with ctx.meter.phase("save"):
        _finish(ctx)
        _save(task, ctx, opener, stages, work / "artifact", tokenizer)
        shutil.rmtree(work / "checkpoint", ignore_errors=True)
    return TrainResult("ok", cost_of(ctx, work, size), summary_of(run.curve, ctx.step, state))


def _prepare(
    task: TrainTask, ctx: Context, opener: Opener, stages: Sequence[Stage], folders: Sequence[Path], report: Report
) -> Run:
    """Data, order, budget and optimiser of a stage. folders: its own, and those of attempts that ended."""
    stage, stack = ctx.stage, ctx.stack
    settings = TrainSettings(**{**task.settings.model_dump(), **stage.settings})
    ctx.read_start = lambda: start_weights(opener, ctx, stage)
    options = choose_trainable(ctx.model, stack, opener.owners, ctx)
    rows, where = stage_rows(task, ctx, opener, folders)
    how = sampling(stack)
    order = Order(
        len(rows),
        settings.batch_size,
        task.seed,
        lambda i: sum(len(q.ids) for q in ctx.encode([rows[i]], where=where)),
    )
    optimizer = make_optimizer(ctx, options, settings)

    def choose() -> None:
        regroup(optimizer, parameter_groups(ctx, choose_trainable(ctx.model, stack, opener.owners, ctx), settings))

    share = stage.share / sum(s.share for s in stages)
    tokens = round((settings.budget.tokens or 0) * share)
    steps = settings.budget.steps and max(1, round(settings.budget.steps * share))
    if not steps and not how and not any(overrides(m, hook) for m in stack for hook in ("pick", "collate")):
        steps = steps_for(tokens, order)
    return Run(
        ctx=ctx,
        settings=settings,
        rows=rows,
        where=where,
        order=order,
        optimizer=optimizer,
        choose=choose,
        rollouts=Rollouts(ctx, how, Prompts(task.model, ctx.limit).encode, where) if how else None,
        work=folders[0],
        report=report,
        steps=steps,
        tokens=tokens,
        fingerprint=digest(
            {
                "stack": [[name, dict(params)] for name, params in task.stack],
                "stage": task.stage,
                "seed": task.seed,
                "settings": settings.model_dump(mode="json", exclude=PLACEMENT),
                "rows": [row["id"] for row in rows],
            }
        ),
    )


def stage_rows(task: TrainTask, ctx: Context, opener: Opener, folders: Sequence[Path]) -> tuple[list[Row], str]:
    """The stage's rows, and the file they are from."""
    source = ctx.stage.rows
    if callable(source):
        by = owner(opener.stack, "stages").name
        rows, where = made_rows(ctx, source, by, task.rows, folders), f"stage {ctx.stage.name}"
    elif source in task.rows:
        rows, where = ctx.rows(source), str(task.rows[source])
    else:
        raise HarnessError(
            f"stage `{ctx.stage.name}` trains on the rows `{source}`, which were not given",
            todo=nearest(source, task.rows),
        )
    if not rows:
        raise HarnessError("the data set is empty", where=where)
    single = next((row for row in rows if not is_pair(row)), None) if "pairs" in ctx.needs else None
    if single is not None:
        names = " and ".join(f"`{m.name}`" for m in ctx.stack if "pairs" in m.needs)
        raise HarnessError(
            f"{names} needs pairs, and this row has no `chosen` and `rejected`",
            where=f"{where}, row {single['id']}",
            todo="give it preference data, two answers a row",
        )
    for name in sorted(n.partition(":")[2] for n in ctx.needs if n.startswith("column:")):
        if (without := next((row for row in rows if row.get(name) is None), None)) is not None:
            raise HarnessError(f"this row has no `{name}`, which is needed", where=f"{where}, row {without['id']}")
    return rows, where


def make_optimizer(ctx: Context, options: Mapping[str, Mapping[str, Any]], settings: TrainSettings) -> Any:
    """AdamW in fp32, or a member's own."""
    groups = parameter_groups(ctx, options, settings)
    made = owner(ctx.stack, "optimizer").optimizer(groups, ctx)
    optimizer = made or torch.optim.AdamW(groups, betas=settings.betas, fused=True)
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    return optimizer


def parameter_groups(
    ctx: Context, options: Mapping[str, Mapping[str, Any]], settings: TrainSettings
) -> list[dict[str, Any]]:
    """Parameters of equal options share a group; norms and biases do not decay."""
    parameters = dict(ctx.model.named_parameters())
    groups: dict[str, dict[str, Any]] = {}
    for name, own in options.items():
        p = parameters[name]
        decay = settings.weight_decay if p.ndim > 1 else 0.0
        group = {"lr": settings.lr, "weight_decay": decay, **own}
        groups.setdefault(digest(group), {**group, "params": []})["params"].append(p)
    return list(groups.values())


def regroup(optimizer: Any, groups: Sequence[dict[str, Any]]) -> None:
    """Let an optimiser go on with other parameters: what is new starts without a state, what has left loses its own."""
    staying = {p for group in groups for p in group["params"]}
    for p in [p for p in optimizer.state if p not in staying]:
        del optimizer.state[p]
    optimizer.param_groups.clear()
    for group in groups:
        optimizer.add_param_group({**group, "initial_lr": group["lr"]})


def _finish(ctx: Context) -> None:
    """The weights last kept, and every member's last word."""
    if ctx.kept is not None:
        parameters = dict(ctx.model.named_parameters())
        with torch.no_grad():
            for name, value in ctx.kept.items():
                parameters[name].copy_(value)
    for member in ctx.stack:
        member.after_stage(ctx.model, ctx)


def _save(task: TrainTask, ctx: Context, opener: Opener, stages: Sequence[Stage], folder: Path, tokenizer: Any) -> None:
    """The last stage leaves what is served, the others what the next one starts from."""
    folder.mkdir(parents=True, exist_ok=True)
    model: Any = ctx.model
    own = {n for n, p in model.named_parameters() if id(p) in opener.owners}
    trained = ctx.touched
    if ctx.stage is not stages[-1]:
        kind = "stage"
        before = set() if ctx.stage.init == "base" else {n for n, _ in model.named_parameters()}
        artifacts.save_state(model, own | trained | before, folder)
    elif _is_adapter(model, ctx, opener, trained):
        kind = "adapter"
        artifacts.save_adapter(model, folder)
    else:
        kind = "full"
        for member in reversed(ctx.stack):
            model = member.unwrap(model, ctx)
        artifacts.save_full(
            model, folder, tokenizer_of(task.model, task.init), None if ctx.tokenizer is tokenizer else ctx.tokenizer
        )
    body = {"kind": kind, "method": [name for name, _ in task.stack], "stage": ctx.stage.name, "seed": task.seed}
    artifacts.write_artifact(folder, body, ctx.memory, ctx.saved)


def _is_adapter(model: nn.Module, ctx: Context, opener: Opener, trained: set[str]) -> bool:
    """Whether exactly the parameters of one member that leaves an adapter differ from the base."""
    if opener.init is not None or ctx.stage.init != "base":
        return False
    wrappers = [m for m in ctx.stack if overrides(m, "wrap") or overrides(m, "unwrap")]
    if len(wrappers) != 1 or wrappers[0].artifact != "adapter":
        return False
    return all(opener.owners.get(id(p)) is wrappers[0] for n, p in model.named_parameters() if n in trained)


def _without_training(
    task: TrainTask, stack: Sequence[Method], ctx: Context, opener: Opener, work: Path
) -> TrainResult:
    """A stack of no stages: opened, wrapped, unwrapped."""
    folder = work / "artifact"
    folder.mkdir(parents=True, exist_ok=True)
    stage = Stage()
    opener.stages = {stage.name: stage}
    with ctx.meter.phase("open"):
        model = opener.fresh(ctx, stage)
    for member in reversed(stack):
        model = member.unwrap(model, ctx)
    with ctx.meter.phase("save"):
        artifacts.save_full(model, folder, tokenizer_of(task.model, task.init))
        body = {"kind": "full", "method": [name for name, _ in task.stack], "stage": "", "seed": task.seed}
        artifacts.write_artifact(folder, body, ctx.memory, ctx.saved)
    return TrainResult("ok", cost_of(ctx, work, 0), {"steps": 0})


def context_length(model: Any) -> int:
    """Positions the model has, or more than any row needs."""
    return int(getattr(getattr(model, "config", None), "max_position_embeddings", None) or 2**31)


def cost_of(ctx: Context, work: Path, trainable: int) -> dict[str, Any]:
    """The cost record of a stage."""
    artifact = work / "artifact"
    return {
        **ctx.meter.cost(),
        "trainable_parameters": trainable,
        "artifact_bytes": artifacts.folder_bytes(artifact) if artifact.exists() else 0,
    }


def summary_of(
    curve: Sequence[Mapping[str, Any]], steps: int, resumed: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The summary of a stage: its losses, the last being the mean over the last tenth of the steps."""
    losses = [line["loss"] for line in curve if line["loss"] is not None]
    tail = losses[-max(1, len(losses) // 10) :]
    return {
        "steps": steps,
        "first_loss": losses[0] if losses else None,
        "final_loss": sum(tail) / len(tail) if losses else None,
        "resumed_at": resumed["step"] if resumed else None,
        "threads": torch.get_num_threads(),
    }
