"""The models of a run as artifacts that an engine can serve: the live one, the base, and stages that have ended.

A model is never copied and the live one is never unwrapped: where members wrap it, it is opened anew, given the live
weights, and that one is unwrapped. It starts no engine.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from harness.engines.base import Artifact
from harness.methods.base import overrides
from harness.training import artifacts
from harness.training.context import Context
from harness.training.opening import Opener
from harness.training.overwrite import DTYPE, overwrite


class Models:
    """Artifacts by name. every: steps between two of the live model."""

    def __init__(self, ctx: Context, opener: Opener, every: int = 1) -> None:
        self.ctx, self.opener, self.every = ctx, opener, every
        self.folder = Path(tempfile.mkdtemp(prefix="live-"))
        self._made: dict[str, Artifact] = {}

    def find(self, name: str) -> Artifact:
        """HarnessError for a stage that has not ended."""
        ctx, base, init = self.ctx, self.opener.folder, self.opener.init
        if name == "live":
            step = ctx.step - ctx.step % self.every
            return self._once(name, f"{name}:{ctx.stage.name}", f"{name}:{ctx.stage.name}:{step}")
        if name != "base":
            return self._once(name, name, name)
        if init is None:
            return Artifact(base, "base", name=name)
        return Artifact(base, "start", artifacts.read_artifact(init)["kind"], init, name)

    def close(self) -> None:
        """Remove what was written."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _once(self, name: str, place: str, key: str) -> Artifact:
        """The artifact under this key, written where it is not there; what the place or the name had before goes."""
        made = self._made.get(name)
        if made is None or made.digest != key:
            folder = self.folder / place
            if made is not None and made.path != folder:
                shutil.rmtree(made.path or folder)
            with torch.no_grad():
                _save(self._plain(name), folder)
            made = self._made[name] = Artifact(self.opener.folder, key, "full", folder, key)
        return made

    def _plain(self, name: str) -> Any:
        """The model without what its members wrapped it in."""
        ctx = self.ctx
        wrapped = [m for m in ctx.stack if overrides(m, "wrap") or overrides(m, "unwrap")]
        if name == "live" and not wrapped and ctx.stage.init == "base":
            return ctx.model
        saved, memory = dict(ctx.saved), dict(ctx.memory)  # unwrapping may leave side files
        model: Any = self._again() if name == "live" else self.opener.frozen(ctx, name)
        for member in reversed(ctx.stack):
            model = member.unwrap(model, ctx)
        ctx.saved = saved
        ctx.memory.clear()
        ctx.memory.update(memory)
        return model

    def _again(self) -> nn.Module:
        """Another model with the live weights."""
        ctx, owners = self.ctx, self.opener.owners
        model = self.opener.fresh(ctx, ctx.stage)
        self.opener.owners = owners
        live = dict(ctx.model.named_parameters())
        for name, p in model.named_parameters():
            p.copy_(live[name])
        return model


def _save(model: Any, folder: Path) -> None:
    state: Mapping[str, torch.Tensor] = model.state_dict()
    if overwrite(folder / "model.safetensors", state):
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    once: dict[int, torch.Tensor] = {}  # what is tied stays tied, and is written once
    half = {name: once.setdefault(t.data_ptr(), _half(t)) for name, t in state.items()}
    model.save_pretrained(folder, state_dict=half)
    artifacts.write_artifact(folder, {"kind": "full"}, {}, {})


def _half(t: torch.Tensor) -> torch.Tensor:
    return t.to(DTYPE) if t.is_floating_point() else t
