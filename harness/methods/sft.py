"""`sft`: supervised fine-tuning of every weight, which is the seam with nothing overridden."""

from __future__ import annotations

from typing import ClassVar

from harness.methods.base import Method


class SFT(Method):
    """Cross-entropy of the completion tokens, mean over all of an optimiser step: loss = -log p(gold token)."""

    name: ClassVar[str] = "sft"
    verified: ClassVar[str] = "TRL's losses and gradients to 1e-5, its trainer step by step; a plain torch loop"
    family: ClassVar[str] = "baseline"
