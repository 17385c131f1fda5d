"""The gates' decisions on plain numbers: flips, bounds, drift, speed, and the simulation of whole nights."""

from __future__ import annotations

import importlib.util
import sys
from array import array
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from harness.nightly import gate_a, gate_b
from harness.nightly.drift import cusum, drift, residuals, step
from harness.nightly.findings import Finding, Status, codes
from harness.nightly.flips import Noise, flips, noise_of
from harness.nightly.nights import Line, Measured
from harness.nightly.significance import flip_bound, mcnemar_down, seeds_below, student_below, too_many_flips
from harness.nightly.speed import slower
from harness.results.frame import Result, TaskView
from harness.results.items import Samples


def measured(*seeds: str, cell: str = "m.x", protocol: str = "p", training: str = "t") -> Measured:
    """One string of 0 and 1 a seed."""
    task = TaskView("s", "t", "acc", True, "", protocol)
    values = [array("d", map(float, text)) for text in seeds]
    names = tuple(f"i{n}" for n in range(len(seeds[0])))
    by_seed = tuple(sum(v) / len(v) for v in values)
    results = [
        Result(task, "ok", "", v, len(names), Samples(names, w), seed=n)
        for n, (v, w) in enumerate(zip(by_seed, values, strict=True))
    ]
    value, each = sum(by_seed) / len(by_seed), tuple(range(len(seeds)))
    line = Line(
        "x", cell, "s", "t", "acc", True, "ok", "", value, len(names), each, by_seed, (), (), (), protocol, training,
        "e", "m", "stores/x",
    )  # fmt: skip
    return Measured(line, tuple(results))


def test_flips_are_counted_both_ways_and_by_seed() -> None:
    found = flips(measured("1100", "1111"), measured("0110", "1110"))
    assert found is not None
    assert (found.down, found.up, found.total, found.n) == (2, 1, 3, 8)
    assert [(e.item, e.seed, e.was, e.now) for e in found.items] == [
        ("i0", 0, "1", "0"),
        ("i3", 1, "1", "0"),
        ("i2", 0, "0", "1"),
    ]
    assert flips(measured("11"), measured("11", "11")) is None


def test_corpus_metrics_flip_by_their_answers() -> None:
    def of(*pairs: tuple[str, str]) -> Measured:
        made = measured("0" * len(pairs))
        samples = Samples(made.results[0].samples.items, None, pairs)  # type: ignore[union-attr]
        return Measured(made.line, (Result(made.results[0].task, "ok", "", 0.0, len(pairs), samples, seed=0),))

    found = flips(of(("a", "a"), ("a", "b"), ("a", "b")), of(("a", "b"), ("a", "a"), ("a", "c")))
    assert found is not None
    assert (found.down, found.up, found.other) == (1, 1, 1)


def test_the_noise_of_repeated_runs_is_never_zero() -> None:
    runs = [[measured("1100")], [measured("1100")], [measured("1110")]]
    noise = noise_of(runs)["t"]
    assert noise == Noise(1, 8)
    assert Noise(0, 1000).rate == pytest.approx(0.5 / 1001)
    assert Noise(0, 0).spread(100, 3) > 0


def test_bounds_know_how_little_repeated_runs_have_shown() -> None:
    assert too_many_flips(1, 100, 0, 100_000) < 0.01  # surely deterministic: one flip is one too many
    assert too_many_flips(1, 100, 0, 100) > 0.2  # nobody knows yet
    assert flip_bound(1000, 10, 1000) > 10
    assert mcnemar_down(8, 0) == pytest.approx(0.5**8)
    assert mcnemar_down(0, 0) == 1.0


def test_another_protocol_training_or_set_of_items_is_refused() -> None:
    then = measured("1100")
    (other,) = gate_a.compare([then], [measured("1100", protocol="q")])
    assert "another protocol (p then, q now)" in other.refused
    (trained,) = gate_a.compare([then], [measured("1100", training="u")])
    assert "trained otherwise" in trained.refused
    (fewer,) = gate_a.compare([then], [measured("110")])
    assert fewer.refused == "other items (1 are gone, 0 are new)"
    assert gate_a.gate_a([other, trained, fewer], {}) == []


def test_codes_come_in_the_order_of_what_must_be_done_first() -> None:
    def of(*statuses: Status) -> list[int]:
        return codes([Finding("A", status, "c", "t", "m", "") for status in statuses])

    assert of() == of("cleared", "improved", "warning") == [0]
    assert of("failed", "inconclusive", "refused", "confirmed", "no baseline") == [3, 4, 1, 5]


def test_the_rolling_test_needs_ten_nights_and_has_a_floor() -> None:
    history = (0.5,) * 9
    low, anchor = measured("1" * 40 + "0" * 60, "1" * 41 + "0" * 59, "1" * 40 + "0" * 60), None
    assert gate_b.gate_b([gate_b.Row(low, anchor, history)]) == []
    (suspect,) = gate_b.gate_b([gate_b.Row(low, anchor, (*history, 0.5), noise=Noise(1, 1000))])
    assert suspect.tests == ("rolling",)
    p, mean, spread = student_below(0.49, [0.5] * 10, 0.02)
    assert (mean, spread) == (0.5, 0.02)
    assert p > 0.2


def test_one_lucky_accepted_night_is_outvoted_by_the_nights_after_it() -> None:
    usual = [(0.50, 0.51, 0.49)] * 10
    assert seeds_below((0.50, 0.51, 0.49), [(0.60, 0.61, 0.59)], 0.0) < 0.001
    assert seeds_below((0.50, 0.51, 0.49), [(0.60, 0.61, 0.59), *usual], 0.0) > 0.01


def test_drift_is_seen_once_it_has_added_up() -> None:
    rng = np.random.default_rng(0)
    flat = list(0.5 + rng.normal(0, 0.005, 20))
    assert drift(flat, 0.001) is None
    sunk = drift([*flat, *(0.49 + rng.normal(0, 0.005, 8))], 0.001)
    assert sunk is not None
    assert 18 <= sunk.start <= 22
    assert sunk.p < 0.01
    assert drift([0.5, 0.4, 0.3], 0.001) is None  # too few nights
    assert cusum([0.4, -0.4] * 50) < 5
    assert cusum([-2.0] * 4) == 6.0
    assert len(residuals(flat, 0.001)) == 17
    assert step([1.0] * 5 + [0.0] * 5, 0.01)[0] == 5


def test_speed_only_warns_and_needs_three_runs_and_a_clear_loss() -> None:
    before = [{"m.x": {"tokens_per_second": [100.0, 101.0, 99.0], "peak_bytes": [5e9, 5e9, 5e9]}}]
    slow = {"m.x": {"tokens_per_second": [80.0, 81.0, 79.0], "peak_bytes": [5.1e9, 5.1e9, 5.1e9]}}
    (found,) = slower(before, slow)
    assert (found.status, found.metric) == ("warning", "tokens_per_second")
    assert "-20.0%" in found.text
    assert list(slower(before, {"m.x": {"tokens_per_second": [80.0, 81.0]}})) == []
    noisy = [{"m.x": {"tokens_per_second": [60.0, 100.0, 140.0]}}]
    assert list(slower(noisy, slow)) == []
    fat = {"m.x": {"peak_bytes": [6e9, 6e9, 6e9]}}
    assert [f.metric for f in slower(before, fat)] == ["peak_bytes"]


@pytest.fixture(scope="module")
def simulation() -> ModuleType:
    file = Path(__file__).resolve().parents[1] / "benchmarks" / "gate.py"
    spec = importlib.util.spec_from_file_location("gate_simulation", file)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["gate_simulation"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_healthy_nights_do_not_alarm_and_a_drop_of_four_points_is_caught(simulation: ModuleType) -> None:
    shares = simulation.healthy(60, 60, 5)
    assert shares["alarmed"] <= 0.02
    within, _, night = simulation.caught(0.04, 0.007, 10, 3, 20)
    assert within >= 0.8
    assert night is not None and night <= 3


@pytest.mark.slow
def test_gate_a_catches_what_two_percent_of_the_items_show(simulation: ModuleType) -> None:
    assert simulation.healthy_frozen(20, 30, 1) <= 0.05
    assert simulation.broken_frozen(0.02, 10, 2) >= 0.8
