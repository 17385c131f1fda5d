"""Opening a model: the base from its folder, the members' wraps around it, an earlier stage as it stood.

A model is never copied: it is opened, wrapped and loaded again, so wraps may close over the modules they change.
Weights are opened in fp32 whatever the file holds. Dropout of the base stays off: its modules are in evaluation mode,
and only what a member adds is in training mode.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from harness.engines.unmerged import CANNOT_BE_MERGED, adapter_kind
from harness.errors import HarnessError
from harness.methods.base import Method, Stage, stage_stack
from harness.training.artifacts import load_state, read_artifact
from harness.training.context import Context
from harness.training.randomness import seeded


def tokenizer_of(folder: Path, init: Path | None) -> Path:
    """The folder whose tokenizer is the run's: what it starts from may have brought another than the base's."""
    return init if init and read_artifact(init)["kind"] == "full" else folder


def open_tokenizer(folder: Path) -> Any:
    """The model's tokenizer, with what the template needs."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, local_files_only=True)


def open_base(folder: Path, *, plain_attention: bool = False) -> nn.Module:
    """A causal language model in fp32, in evaluation mode, on the CPU. HarnessError if it cannot be opened.

    plain_attention: without the fused kernel, which gives no attention weights and has no second derivative.
    """
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    try:
        model, found = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=torch.float32,
            attn_implementation="eager" if plain_attention else "sdpa",
            local_files_only=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, KeyError) as error:
        raise HarnessError(
            "the model cannot be opened as a causal language model", where=str(folder), why=str(error).splitlines()[0]
        ) from error
    if found["missing_keys"]:
        names = ", ".join(sorted(found["missing_keys"])[:3])
        raise HarnessError("the model's files lack weights, which would start at random", where=str(folder), why=names)
    opened: nn.Module = model.eval()
    return opened


class Opener:
    """Opens every model of one training run.

    folder: the base.  init: another run's artifact that takes the base's place ("full" or "adapter"), or None.
    stages: all stages of the stack.  done: artifact folders of stages that have run, by name.
    owners: which member's `wrap` made a parameter of the model opened last, by id; the base's are not in it.
    """

    def __init__(
        self,
        folder: Path,
        init: Path | None,
        stack: Sequence[Method],
        stages: Sequence[Stage],
        done: Mapping[str, Path],
    ) -> None:
        self.folder, self.init, self.stack = folder, init, tuple(stack)
        self.stages, self.done = {s.name: s for s in stages}, done
        self.owners: dict[int, Method] = {}

    def base(self, needs: frozenset[str] = frozenset()) -> nn.Module:
        """The base, or what the run starts from instead."""
        plain = any(n == "double_backward" or n.startswith("attention:") for n in needs)
        if self.init is None:
            return open_base(self.folder, plain_attention=plain)
        if read_artifact(self.init)["kind"] == "full":
            return open_base(self.init, plain_attention=plain)
        if (kind := adapter_kind(self.init)) in CANNOT_BE_MERGED:
            raise HarnessError(
                f"an adapter of the kind {kind} cannot be merged into weights, so nothing can start from it",
                where=str(self.init),
                todo="start from another method",
            )
        from peft import PeftModel

        adapted = PeftModel.from_pretrained(open_base(self.folder, plain_attention=plain), self.init)
        merged: nn.Module = adapted.merge_and_unload()
        return merged

    def fresh(self, ctx: Context, stage: Stage) -> nn.Module:
        """The model at the start of a stage: wrapped, and with the weights of the stage it starts from."""
        with ctx.on_cpu():
            model = self._wrapped(ctx, stage)
            if stage.init != "base":
                load_state(model, self._folder(stage.init))
        return model.to(ctx.device)

    def frozen(self, ctx: Context, name: str) -> nn.Module:
        """A model that does not train: "base", or a stage as it stood at its end."""
        owners, stage, stack = self.owners, ctx.stage, ctx.stack
        with ctx.on_cpu():
            if name == "base":
                model = self.base(ctx.needs)
            else:
                folder = self._folder(name)
                model = self._wrapped(ctx, self.stages[name])
                load_state(model, folder)
        self.owners = owners
        ctx.enter(stage, stack)
        return model.to(ctx.device).eval().requires_grad_(False)

    def _folder(self, stage: str) -> Path:
        if stage not in self.done:
            raise HarnessError(f"the artifact of stage `{stage}` is needed and was not given to this step")
        return self.done[stage]

    def _wrapped(self, ctx: Context, stage: Stage) -> nn.Module:
        """Opened and wrapped as the stage needs, without its weights."""
        stack = stage_stack(self.stack, stage)
        if stage.init == "base":
            ctx.enter(stage, stack)
            model, had = self.base(ctx.needs), set[int]()
            self.owners = {}
        else:
            before = self.stages[stage.init]
            model, had = self._wrapped(ctx, before), self._has_wrapped(before)
            ctx.enter(stage, stack)
        for member in stack:
            if id(member) not in had:
                model = self._wrap(ctx, member, model)
        return model

    def _has_wrapped(self, stage: Stage) -> set[int]:
        mine = {id(m) for m in stage_stack(self.stack, stage)}
        return mine if stage.init == "base" else mine | self._has_wrapped(self.stages[stage.init])

    def _wrap(self, ctx: Context, member: Method, model: nn.Module) -> nn.Module:
        parameters = {id(p) for p in model.parameters()}
        modules = {id(m) for m in model.modules()}
        with seeded(ctx.seed, "wrap", ctx.stage.name, member.name):
            model = member.wrap(model, ctx)
        for p in model.parameters():
            if id(p) not in parameters:
                self.owners[id(p)] = member
        for module in model.modules():
            if id(module) not in modules:
                module.training = True
        return model


def choose_trainable(
    model: nn.Module, stack: Sequence[Method], owners: Mapping[int, Method], ctx: Context
) -> dict[str, dict[str, Any]]:
    """Which parameters train in this stage, with their optimiser options; the others are frozen here.

    Worked out afresh from ownership for every stage: what an earlier stage left in `requires_grad` does not count.
    A member is asked as at the last step that is a multiple of its `every`, so asking between two changes nothing.
    HarnessError if nothing is left to train, or nothing of a member that brought parameters.
    """
    whose = {name: owners.get(id(p)) for name, p in model.named_parameters()}
    base = set() if any(m.freeze for m in stack) else {n for n, m in whose.items() if m is None}
    chosen: set[str] = set()
    options: dict[str, dict[str, Any]] = {}
    now = ctx.step
    for member in stack:
        ctx.step = now - now % member.every if member.every else 0
        own = {n for n, m in whose.items() if m is member}
        answer = member.train_only([n for n in whose if n in base | own], ctx)
        if isinstance(answer, dict):
            options |= answer
        picked = set(answer)
        if own and not own & picked:
            raise HarnessError(f"method `{member.name}` added parameters and trains none of them")
        chosen |= own & picked
        base &= picked
    ctx.step = now
    chosen |= base
    if not chosen:
        raise HarnessError(
            "no parameter is left to train",
            where=f"stage {ctx.stage.name}",
            why=f"members: {', '.join(m.name for m in stack)}",
        )
    for name, p in model.named_parameters():
        p.requires_grad_(name in chosen)
    ctx.touched |= chosen
    return {n: options.get(n, {}) for n in whose if n in chosen}


def start_weights(opener: Opener, ctx: Context, stage: Stage) -> dict[str, Tensor]:
    """The weights a stage started from, by name, made again from the files."""
    live, owners = (ctx.stage, ctx.stack), opener.owners
    model = opener.fresh(ctx, stage)
    ctx.enter(*live)
    opener.owners = owners
    return {name: p.detach() for name, p in model.named_parameters()}
