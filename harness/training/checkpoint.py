"""Checkpoints: enough to continue with the very same losses, written in one rename.

Random numbers are keyed and batches are numbered, so nothing but counters stands beside weights and optimiser state.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

FILE = "state.pt"


def write(folder: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint; the one before stays valid until this one is complete."""
    folder.mkdir(parents=True, exist_ok=True)
    new = folder / (FILE + ".new")
    with new.open("wb") as f:
        torch.save(state, f)
        f.flush()
        os.fsync(f.fileno())
    new.replace(folder / FILE)


def find(folders: Sequence[Path], fingerprint: str) -> dict[str, Any] | None:
    """The furthest readable checkpoint of the same run among some attempts' folders. A damaged one is passed over."""
    best: dict[str, Any] | None = None
    for folder in folders:
        state = _read(folder / "checkpoint" / FILE)
        if state is not None and state["fingerprint"] == fingerprint and (best is None or state["step"] > best["step"]):
            best = state
    return best


def _read(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # whatever torch makes of a torn file: starting over is right, and costs only time
        return None
    return state if {"fingerprint", "step"} <= state.keys() else None
