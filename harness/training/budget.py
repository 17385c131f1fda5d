"""The meter of one training run: what was spent, on what, and where the memory went. It decides nothing.

Tokens of every pass of every model are counted where the pass is run, so work inside a hook cannot escape.
"""

from __future__ import annotations

import resource
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch


class Meter:
    """Counts since the start of the stage; `state` and `restore` carry them over a resume.

    trained: tokens of rows put through forward and backward, prompts included, padding not.
    loss: tokens that carried loss.  extra: tokens of further forward passes, by model ("live", "base", ...).
    rollout: tokens of prompts that an engine read for training, for rollouts and curation alike, and of its answers.
    seconds: by phase, each without the phases inside it.  memory: peak bytes by phase, of the GPU where there is one.
    flops: of one step, which was counted: all its passes in this process, not those of an engine beside it.
    flops_tokens: trained tokens of that step.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.trained = self.loss = self.padded = self.backwards = self.flops = self.flops_tokens = 0
        self.extra: dict[str, int] = defaultdict(int)
        self.rollout: dict[str, int] = defaultdict(int)
        self.seconds: dict[str, float] = defaultdict(float)
        self.memory: dict[str, int] = defaultdict(int)
        self._open: list[str] = []
        self._mark = time.perf_counter()

    def forward(self, model: str, tokens: int, *, training: bool) -> None:
        """A forward pass. training: one that is sent backward for the step, which `step` counts."""
        if not training:
            self.extra[model] += tokens

    def step(self, trained: int, loss: int, padded: int) -> None:
        """One optimiser step: tokens trained, tokens with loss, and positions computed, padding included."""
        self.trained += trained
        self.loss += loss
        self.padded += padded
        if self.flops and not self.flops_tokens:
            self.flops_tokens = trained

    def answered(self, prompt_tokens: int, generated_tokens: int) -> None:
        """Requests that an engine answered."""
        self.rollout["prompt_tokens"] += prompt_tokens
        self.rollout["generated_tokens"] += generated_tokens

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Bill time and peak memory to a phase. Phases nest; time is billed to the innermost."""
        self._lap()
        self._open.append(name)
        try:
            yield
        finally:
            self._lap()
            self._open.pop()

    @contextmanager
    def count_flops(self) -> Iterator[None]:
        """Add the floating-point operations of a part of the step that `step` is told of next."""
        from torch.utils.flop_counter import FlopCounterMode

        with FlopCounterMode(display=False) as counter:
            yield
        self.flops += counter.get_total_flops()

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        self._lap()
        kept = {k: v for k, v in vars(self).items() if not k.startswith("_") and k != "device"}
        return {k: dict(v) if isinstance(v, dict) else v for k, v in kept.items()}

    def restore(self, state: dict[str, Any]) -> None:
        """Take up the counts of an earlier attempt; seconds add to those of this one, memory is the larger."""
        for name, value in state.items():
            mine = getattr(self, name)
            if name == "memory":
                mine.update({k: max(v, mine[k]) for k, v in value.items()})
            elif isinstance(value, dict):
                for k, v in value.items():
                    mine[k] += v
            else:
                setattr(self, name, value)

    def cost(self) -> dict[str, Any]:
        """The cost record."""
        self._lap()
        per_token = self.flops / self.flops_tokens if self.flops_tokens else None
        return {
            "trained_tokens": self.trained,
            "loss_tokens": self.loss,
            "padding": round(1 - self.trained / self.padded, 4) if self.padded else 0.0,
            "extra_forward_tokens": dict(self.extra),
            "extra_backwards": self.backwards,
            **({"rollout": dict(self.rollout)} if self.rollout else {}),
            "seconds": {k: round(v, 3) for k, v in self.seconds.items()},
            "peak_bytes": dict(self.memory),
            "flops": None if per_token is None else round(per_token * self.trained),
            "device": self.device.type,
        }

    def _lap(self) -> None:
        """Bill the time since the last call to the phase that is open, and the memory peak of that time."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        now = time.perf_counter()
        if self._open:
            self.seconds[self._open[-1]] += now - self._mark
            self.memory[self._open[-1]] = max(self.memory[self._open[-1]], _peak(self.device))
        self._mark = now


def _peak(device: torch.device) -> int:
    """Peak bytes since the last call: on the GPU, else of this process; on a system that cannot reset the latter,
    since its start."""
    if device.type == "cuda":
        peak: int = torch.cuda.max_memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        return peak
    try:
        status = Path("/proc/self/status").read_text()
        Path("/proc/self/clear_refs").write_text("5")
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    except (OSError, IndexError):
        scale = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale
