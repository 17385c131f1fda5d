"""What of a judged task is known without its judge: how long the answers are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def process_results(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """The length of the answer in characters."""
    return {"characters": float(len(results[0]))}
