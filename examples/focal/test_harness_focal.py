"""What the method's paper says of its loss. That it trains is for `harness run` to show."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from harness_focal import Focal

from harness.methods.sft import SFT


def tokens(*p: float) -> Any:
    return SimpleNamespace(logp=torch.tensor(p).log())


def test_gamma_zero_is_sft() -> None:
    tok = tokens(0.1, 0.5, 0.999)
    assert torch.equal(Focal(gamma=0).loss(tok, None), SFT().loss(tok, None))  # type: ignore[arg-type]


def test_its_closed_form() -> None:
    """At p = 1/2 and gamma 2 a quarter of log 2; at p = 0.9 a hundredth of -log 0.9."""
    loss = Focal().loss(tokens(0.5, 0.9), None)  # type: ignore[arg-type]
    assert loss.tolist() == pytest.approx([0.173287, 0.001054], abs=1e-6)
