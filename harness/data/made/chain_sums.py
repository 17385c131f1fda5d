"""Sums and differences of a few numbers, from reasoning_gym's `chain_sum`, answered as `#### number`."""

from __future__ import annotations

from typing import Any

from harness.data.made import distinct
from harness.data.made.word_problems import SYSTEM


def make(split: str, n: int, seed: int, *, terms: list[int], digits: list[int]) -> list[dict[str, Any]]:
    """`n` rows {"id", "system", "question", "answer"}.

    terms, digits: [least, most] terms of a sum and digits of a term.
    """
    from reasoning_gym.arithmetic.chain_sum import ChainSumConfig, ChainSumDataset

    low, high = terms
    few, many = digits
    endless = 1 << 40  # the library draws row i from seed + i, so the size only bounds i
    sums = ChainSumDataset(
        ChainSumConfig(
            min_terms=low, max_terms=high, min_digits=few, max_digits=many, seed=seed * 1_000_003, size=endless
        )
    )

    def draw(rng: Any) -> dict[str, Any]:
        row = sums[rng.randrange(1_000_000)]
        question = row["metadata"]["expression"]
        return {"system": SYSTEM, "question": f"What is {question}?", "answer": f"#### {row['answer']}"}

    return distinct(draw, "question", split, n, seed)
