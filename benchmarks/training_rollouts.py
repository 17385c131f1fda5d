"""Part 4 of `training.py`: tokens a second that an on-policy cell samples, beside those of the bare engine.

The cell is `grpo` as the native trainer runs it: a resident engine in a process of its own, the live weights written
and loaded in place before every step's answers. The bare engine is a `vllm.LLM`, started with the same settings in
another process, whose `generate` gets the same prompts with the same n and max_tokens, without log-probabilities. They
answer in turns in every step, the order changing; the first step, which starts both, is not counted. The learning rate
is so small that the served weights stay the base's, which the bare engine has.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from harness.engines.base import EngineSpec, Request, Response
from harness.matrix import Budget, TrainSettings
from harness.training import stage
from harness.training.adapters import TrainTask, make
from harness.training.resident import Resident

TARGET = 0.9
STILL = 1e-12  # a learning rate that moves no bfloat16 weight


@dataclass(frozen=True)
class Round:
    """Tokens a second.  cell: with the new weights' way into the engine.  answering: without it.  bare: of the bare
    engine."""

    cell: float
    answering: float
    bare: float


def bare_engine(pipe: Any, model: Path, spec: EngineSpec) -> None:
    """The other process: [(prompt's text, how many, max_tokens, temperature, top_p)] -> tokens and seconds."""
    from harness.engines.prompts import Prompts
    from harness.engines.vllm_start import set_environment, start

    set_environment()
    os.dup2(2, 1)  # vLLM's words are no result
    llm, prompts = start(model, spec, spec.max_model_len), Prompts(model, spec.max_model_len)
    from vllm import SamplingParams

    while (asked := pipe.recv()) is not None:
        llm.reset_prefix_cache()
        started = time.perf_counter()
        given = [{"prompt_token_ids": prompts.encode(request)} for request, _ in asked]
        params = [
            SamplingParams(
                n=n,
                max_tokens=r.max_tokens,
                temperature=r.temperature,
                top_p=r.top_p,
                stop_token_ids=list(prompts.ends),
                seed=r.seed,
            )
            for r, n in asked
        ]
        outputs = llm.generate(given, params, use_tqdm=False)
        tokens = sum(len(answer.token_ids) for output in outputs for answer in output.outputs)
        pipe.send((tokens, time.perf_counter() - started))


class Bare:
    """This side of the bare engine."""

    def __init__(self, model: Path, spec: EngineSpec) -> None:
        context = get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=bare_engine, args=(theirs, model, spec), daemon=True)
        self.process.start()
        theirs.close()

    def rate(self, requests: Sequence[Request]) -> float:
        """Of equal questions one is sent, with their number as n."""
        groups: dict[Any, list[Request]] = {}
        for request in requests:
            groups.setdefault(str(request.messages), []).append(request)
        self.pipe.send([(same[0], len(same)) for same in groups.values()])
        tokens, seconds = self.pipe.recv()
        return float(tokens / seconds)

    def close(self) -> None:
        self.pipe.send(None)
        self.process.join(30)


class Timed(Resident):
    """The trainer's own, with the clock beside it and the bare engine in turns."""

    bare: Bare
    rounds: list[Round]

    def answer(self, requests: Sequence[Request], model: str) -> list[Response]:
        first = len(self.rounds) % 2 == 0
        beside = 0.0 if first else self.bare.rate(requests)
        started = time.perf_counter()
        self.serve(model)
        served = time.perf_counter()
        answers: list[Response] = self._ask("answer", list(requests))
        ended = time.perf_counter()
        tokens = sum(len(response.tokens) for response in answers)
        beside = self.bare.rate(requests) if first else beside
        self.rounds.append(Round(tokens / (ended - started), tokens / (ended - served), beside))
        print(f"  round {len(self.rounds)}: {self.rounds[-1]}", file=sys.stderr)
        return answers


def rollouts(model: Path, file: Path, *, rounds: int, batch: int, n: int, max_tokens: int) -> list[str]:
    """Run the cell; what was measured, line by line."""
    spec = EngineSpec()
    settings = TrainSettings(budget=Budget(steps=rounds + 1), batch_size=batch, micro_batch=4, lr=STILL)
    task = TrainTask(model, (("grpo", {"n": n, "max_tokens": max_tokens}),), {"train": file}, settings, engine=spec)
    Timed.bare, Timed.rounds = Bare(model, spec), []
    kept, stage.Resident = stage.Resident, Timed  # type: ignore[misc]
    try:
        with tempfile.TemporaryDirectory() as work, redirect_stdout(sys.stderr):
            make("native").train(task, Path(work), [], lambda done, total, note: None)
    finally:
        stage.Resident = kept  # type: ignore[misc]
        Timed.bare.close()
    return told(Timed.rounds[1:], batch, n, max_tokens)


def told(found: Sequence[Round], batch: int, n: int, max_tokens: int) -> list[str]:
    """The medians."""
    lines = [
        f"rollout tokens a second, {batch} prompts x {n} answers of at most {max_tokens}, {len(found)} rounds in turns"
    ]
    lines.append(f"  bare engine       {statistics.median(r.bare for r in found):7.0f} tokens/s")
    for name, rates in (
        ("cell, refreshed", [(r.cell, r.bare) for r in found]),
        ("cell, answering", [(r.answering, r.bare) for r in found]),
    ):
        ratios = [ours / bare for ours, bare in rates]
        line = f"  {name:<17} {statistics.median(ours for ours, _ in rates):7.0f} tokens/s"
        line += f"   {statistics.median(ratios):.2f} of the bare engine's (target {TARGET}; "
        lines.append(line + f"{min(ratios):.2f} to {max(ratios):.2f})")
    return lines
