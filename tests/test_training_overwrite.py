"""Weights written over those of a file: the file is then what saving them anew would have made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from harness.training.live import _save
from harness.training.overwrite import overwrite


def tiny(tied: bool, width: int = 16) -> Any:
    shape = {"hidden_size": width, "intermediate_size": 32, "num_attention_heads": 2, "num_hidden_layers": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=50, tie_word_embeddings=tied, **shape))


@pytest.fixture(params=[True, False], ids=["tied", "untied"])
def saved(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Any, Path]:
    model = tiny(request.param)
    _save(model, tmp_path / "first")
    return model, tmp_path / "first" / "model.safetensors"


def test_a_file_that_was_written_over_is_the_file_that_would_have_been_saved(
    saved: tuple[Any, Path], tmp_path: Path
) -> None:
    model, path = saved
    before, number = path.read_bytes(), path.stat().st_ino
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))
    _save(model, path.parent)
    _save(model, tmp_path / "anew")
    assert path.read_bytes() == (tmp_path / "anew" / "model.safetensors").read_bytes() != before
    assert path.stat().st_ino == number


@pytest.mark.parametrize("change", ["shape", "less", "more", "dtype", "nothing there"])
def test_what_does_not_fit_is_left_as_it_is(saved: tuple[Any, Path], change: str) -> None:
    model, path = saved
    state = dict(model.state_dict())
    if change == "shape":
        state = tiny(True, width=32).state_dict()
    if change == "less":
        del state["model.norm.weight"]
    if change == "more":
        state["extra"] = torch.ones(3)
    if change == "dtype":
        save_file({name: tensor.float() for name, tensor in load_file(path).items()}, path)
    if change == "nothing there":
        path.unlink()
    before = path.read_bytes() if path.exists() else b""
    assert not overwrite(path, state)
    assert (path.read_bytes() if path.exists() else b"") == before


def test_another_model_in_the_place_is_saved_whole(saved: tuple[Any, Path]) -> None:
    _, path = saved
    other = tiny(False, width=32)
    _save(other, path.parent)
    assert torch.equal(load_file(path)["lm_head.weight"], other.lm_head.weight.to(torch.bfloat16))
