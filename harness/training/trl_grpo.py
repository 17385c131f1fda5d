"""GRPO through TRL's trainer: TRL samples, groups and learns; prompts, their order and the rewards are ours.

Answers are drawn by Hugging Face's `generate` from the weights that train, in this process: no engine is started, and
the draws are torch's, so they are not the native trainer's answers of the same seed. An answer ends at the tokenizer's
own end token only. p_old is the trained model's own word, so the ratio is 1 where answers are trained on once, and
clipping never acts; the native trainer's p_old is the engine's. Probabilities are those without temperature, as ours.

Billed: tokens of prompts and answers as `rollout`, every token trained, and the passes of the reference. The forward
passes inside `generate` are in the seconds of `rollout` and in no count of tokens. Only `trl_stage.py` imports this.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from trl import GRPOConfig, GRPOTrainer

from harness.engines.prompts import Prompts
from harness.matrix import TrainSettings
from harness.methods.base import Row
from harness.methods.grpo import GRPO
from harness.methods.sampling import sampling
from harness.training.adapters import TrainTask
from harness.training.batches import Order
from harness.training.budget import Meter
from harness.training.context import Context
from harness.training.rollouts import Rollouts
from harness.training.schedule import lr_factor
from harness.training.trl_stage import Watch, Work, micro_of
from harness.training.verify import scores

LOSSES = {"rows": "grpo", "tokens": "dapo"}  # by our `norm`; `dapo` counts the tokens of a whole step, as we do


@dataclass
class Rounds(Work):
    """examples: places in the order of prompts, as text.  tokens: the budget, where it is not `steps`."""

    rows: Sequence[Row]
    order: Order
    rollouts: Rollouts
    tokens: int

    def row(self, place: str) -> Row:
        """The row at a place."""
        step, at = divmod(int(place), self.order.size)
        return self.rows[self.order.batch(step)[at]]

    def ids(self, place: str) -> list[int]:
        """The prompt at a place, as an engine would be sent it. HarnessError where it leaves no room for an answer."""
        return self.rollouts.asked(self.row(place))[1]

    def share(self, meter: Meter, steps: int) -> float:
        """How much of the budget is spent after so many steps, 0 to 1."""
        return min(1.0, meter.trained / self.tokens if self.tokens else steps / self.steps)


def prepare(task: TrainTask, ctx: Context, rows: Sequence[Row], where: str, order: Order) -> Rounds:
    """Enough prompts for the whole budget: how many tokens a step takes is known once it is sampled."""
    how = sampling(ctx.stack)
    assert how is not None
    budget = task.settings.budget
    tokens = 0 if budget.steps else budget.tokens or 0
    size = order.size * how.n
    steps = budget.steps or math.ceil(tokens / (2 * size))  # a prompt and an answer are two tokens at least
    examples = [{"prompt": str(place)} for place in range(steps * order.size)]
    rollouts = Rollouts(ctx, how, Prompts(task.model, ctx.limit).encode, where)
    return Rounds(examples, steps, size, micro_of(size, task.settings.micro_batch), rows, order, rollouts, tokens)


def make(method: GRPO, todo: Rounds, meter: Meter, options: Mapping[str, Any], common: Mapping[str, Any]) -> Any:
    """TRL's trainer. It opens a reference of its own where there is a beta: `trl_stage.py` puts ours in its place."""
    high = method.epsilon if method.epsilon_high is None else method.epsilon_high
    args = GRPOConfig(
        num_generations=method.n,
        max_completion_length=method.max_tokens,
        temperature=method.temperature,
        top_p=method.top_p,
        loss_type=LOSSES[method.norm],
        beta=method.beta,
        use_bias_correction_kl=False,
        epsilon=method.epsilon,
        epsilon_high=high,
        scale_rewards=method.scale,
        shuffle_dataset=False,
        **options,
    )

    def verify(prompts: list[str], completions: list[str], **rest: Any) -> list[float]:
        with meter.phase("reward"):
            return scores([todo.row(place) for place in prompts], completions)

    trainer = MeteredGRPO(args=args, reward_funcs=verify, **common)
    trainer.todo = todo
    trainer.temperature = 1.0  # of the loss; `generate` was given its own above
    return trainer


class MeteredGRPO(GRPOTrainer):  # type: ignore[misc]
    """TRL's, metered, and asking with prompts that are tokenised already."""

    meter: Meter
    todo: Rounds

    def training_step(self, model: Any, inputs: Any, *args: Any, **options: Any) -> Any:
        model.train()  # TRL samples for training only where the model is
        with self.meter.phase("rollout"):
            batch = self._prepare_inputs(inputs)
        seen = int(batch["prompt_mask"].sum() + batch["completion_mask"].sum())
        padded = batch["prompt_mask"].numel() + batch["completion_mask"].numel()
        first = self.meter.flops == 0
        with self.meter.phase("backward"), self.meter.count_flops() if first else nullcontext():
            loss = super().training_step(model, batch, *args, **options)
        self.meter.step(seen, int(batch["completion_mask"].sum()), padded)
        return loss

    def _prepare_inputs(self, given: Any) -> Any:
        """A batch that was sampled above is ready."""
        return given if isinstance(given, dict) else super()._prepare_inputs(given)

    def _tokenize_prompts(self, prompts: list[str]) -> tuple[list[list[int]], None, dict[str, Any]]:
        return [self.todo.ids(place) for place in prompts], None, {}

    def _generate_single_turn(self, prompt_ids: list[list[int]], *args: Any, **options: Any) -> Any:
        said, logprobs = super()._generate_single_turn(prompt_ids, *args, **options)
        self.meter.answered(sum(map(len, prompt_ids)), sum(map(len, said)))
        return said, logprobs

    def _get_per_token_logps_and_entropies(self, model: Any, ids: Any, mask: Any, *args: Any, **options: Any) -> Any:
        if not torch.is_grad_enabled():  # the reference's
            self.meter.forward("base", int(mask.sum()), training=False)
        with self.meter.phase("forward"):
            return super()._get_per_token_logps_and_entropies(model, ids, mask, *args, **options)


class Paced(Watch):
    """Sets the learning rate by what of the budget each step spends, and ends the run when it is spent."""

    columns: ClassVar[dict[str, str]] = {
        "reward": "reward",
        "completions/mean_length": "length",
        "completions/clipped_ratio": "cut",
        "frac_reward_zero_std": "no_contrast",
    }

    def __init__(self, todo: Rounds, settings: TrainSettings, *args: Any) -> None:
        super().__init__(*args)
        self.todo, self.settings, self.before, self.lr = todo, settings, 0.0, 0.0

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, optimizer: Any = None, **options: Any) -> None:
        after = self.todo.share(self.meter, state.global_step + 1)
        factor = lr_factor(self.settings.schedule, self.settings.warmup, self.before, after)
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
        self.before, self.lr = after, self.settings.lr * factor

    def on_step_end(self, args: Any, state: Any, control: Any, **options: Any) -> None:
        control.should_training_stop = control.should_training_stop or self.before >= 1.0

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **options: Any) -> None:
        super().on_log(args, state, control, {**logs, "learning_rate": self.lr}, **options)

    def spent(self, step: int) -> tuple[float, float]:
        tokens = self.todo.tokens
        return (float(self.meter.trained), float(tokens)) if tokens else super().spent(step)
