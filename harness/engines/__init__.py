"""The engines by name: ours, and those that other packages register in the entry point group `harness.engines`."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util

from harness.engines.base import Engine
from harness.errors import HarnessError, MissingExtra, nearest

INSTALL_VLLM = "on a CPU: make setup; for a GPU: pip install '.[gpu]'; or set engine.name to hf"
_OURS = {
    "vllm": "harness.engines.vllm:VLLMEngine",
    "hf": "harness.engines.hf:HFEngine",
    "fake": "harness.engines.fake:FakeEngine",
}


def names() -> list[str]:
    """Every engine that `make` knows."""
    return sorted(_targets())


def check(name: str) -> None:
    """For planning: HarnessError for an unknown name, MissingExtra if its package is not installed. Imports neither."""
    targets = _targets()
    if name not in targets:
        raise HarnessError(f"no engine is called `{name}`", todo=nearest(name, targets))
    if name == "vllm" and importlib.util.find_spec("vllm") is None:
        raise MissingExtra("vllm", "the engine `vllm`", INSTALL_VLLM)


def make(name: str) -> Engine:
    """A new engine, not opened yet; imports only that engine's file. Errors as in `check`."""
    check(name)
    module, _, attribute = _targets()[name].partition(":")
    engine: Engine = getattr(importlib.import_module(module), attribute)()
    return engine


def _targets() -> dict[str, str]:
    theirs = {entry.name: entry.value for entry in importlib.metadata.entry_points(group="harness.engines")}
    return {**theirs, **_OURS}
