"""`trl`: TRL's own trainers, to compare ours with. This file says what they are given and loads TRL only to train.

What goes through: `sft`, `dpo`, `grpo`, and `lora` alone or with one of them, by TRL's own PEFT path. The rest of a
method's seam is not TRL's, so it is refused here, `grao` and `ppo` with it. `grpo` is sampled by TRL from the weights
that train, so a `refresh` of other than every step is refused too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import MissingExtra, Refused
from harness.methods.base import HOOKS, Method, check_stack, overrides

if TYPE_CHECKING:
    from harness.training.adapters import TrainResult, TrainTask

INSTALL_TRL = "pip install '.[trl]'; or leave `trainer` out"
THROUGH = ("sft", "dpo", "grpo", "lora")
_ATTRIBUTES = ("rollouts", "freeze", "load", "norm", "pool", "every")


class TRLAdapter:
    """SFTTrainer, DPOTrainer or GRPOTrainer on our tokens. version: raised with TRL's pin in pyproject.toml."""

    name = "trl"
    version = 1
    hooks = frozenset({"loss", "advantage", "wrap", "unwrap"})  # of the methods in THROUGH, as TRL has them

    def identity(self) -> list[Any]:
        return [self.name, self.version]

    def check(self, stack: Sequence[Method]) -> None:
        """Refused for any member but those of THROUGH. MissingExtra if TRL is not installed."""
        check_stack(stack)
        for member in stack:
            if member.name not in THROUGH:
                raise Refused(_why(member), todo=f"leave `trainer` out, or keep to {', '.join(THROUGH)}")
            if (refresh := getattr(member, "refresh", 1)) != 1:
                raise Refused(
                    f"`{member.name}` has `refresh: {refresh}`, and TRL samples from the weights that train",
                    todo="leave `trainer` or `refresh` out",
                )
        if find_spec("trl") is None:
            raise MissingExtra("trl", "the trainer `trl`", INSTALL_TRL)

    def train(
        self, task: TrainTask, work: Path, earlier: Sequence[Path], report: Callable[[float, float, str], None]
    ) -> TrainResult:
        """Run to the end of the budget; see `harness/training/trl_stage.py`. An attempt that ended is begun anew."""
        from harness.methods import build

        stack = build(task.stack)
        self.check(stack)
        from harness.training.trl_stage import run_stage

        return run_stage(task, stack, work, report)


def _why(member: Method) -> str:
    """What of a member TRL's trainers do not run."""
    hook = next((h for h in HOOKS if overrides(member, h)), None)
    if hook:
        return f"`{member.name}` uses the hook `{hook}`, which TRL's trainers do not run"
    attribute = next((a for a in _ATTRIBUTES if getattr(member, a) != getattr(Method, a)), None)
    if attribute:
        return f"`{member.name}` sets `{attribute}`, which TRL's trainers do not do"
    return f"`{member.name}` is not known to the trainer `trl`"
