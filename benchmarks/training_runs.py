"""What `training.py` and its parts share: one timed run of a trainer on a method, and runs in turns. It prints nothing
that is a result."""

from __future__ import annotations

import gc
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import methods
from harness.engines.base import EngineSpec
from harness.matrix import TrainSettings
from harness.methods.base import owner
from harness.training.adapters import TrainTask, make

OWN = "trl-own"
APART = ("open", "save", "data", "engine", "refresh", "rollout", "reward", "curate")  # seconds of no optimiser step

Stack = Sequence[tuple[str, Mapping[str, Any]]]


@dataclass(frozen=True)
class Spent:
    """rate: trained tokens a second, from every stage's second step on.  passes: the same of forward passes, backward
    passes and the optimiser alone.  peak: bytes.  tokens: trained.  extra: tokens of further forward passes."""

    rate: float
    passes: float
    peak: int
    tokens: int
    extra: int


class Clock:
    """When each step ended, and the tokens trained by then."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def __call__(self, done: float, total: float, note: str) -> None:
        if not note.endswith(" answers"):  # said during a step
            self.times.append(time.perf_counter())

    def spent(self, tokens: Sequence[int]) -> tuple[int, float]:
        """Tokens and seconds after the first step."""
        return tokens[-1] - tokens[0], self.times[-1] - self.times[0]


@dataclass(frozen=True)
class Bench:
    """model: Hugging Face folder.  rows: conversations.  file: the same as JSON lines."""

    model: Path
    rows: list[dict[str, Any]]
    file: Path
    settings: TrainSettings

    def train(self, trainer: str, stack: Stack, engine: EngineSpec | None = None) -> Spent:
        """One run from the base model, all stages of it."""
        gc.collect()
        with tempfile.TemporaryDirectory() as temp, redirect_stdout(sys.stderr):
            if trainer == OWN:
                return self._own(stack[0][0], Path(temp))
            return self._adapter(trainer, stack, Path(temp), engine)

    def _adapter(self, trainer: str, stack: Stack, work: Path, engine: EngineSpec | None) -> Spent:
        done: dict[str, Path] = {}
        timed, costs = [], []
        for number, stage in enumerate(owner(methods.build(stack), "stages").stages(None)):
            clock, folder = Clock(), work / stage.name
            folder.mkdir()
            task = TrainTask(
                self.model, tuple(stack), {"train": self.file}, self.settings, stage=number, done=done, engine=engine
            )
            costs.append(make(trainer).train(task, folder, [], clock).cost)
            done[stage.name] = folder / "artifact"
            lines = (folder / "curve.jsonl").read_text().splitlines()
            timed.append(clock.spent([json.loads(line)["tokens"] for line in lines]))
        tokens = sum(cost["trained_tokens"] for cost in costs)
        passes = sum(v for cost in costs for k, v in cost["seconds"].items() if k not in APART)
        return Spent(
            sum(n for n, _ in timed) / sum(seconds for _, seconds in timed),
            tokens / passes,
            max(max(cost["peak_bytes"].values()) for cost in costs),
            tokens,
            sum(sum(cost["extra_forward_tokens"].values()) for cost in costs),
        )

    def _own(self, method: str, work: Path) -> Spent:
        """TRL by itself, from conversations to the last step."""
        from datasets import Dataset
        from transformers import TrainerCallback
        from transformers.trainer_callback import PrinterCallback
        from trl import SFTConfig, SFTTrainer

        from harness.training.budget import Meter
        from harness.training.opening import open_base, open_tokenizer
        from harness.training.stage import device

        class Steps(TrainerCallback):  # type: ignore[misc]
            clock, tokens = Clock(), list[int]()

            def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **options: Any) -> None:
                if "loss" in logs:
                    self.clock(state.global_step, state.max_steps, "")
                    self.tokens.append(int(logs["num_tokens"]))

        s, meter = self.settings, Meter(device())
        examples = [{"prompt": r["messages"][:-1], "completion": r["messages"][-1:]} for r in self.rows]
        config = SFTConfig(
            output_dir=str(work),
            use_cpu=meter.device.type == "cpu",
            bf16=s.precision == "bf16",
            max_steps=s.budget.steps,
            per_device_train_batch_size=s.micro_batch,
            gradient_accumulation_steps=s.batch_size // s.micro_batch,
            learning_rate=s.lr,
            gradient_checkpointing=False,
            dataloader_pin_memory=meter.device.type == "cuda",
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        with meter.phase("all"):
            steps = Steps()
            trainer = SFTTrainer(
                model=open_base(self.model),
                args=config,
                train_dataset=Dataset.from_list(examples),
                processing_class=open_tokenizer(self.model),
                peft_config=methods.make("lora", {}).config() if method == "lora" else None,
                callbacks=[steps],
            )
            trainer.remove_callback(PrinterCallback)
            trainer.train()
        peak = meter.cost()["peak_bytes"]["all"]
        tokens, seconds = steps.clock.spent(steps.tokens)
        return Spent(tokens / seconds, tokens / seconds, peak, steps.tokens[-1], 0)


def in_turns(runs: Mapping[str, Callable[[], Spent]], rounds: int) -> dict[str, list[Spent]]:
    """Every run once a round, in an order that turns. The first goes once before, uncounted, for what is
    imported or cached."""
    next(iter(runs.values()))()
    found: dict[str, list[Spent]] = {name: [] for name in runs}
    for number in range(rounds):
        names = list(runs)
        for name in (*names[number % len(names) :], *names[: number % len(names)]):
            found[name].append(runs[name]())
            print(f"  round {number + 1}: {name}: {found[name][-1].rate:.0f} tokens/s", file=sys.stderr)
    return found
