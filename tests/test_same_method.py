"""The comparison of a method with itself, on made runs."""

from __future__ import annotations

from array import array

import numpy as np
import pytest

from benchmarks.same_method import comparisons, page
from harness.errors import HarnessError
from harness.results.frame import CellResult, CellView, Cost, Frame, Result, TaskView
from harness.results.items import Samples


def frame(seeds: int = 6, *, gain: float = 0.0, state: str = "ok") -> Frame:
    """Runs of `sft`, and of `again`, which is better by the gain, on two tasks."""
    rng = np.random.default_rng(4)
    cells = []
    for method, better in (("sft", 0.0), ("again", gain)):
        for seed in range(seeds):
            results = []
            for task, items in (("gsm8k", 300), ("sst2", 200)):
                scores = (rng.random(items) < 0.4 + better).astype(float)
                samples = Samples(tuple(f"d{i:04d}" for i in range(items)), array("d", scores))
                view = TaskView("suite", task, "acc", True, f"{method}{seed}{task}", "p")
                results.append(
                    Result(view, state, "not run yet", float(scores.mean()), items, samples, seed=seed)  # type: ignore[arg-type]
                )
            view = CellView(f"{method}-{seed}", "small", method, seed, (), ("k",), ())
            cells.append(CellResult(view, "ok", "", tuple(results), Cost()))
    return Frame(tuple(cells))


def test_six_seeds_make_ten_splits_of_each_task_and_none_is_flagged() -> None:
    found = comparisons(frame(), "sft")
    assert len(found) == 20 and len({(c.task, c.left) for c in found}) == 20
    assert all(sorted((*c.left, *c.right)) == list(range(6)) and len(c.left) == 3 for c in found)
    text = page(found, "sft against itself")
    assert "20 comparisons of a method with itself, 20 with a p. After Holm's correction 0\nare" in text
    assert sum(int(line.split()[-2]) for line in text.splitlines() if line.startswith(("| 0.", "| 1."))) == 20


def test_two_names_are_compared_with_all_their_seeds_and_a_real_difference_would_be_seen() -> None:
    assert [c.estimate.claim is not None for c in comparisons(frame(3), "sft", "again")] == [True, True]
    assert "correction 2\nare" in page(comparisons(frame(3, gain=0.3), "sft", "again"), "two")


def test_too_few_seeds_unfinished_cells_and_unknown_names_are_refused() -> None:
    for made, method, why in (
        (frame(3), "sft", "too few seeds"),
        (frame(state="missing"), "sft", "not run yet"),
        (frame(), "lora", "no results of lora"),
    ):
        with pytest.raises(HarnessError, match=why):
            comparisons(made, method)
