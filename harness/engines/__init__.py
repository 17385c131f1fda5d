"""The engines by name: ours, and those that other packages register in the entry point group `harness.engines`."""

from __future__ import annotations

import importlib
import importlib.metadata

from harness.engines.base import Engine
from harness.errors import HarnessError, nearest

_OURS = {
    "vllm": "harness.engines.vllm:VLLMEngine",
    "hf": "harness.engines.hf:HFEngine",
    "fake": "harness.engines.fake:FakeEngine",
}


def names() -> list[str]:
    """Every engine that `make` knows."""
    return sorted(_targets())


def make(name: str) -> Engine:
    """A new engine, not opened yet; imports only that engine's file. HarnessError for an unknown name."""
    targets = _targets()
    if name not in targets:
        raise HarnessError(f'no engine is called "{name}"', why=nearest(name, targets))
    module, _, attribute = targets[name].partition(":")
    engine: Engine = getattr(importlib.import_module(module), attribute)()
    return engine


def _targets() -> dict[str, str]:
    theirs = {entry.name: entry.value for entry in importlib.metadata.entry_points(group="harness.engines")}
    return {**theirs, **_OURS}
