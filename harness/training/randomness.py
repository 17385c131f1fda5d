"""Random numbers keyed by what they are for, so that no generator has a state to save or an order to keep."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def number(*key: object) -> int:
    """A seed of 63 bits from any values that print the same way every time."""
    body = "|".join(str(part) for part in key).encode()
    return int.from_bytes(hashlib.sha256(body).digest()[:8], "big") >> 1


def generator(*key: object, device: torch.device | str = "cpu") -> torch.Generator:
    """A fresh generator for a key."""
    return torch.Generator(device=device).manual_seed(number(*key))


@contextmanager
def seeded(*key: object) -> Iterator[None]:
    """torch's global generators seeded by a key inside the block, and as they were after it: for libraries that draw
    from them (peft's initialisation, dropout)."""
    with torch.random.fork_rng():
        torch.manual_seed(number(*key))
        yield
