"""Tiers and rank intervals."""

from __future__ import annotations

from array import array
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from harness.boards.site import write_site
from harness.boards.site.about import About
from harness.results import stats
from harness.results.frame import Frame, Result
from harness.results.items import Samples
from harness.results.table import make_table
from harness.results.tiers import Place, rank
from tests.boards_made import made_frame
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


NO_SPREAD = {
    "fewer than two items": lambda r: replace(r, samples=Samples(("d0",), values=array("d", [r.value])), n=1),
    "acc has no score by item": lambda r: replace(r, samples=None, n=0, value=0.0),
    "all items are in one cluster": lambda r: replace(r, samples=replace(r.samples, clusters=("c",) * r.n)),
    "acc is no mean over items": lambda r: replace(r, value=r.value + 0.1),
    "acc is not a number for some items": lambda r: replace(
        r, samples=replace(r.samples, values=array("d", [float("nan"), *r.samples.values[1:]]))
    ),
}


def without_spread(why: str, seeds: int = 2) -> Frame:
    """Two tasks of two suites, the second of which has no interval in any row."""
    frame = made_frame(["m"], ["base", "sft", "dft"], seeds=seeds, tasks=2, items=50)
    return Frame(tuple(replace(c, results=(c.results[0], NO_SPREAD[why](c.results[1]))) for c in frame.cells))


@pytest.mark.parametrize("why", NO_SPREAD)
@pytest.mark.parametrize("seeds", [1, 2])
def test_a_column_without_intervals_has_no_places_and_says_why(why: str, seeds: int, tmp_path: Path) -> None:
    frame = without_spread(why, seeds)
    table = make_table(frame, ranked=True, rows="methods")
    assert [[e.place is None for e in row.entries] for row in table.rows] == [[False, True]] * 3
    text = table.markdown()
    assert f"No place by task_1: base, sft, dft (no interval: {why})." in " ".join(text.split())
    assert "**Tiers by task_0" in text and "Tiers by task_1" not in text
    assert f"no interval: {why}" in table.latex().replace("\\_", "_")
    if "not a number" not in why:  # the pages of samples refuse these, with or without places
        write_site(About("a", "A"), frame, tmp_path)


def test_a_row_without_an_interval_leaves_the_others_their_places() -> None:
    frame = made_frame(["m"], ["base", "sft", "dft"], seeds=2, tasks=1, items=300)
    cells = [
        replace(c, results=(replace(c.results[0], value=0.9),)) if c.view.method == "sft" else c for c in frame.cells
    ]
    rows = make_table(Frame(tuple(cells)), ranked=True, rows="methods").rows
    assert [row.entries[0].place is None for row in rows] == [False, True, False]


def test_a_score_that_is_no_number_leaves_a_value_and_says_why_there_is_no_more() -> None:
    good, spoilt = result([1.0, 0.0, 1.0, 1.0]), result([float("nan"), 0.0, 1.0, 1.0], value=0.75)
    for found in (stats.mean([spoilt]), stats.difference([spoilt], [good]), stats.difference([good], [spoilt])):
        assert found.value is not None and found.low is None and found.p is None
        assert found.reason == "no interval: acc is not a number for some items"
