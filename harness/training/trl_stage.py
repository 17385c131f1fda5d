"""One cell through a trainer of TRL's: our tokens, batches, budget, optimiser and schedule; TRL's loop and losses.

So what may differ from `native` is the loop, the arithmetic of the loss and, for `dpo`, what follows the last learned
token, which TRL has no place for; for `grpo` see `trl_grpo.py`. TRL trains in training mode: dropout in the base's own
configuration acts here. There is no checkpoint, so an interrupted attempt is begun anew. TRL's checkpoints, services,
and gradient checkpointing are off. Only `adapters/trl.py` imports this file, which imports TRL.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from datasets import Dataset
from transformers import TrainerCallback
from transformers.trainer_callback import PrinterCallback
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

from harness.errors import HarnessError
from harness.matrix import TrainSettings
from harness.methods.base import NO_TARGET, Method, Stage
from harness.methods.dpo import DPO
from harness.methods.grpo import GRPO
from harness.methods.lora import LoRA
from harness.training import artifacts
from harness.training.adapters import TrainResult, TrainTask
from harness.training.batches import Order, steps_for
from harness.training.budget import Meter
from harness.training.context import Context
from harness.training.data import read_rows
from harness.training.loop import Diverged, Report
from harness.training.opening import Opener, open_tokenizer
from harness.training.randomness import seeded
from harness.training.schedule import lr_factor
from harness.training.sequences import Seq
from harness.training.stage import context_length, cost_of, device, make_optimizer, stage_rows, summary_of

Kind = TypeVar("Kind", bound=Method)


@dataclass
class Work:
    """examples: what TRL reads, in order, `batch` rows an optimiser step and `micro` a forward pass."""

    examples: list[dict[str, Any]]
    steps: int
    batch: int
    micro: int


def run_stage(task: TrainTask, stack: Sequence[Method], work: Path, report: Report) -> TrainResult:
    """Leaves work/artifact and work/curve.jsonl, like the native trainer."""
    ctx = Context(
        seed=task.seed,
        device=device(),
        tokenizer=open_tokenizer(task.model),
        limit=task.settings.max_length,
        precision=task.settings.precision,
    )
    ctx.enter(Stage(), stack)
    for name, path in task.rows.items():
        ctx.add_rows(name, read_rows(path), path)
    opener = Opener(task.model, task.init, stack, (ctx.stage,), task.done)
    with ctx.meter.phase("open"):
        model: Any = opener.base()
        ctx.limit = min(ctx.limit, context_length(model))
    with ctx.meter.phase("data"):
        todo = prepare(task, ctx, opener)
    configs = deepcopy((model.config, model.generation_config))
    with ctx.meter.phase("open"):
        trainer = make_trainer(ctx, opener, model, task.settings, todo, work / "trl")
    size = sum(p.numel() for p in ctx.trainable)
    with (work / "curve.jsonl").open("w") as curve:
        watch = _watch(ctx, todo, task.settings, curve, report)
        trainer.add_callback(watch)
        try:
            with ctx.meter.phase("optimizer"):  # all of TRL's loop that is neither forward nor backward
                trainer.train()
        except Diverged as problem:
            summary = {**summary_of(watch.lines, problem.step - 1), "diverged": str(problem)}
            return TrainResult("diverged", cost_of(ctx, work, size), summary)
    with ctx.meter.phase("save"):
        shutil.rmtree(work / "trl", ignore_errors=True)
        model.config, model.generation_config = configs  # TRL writes its own wishes into them
        _save(task, trainer.model, work / "artifact")
    return TrainResult("ok", cost_of(ctx, work, size), summary_of(watch.lines, len(watch.lines)))


def prepare(task: TrainTask, ctx: Context, opener: Opener) -> Work:
    """The rows of every step, tokenised, in the native trainer's order."""
    rows, where = stage_rows(task, ctx, opener, [])
    settings = task.settings
    order = Order(
        len(rows),
        settings.batch_size,
        task.seed,
        lambda i: sum(len(q.ids) for q in ctx.encode([rows[i]], where=where)),
    )
    if _first(ctx, GRPO):
        from harness.training.trl_grpo import prepare as prepare_rounds

        return prepare_rounds(task, ctx, rows, where, order)
    steps = settings.budget.steps or steps_for(settings.budget.tokens or 0, order)
    micro = micro_of(order.size, order.size if "whole_batch" in ctx.needs else settings.micro_batch)
    numbers = [i for k in range(steps) for i in order.batch(k)]
    example = _pair if "pairs" in ctx.needs else _single
    made = {i: example(ctx.encode([rows[i]], where=where), f"{where}, row {rows[i]['id']}") for i in set(numbers)}
    return Work([made[i] for i in numbers], steps, order.size, micro)


def micro_of(size: int, most: int) -> int:
    """Rows of a forward pass: TRL's are of equal size."""
    return max(n for n in range(1, min(size, most) + 1) if size % n == 0)


def _first(ctx: Context, kind: type[Kind]) -> Kind | None:
    """The member of a kind, if the stack has one."""
    return next((m for m in ctx.stack if isinstance(m, kind)), None)


def _single(seqs: Sequence[Seq], where: str) -> dict[str, Any]:
    """Labels are not shifted yet in TRL's examples."""
    (seq,) = seqs
    return {"input_ids": list(seq.ids), "labels": [NO_TARGET, *seq.targets[:-1]]}


def _pair(seqs: Sequence[Seq], where: str) -> dict[str, Any]:
    """HarnessError where the two answers do not continue one prompt, each learned from end to end."""
    (prompt, chosen), (other, rejected) = (_cut(seq, where) for seq in seqs)
    if prompt != other:
        raise HarnessError("the two answers do not continue the same prompt, and TRL needs that", where=where)
    return {"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected}


def _cut(seq: Seq, where: str) -> tuple[list[int], list[int]]:
    """Prompt and completion; what follows the last learned token is left out."""
    learned = [i + 1 for i, target in enumerate(seq.targets) if target != NO_TARGET]
    first, last = learned[0], learned[-1] + 1
    if len(learned) != last - first:
        raise HarnessError(
            "an answer in several pieces, and TRL learns all that follows the prompt",
            where=where,
            todo="give earlier assistant messages the weight 0",
        )
    return list(seq.ids[:first]), list(seq.ids[first:last])


def make_trainer(ctx: Context, opener: Opener, model: Any, settings: TrainSettings, todo: Work, folder: Path) -> Any:
    """TRL's trainer, ready to start, with our optimiser and schedule. ctx.model is what it trains."""
    lora, dpo, grpo = _first(ctx, LoRA), _first(ctx, DPO), _first(ctx, GRPO)
    common = {
        "model": model,
        "train_dataset": Dataset.from_list(todo.examples),
        "processing_class": ctx.tokenizer,
        "peft_config": lora and lora.config(),
    }
    options = _options(ctx, settings, todo, folder)
    try:
        with seeded(ctx.seed, "wrap", ctx.stage.name, "lora"):  # as the native trainer draws the adapter's start
            if grpo is not None:
                trainer: Any = _grpo_trainer(ctx, opener, todo, options, common)
            elif dpo is not None:
                ref = None if lora else opener.base()
                args = DPOConfig(max_length=None, beta=dpo.beta, **options)
                trainer = MeteredDPO(args=args, ref_model=ref, **common)
            else:
                skip = {"skip_prepare_dataset": True}
                trainer = MeteredSFT(args=SFTConfig(max_length=None, dataset_kwargs=skip, **options), **common)
    except ValueError as error:
        raise HarnessError("TRL refuses this cell", why=str(error).splitlines()[0]) from error
    trainer.meter, trainer.reference = ctx.meter, dpo is not None
    trainer.remove_callback(PrinterCallback)
    ctx.model = trainer.model
    names = [n for n, p in ctx.model.named_parameters() if p.requires_grad]
    trainer.optimizer = make_optimizer(ctx, {name: {} for name in names}, settings)

    def factor(k: int) -> float:
        if grpo is not None:
            return 1.0  # what a step spends is known once it is sampled: `Paced` sets the rate
        return lr_factor(settings.schedule, settings.warmup, k / todo.steps, min(1.0, (k + 1) / todo.steps))

    trainer.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(trainer.optimizer, factor)
    return trainer


def _grpo_trainer(ctx: Context, opener: Opener, todo: Work, options: dict[str, Any], common: dict[str, Any]) -> Any:
    from harness.training.trl_grpo import Rounds, make

    method = _first(ctx, GRPO)
    assert method is not None and isinstance(todo, Rounds)
    trainer = make(method, todo, ctx.meter, options, common)
    if trainer.ref_model is not None:  # TRL opened what the configuration names, which a start is not
        trainer.ref_model = trainer.accelerator.prepare_model(opener.base(), evaluation_mode=True)
    return trainer


def _watch(ctx: Context, todo: Work, settings: TrainSettings, curve: Any, report: Report) -> Watch:
    if _first(ctx, GRPO) is None:
        return Watch(ctx.meter, curve, todo.steps, report)
    from harness.training.trl_grpo import Paced, Rounds

    assert isinstance(todo, Rounds)
    return Paced(todo, settings, ctx.meter, curve, todo.steps, report)


def _options(ctx: Context, settings: TrainSettings, todo: Work, folder: Path) -> dict[str, Any]:
    """What both configurations are told."""
    return {
        "output_dir": str(folder),
        "use_cpu": ctx.device.type == "cpu",
        "bf16": settings.precision == "bf16",
        "seed": ctx.seed,
        "max_steps": todo.steps,
        "per_device_train_batch_size": todo.micro,
        "gradient_accumulation_steps": todo.batch // todo.micro,
        "train_sampling_strategy": "sequential",
        "learning_rate": settings.lr,
        "max_grad_norm": settings.clip or 0.0,
        "gradient_checkpointing": False,
        "dataloader_pin_memory": ctx.device.type == "cuda",
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }


class _Metered:
    """What TRL's trainers spend, on our meter. reference: whether each pass has one of a frozen model beside it."""

    meter: Meter
    reference: bool

    def training_step(self, model: Any, inputs: Any, *args: Any, **options: Any) -> Any:
        seen = inputs["attention_mask"]
        learned = inputs["labels"] != NO_TARGET if "labels" in inputs else inputs["completion_mask"] != 0
        first = self.meter.flops == 0
        with self.meter.phase("backward"), self.meter.count_flops() if first else nullcontext():
            loss = super().training_step(model, inputs, *args, **options)  # type: ignore[misc]
        self.meter.step(int(seen.sum()), int(learned[:, 1:].sum()), seen.numel())
        if self.reference:
            self.meter.forward("base", int(seen.sum()), training=False)
        return loss

    def compute_loss(self, *args: Any, **options: Any) -> Any:
        with self.meter.phase("forward"):
            return super().compute_loss(*args, **options)  # type: ignore[misc]


class MeteredSFT(_Metered, SFTTrainer):  # type: ignore[misc]
    """TRL's, metered."""


class MeteredDPO(_Metered, DPOTrainer):  # type: ignore[misc]
    """TRL's, metered, and taking pairs that are tokenised already."""

    def _prepare_dataset(self, dataset: Any, *args: Any) -> Any:
        return dataset


class Watch(TrainerCallback):  # type: ignore[misc]
    """Writes the curve and reports. Diverged where loss or gradient is not finite.

    columns: what else of TRL's log goes into the curve, and its name there.
    """

    columns: ClassVar[dict[str, str]] = {}

    def __init__(self, meter: Meter, curve: Any, steps: int, report: Report) -> None:
        self.meter, self.curve, self.steps, self.report = meter, curve, steps, report
        self.lines: list[dict[str, Any]] = []

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **options: Any) -> None:
        if "loss" not in logs:  # TRL's summary at the end
            return
        found = {"loss": logs["loss"], "norm": logs["grad_norm"], "lr": logs["learning_rate"]}
        more = {ours: logs[theirs] for theirs, ours in self.columns.items()}
        line = {"step": state.global_step, "tokens": self.meter.trained, **found, **more}
        self.lines.append({k: v if math.isfinite(v) else None for k, v in line.items()})  # JSON knows no NaN
        self.curve.write(json.dumps(self.lines[-1]) + "\n")
        self.curve.flush()
        for what, name in (("the loss is not finite", "loss"), ("the gradient is not finite", "norm")):
            if not math.isfinite(found[name]):
                raise Diverged(state.global_step, what)
        done, total = self.spent(state.global_step)
        self.report(done, total, f"loss {found['loss']:.3f}")

    def spent(self, step: int) -> tuple[float, float]:
        """What of the budget is spent, and all of it."""
        return float(step), float(self.steps)


def _save(task: TrainTask, model: Any, folder: Path) -> None:
    """The same files as the native trainer leaves: an adapter where it is one of the base, else whole weights."""
    folder.mkdir(parents=True, exist_ok=True)
    adapted = any(name == "lora" for name, _ in task.stack)
    kind = "adapter" if adapted and task.init is None else "full"
    if kind == "adapter":
        artifacts.save_adapter(model.get_base_model(), folder)
    else:
        artifacts.save_full(model.merge_and_unload() if adapted else model, folder, task.model)
    body = {"kind": kind, "method": [name for name, _ in task.stack], "stage": "train", "seed": task.seed}
    artifacts.write_artifact(folder, body, {}, {})
