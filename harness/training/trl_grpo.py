"""`grpo` through TRL's GRPOTrainer: our prompts, rewards, budget and optimiser; TRL's sampling, advantages and loss.

Answers are sampled by the model itself in transformers, not by an engine, so a row of it is another draw of the same
experiment and not the native row again; the losses of equal samples are equal (`tests/test_trl_parity.py`). With a
budget of tokens the schedule counts the step to come as long as the last one. Only `trl_stage`
imports this file, and only for `grpo`, since TRL's module loads vLLM where that is installed.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.engines.base import Request
from harness.engines.prompts import Prompts
from harness.matrix import TrainSettings
from harness.methods.base import Row
from harness.methods.grpo import GRPO
from harness.training import verify
from harness.training.adapters import TrainTask
from harness.training.batches import Order
from harness.training.budget import Meter
from harness.training.context import Context
from harness.training.opening import Opener
from harness.training.rollouts import question_of
from harness.training.schedule import lr_factor
from harness.training.stage import stage_rows
from harness.training.trl_stage import Work

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of vLLM, which TRL loads and is not asked to use
    from trl import GRPOConfig, GRPOTrainer

_LOSSES = {"rows": "grpo", "tokens": "dapo"}  # by our `norm`: how TRL calls the same mean


@dataclass
class Asked(Work):
    """Prompts in the native trainer's order; a batch is of answers.

    prompts: the ids of each, by the text that TRL hands around for it, which is the number of its row in `rows`.
    """

    prompts: Mapping[str, list[int]] = field(default_factory=dict)
    rows: Sequence[Row] = ()


def prepare(task: TrainTask, ctx: Context, opener: Opener, grpo: GRPO) -> Asked:
    """The prompts of every step, or as many as a budget of tokens can use: an answer has one token at least."""
    rows, where = stage_rows(task, ctx, opener, [])
    settings = task.settings
    encode = Prompts(task.model, ctx.limit).encode
    questions = [question_of(row, where)[0] for row in rows]
    known: dict[int, list[int]] = {}

    def prompt(i: int) -> list[int]:
        if i not in known:
            known[i] = encode(ctx.prompted(Request(messages=questions[i])))
        return known[i]

    order = Order(
        len(rows),
        settings.batch_size,
        task.seed,
        lambda i: sum(len(q.ids) for q in ctx.encode([rows[i]], where=where)),
    )
    tokens = settings.budget.tokens or 0
    numbers: list[int] = []
    surely = step = 0
    while step < settings.budget.steps if settings.budget.steps else surely < tokens:
        chosen = order.batch(step)
        numbers += chosen
        surely += grpo.n * sum(len(prompt(i)) + 1 for i in chosen)
        step += 1
    batch = order.size * grpo.n
    micro = max(size for size in range(1, min(batch, settings.micro_batch) + 1) if batch % size == 0)
    prompts = {str(i): prompt(i) for i in set(numbers)}
    examples = [{"prompt": str(i)} for i in numbers]
    return Asked(examples, settings.budget.steps, batch, micro, tokens, prompts, rows)


def make(
    grpo: GRPO, asked: Asked, ctx: Context, opener: Opener, options: dict[str, Any], common: dict[str, Any]
) -> MeteredGRPO:
    """The trainer. options: what all of TRL's configurations are told.  common: arguments of all of its trainers."""
    args = GRPOConfig(
        num_generations=grpo.n,
        max_completion_length=grpo.max_tokens,
        temperature=grpo.temperature,
        top_p=grpo.top_p,
        epsilon=grpo.epsilon,
        epsilon_high=grpo.epsilon_high,
        beta=0.0,  # a reference model of its own would be the one that the folder of the base names
        scale_rewards=grpo.scale,
        loss_type=_LOSSES[grpo.norm],
        shuffle_dataset=False,
        **{k: v for k, v in options.items() if k != "train_sampling_strategy"},
    )
    trainer = MeteredGRPO(args=args, reward_funcs=_rewards(asked.rows), **common)
    trainer.meter, trainer.asked = ctx.meter, asked.prompts
    if grpo.beta:
        trainer.beta = grpo.beta
        if common["peft_config"] is None:
            trainer.ref_model = trainer.accelerator.prepare_model(opener.base(), evaluation_mode=True)
    return trainer


def _rewards(rows: Sequence[Row]) -> Any:
    def reward(prompts: Sequence[str], completions: Sequence[str], **rest: Any) -> list[float]:
        return verify.scores([rows[int(number)] for number in prompts], completions)

    return reward


class MeteredGRPO(GRPOTrainer):  # type: ignore[misc]
    """TRL's, metered, and asking prompts that are tokenised already."""

    meter: Meter
    asked: Mapping[str, list[int]]

    def training_step(self, *args: Any, **options: Any) -> Any:
        with self.meter.phase("backward"):
            return super().training_step(*args, **options)

    def _prepare_inputs(self, *args: Any) -> Any:
        with self.meter.phase("data"):
            return super()._prepare_inputs(*args)

    def _tokenize_prompts(self, prompts: Sequence[str]) -> tuple[list[list[int]], None, dict[str, Any]]:
        return [self.asked[number] for number in prompts], None, {}

    def _generate_single_turn(self, prompt_ids: list[list[int]], *args: Any, **options: Any) -> Any:
        with self.meter.phase("rollout"):
            said, logprobs = super()._generate_single_turn(prompt_ids, *args, **options)
        self.meter.rollout["prompt_tokens"] += sum(map(len, prompt_ids))
        self.meter.rollout["generated_tokens"] += sum(map(len, said))
        return said, logprobs

    def _calculate_rewards(self, *args: Any) -> Any:
        with self.meter.phase("reward"):
            return super()._calculate_rewards(*args)

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **options: Any) -> Any:
        masks = [inputs["prompt_mask"], inputs["completion_mask"]]
        seen = sum(int(mask.sum()) for mask in masks)
        self.meter.step(seen, int(masks[1].sum()), sum(mask.numel() for mask in masks))
        if self.beta:
            self.meter.forward("base", seen, training=False)
        with self.meter.phase("forward"):
            return super().compute_loss(model, inputs, *args, **options)


def factor_by_tokens(tokens: int, meter: Meter, settings: TrainSettings) -> Callable[[int], float]:
    """The schedule of a budget of tokens, as a function of the step that begins."""
    seen = [0]

    def factor(step: int) -> float:
        last = meter.trained - seen[0]
        seen[0] = meter.trained
        before = min(1.0, meter.trained / tokens)
        after = min(1.0, (meter.trained + last) / tokens)
        return lr_factor(settings.schedule, settings.warmup, before, after)

    return factor
