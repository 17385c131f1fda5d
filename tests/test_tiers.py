"""Tiers and rank intervals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from harness.results.frame import Result
from harness.results.tiers import Place, rank
from tests.test_stats import labels, result


def row(share: float, seed: int, *, seeds: int = 3, items: int = 400, settled: bool = False) -> list[Result]:
    easy = np.random.default_rng(1).random(items)
    rng = np.random.default_rng(seed)
    runs = [((easy + rng.normal(0, 0.05, items)) < share).astype(float) for _ in range(seeds)]
    return [replace(result(list(run)), seed=s, settled=settled) for s, run in enumerate(runs)]


def test_a_tier_holds_what_cannot_be_told_from_its_leader() -> None:
    shares = {"low": 0.3, "best": 0.9, "nearly": 0.899, "middle": 0.6, "middling": 0.601}
    found = rank({name: {"a": row(x, i), "b": row(x, i + 50)} for i, (name, x) in enumerate(shares.items())})
    assert list(found) == list(shares)
    assert [found[name].tier for name in ("best", "nearly", "middle", "middling", "low")] == [1, 1, 2, 2, 3]
    assert (found["low"].low, found["low"].high) == (5, 5)
    assert found["best"].low == 1 and found["nearly"].high == 2 and found["middle"].low == 3


def test_one_seed_tells_nothing_apart_and_untrained_rows_are_told_apart_by_items() -> None:
    single = rank({"good": {"a": row(0.9, 1, seeds=1)}, "bad": {"a": row(0.2, 2, seeds=1)}})
    assert single["good"].tier == single["bad"].tier == 1
    untrained = rank(
        {"good": {"a": row(0.9, 1, seeds=1, settled=True)}, "bad": {"a": row(0.2, 2, seeds=1, settled=True)}}
    )
    assert untrained == {"good": Place(1, 1, 1), "bad": Place(2, 2, 2)}


def test_seeds_that_vary_widen_the_rank_interval() -> None:
    def moved(shifts: list[float], seed: int) -> list[Result]:
        return [replace(row(0.6 + s, seed + i, seeds=1)[0], seed=i) for i, s in enumerate(shifts)]

    steady = rank({"a": {"t": moved([0.1, 0.1, 0.1], 1)}, "b": {"t": moved([0, 0, 0], 9)}})
    unsteady = rank({"a": {"t": moved([-0.1, 0.1, 0.3], 1)}, "b": {"t": moved([-0.2, 0, 0.2], 9)}})
    assert steady == {"a": Place(1, 1, 1), "b": Place(2, 2, 2)}
    assert unsteady["a"] == Place(1, 1, 2) and unsteady["b"] == Place(1, 1, 2)


def test_the_same_row_twice_shares_its_places_and_order_is_nothing() -> None:
    rows = {"x": {"a": row(0.5, 1)}, "y": {"a": row(0.5, 1)}, "z": {"a": row(0.1, 3)}}
    found = rank(rows)
    assert found["x"].tier == found["y"].tier == 1 and found["x"].low == found["y"].low == 1
    backwards = rank(dict(reversed(rows.items())))
    assert {name: place.tier for name, place in backwards.items()} == {n: p.tier for n, p in found.items()}
    assert rank(rows) == found and rank({}) == {} and rank({"x": rows["x"]}) == {"x": Place(1, 1, 1)}


def test_corpus_metrics_are_ranked_by_the_same_resampled_items() -> None:
    gold = labels(300, 1, 0.5)
    rows = {
        name: {
            "cola": [
                replace(result([(g, p if i % step else g) for i, (g, p) in enumerate(gold)], "mcc"), seed=s)
                for s in range(3)
            ]
        }
        for name, step in (("much", 1), ("some", 3))
    }
    assert rank(rows) == {"much": Place(1, 1, 1), "some": Place(2, 2, 2)}


def test_rows_that_cannot_be_compared_are_an_error_that_names_them() -> None:
    whole = {"a": row(0.5, 1), "b": row(0.5, 2)}
    for other, why in (
        ({"a": row(0.5, 1)}, "second: not the tasks of the first row"),
        ({"a": row(0.5, 1), "b": []}, "second: no result for b"),
        ({"a": row(0.5, 1), "b": row(0.5, 1, items=50)}, "second: b: different items"),
        ({"a": row(0.5, 1), "b": [replace(r, samples=None) for r in row(0.5, 2)]}, "second: b has no score by item"),
    ):
        with pytest.raises(ValueError, match=why):
            rank({"first": whole, "second": other})
