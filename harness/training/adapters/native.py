"""`native`: our own training loop on torch. This file says what it honours and loads torch only to train."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import Refused
from harness.methods.base import Method, Stage, check_stack, overrides, owner, stage_stack
from harness.methods.sampling import sampling

if TYPE_CHECKING:
    from harness.training.adapters import TrainResult, TrainTask

NEEDS = frozenset(
    {"ref", "pairs", "answer", "unlabelled", "whole_batch", "double_backward", "mask", "generator", "nli"}
)
PREFIXES = ("hidden:", "attention:", "column:")


class NativeAdapter:
    """Every hook of data, model, objective and rollouts, and a start from another cell's artifact. Evaluation hooks are
    not a trainer's."""

    name = "native"
    version = 1
    hooks = frozenset(
        {
            *("curate", "stages", "prompt", "collate"),
            *("wrap", "unwrap", "train_only", "optimizer", "on_embeddings"),
            *("pick", "token_weight", "loss", "auxiliary"),
            *("reward", "advantage"),
            *("after_backward", "after_step", "after_stage"),
            "start",
        }
    )

    def identity(self) -> list[Any]:
        return [self.name, self.version]

    def check(self, stack: Sequence[Method]) -> None:
        """Refused for any member, stages' own included, that needs more than `hooks`; and for two owners of a hook."""
        check_stack(stack)
        members = list(stack)
        for stage in owner(stack, "stages").stages(None):
            acting = stage_stack(stack, stage)
            check_stack(acting)
            _check_redraws(acting)
            _check_rollouts(acting)
            _check_rows(stage, owner(stack, "stages"), stack)
            members += stage.run
        for member in members:
            self._check_member(member)

    def _check_member(self, member: Method) -> None:
        if overrides(member, "respond"):
            raise Refused(f"`{member.name}` uses the hook `respond`, which the native trainer does not run")
        if member.load:
            raise Refused(f"`{member.name}` sets `load`, which the native trainer does not do")
        if "nli" in member.needs and not getattr(member, "nli", ""):
            raise Refused(
                f"`{member.name}` needs a model for natural language inference, and none is given",
                todo="give its folder as the parameter `nli`",
            )
        for need in sorted(member.needs):
            if need not in NEEDS and not need.startswith(PREFIXES):
                raise Refused(f"`{member.name}` needs `{need}`, which the native trainer does not offer")

    def train(
        self, task: TrainTask, work: Path, earlier: Sequence[Path], report: Callable[[float, float, str], None]
    ) -> TrainResult:
        """Run one stage of a stack; see `harness/training/stage.py`."""
        from harness.methods import build
        from harness.training.stage import run_stage

        stack = build(task.stack)
        self.check(stack)
        return run_stage(task, stack, work, earlier, report)


def _check_rollouts(acting: Sequence[Method]) -> None:
    how = sampling(acting)
    for hook in ("reward", "advantage"):
        by = owner(acting, hook)
        if how is None and overrides(by, hook):
            raise Refused(
                f"`{by.name}` changes `{hook}`, and nothing in its stack samples answers",
                todo="stack it with a method that sets `rollouts`, such as `grpo`",
            )
    pairs = next((m for m in acting if "pairs" in m.needs), None)
    if how and pairs:
        raise Refused(
            f"`{pairs.name}` learns from pairs of a file, and its stack samples answers of its own",
            todo="make them two methods, the second starting from the first",
        )


def _check_rows(stage: Stage, staged: Method, stack: Sequence[Method]) -> None:
    sets = frozenset({"train"}).union(*(m.sets for m in stack))
    if isinstance(stage.rows, str) and stage.rows not in sets:
        raise Refused(
            f"the stage `{stage.name}` of `{staged.name}` reads the set of rows `{stage.rows}`, which no member gives",
            why=f"there is {', '.join(f'`{name}`' for name in sorted(sets))}",
            todo="stack it with a method whose `curate` makes that set, or name another",
        )


def _check_redraws(acting: Sequence[Method]) -> None:
    again = next((m for m in acting if m.every), None)
    own = owner(acting, "optimizer")
    if again and overrides(own, "optimizer"):
        raise Refused(
            f"`{again.name}` changes in mid-stage what trains, which the optimiser of `{own.name}` cannot follow",
            todo="keep one of them",
        )
