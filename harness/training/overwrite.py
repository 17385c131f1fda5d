"""A model's tensors written over those of a safetensors file that was saved from it before.

A model that is served after every step is written to the same place each time: a new file of its size would cost more
than half of the way into the engine.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from harness.data import checkpoint

DTYPE, NAME = torch.bfloat16, "BF16"  # what is overwritten; the second as files call it


def overwrite(path: Path, state: Mapping[str, Tensor]) -> bool:
    """Write `state` into the file, rounded to bfloat16.

    False, with nothing written, where there is no such file or its names, shapes or dtypes are others. A tensor that
    shares its memory with one in the file may be missing there: it is tied.
    """
    if not path.exists():
        return False
    places = checkpoint.tensors(path)
    if not places.keys() <= state.keys() or any(e["dtype"] != NAME for e in places.values()):
        return False
    held = {state[name].data_ptr() for name in places}
    if any(list(state[name].shape) != entry["shape"] for name, entry in places.items()):
        return False
    if any(tensor.data_ptr() not in held for tensor in state.values()):
        return False
    size = path.stat().st_size
    start = size - max(entry["data_offsets"][1] for entry in places.values())
    file = torch.from_file(str(path), shared=True, size=size, dtype=torch.uint8)
    for name, entry in places.items():
        first, end = (start + at for at in entry["data_offsets"])
        file[first:end].view(DTYPE).view(entry["shape"]).copy_(state[name])
    return True
