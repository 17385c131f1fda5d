"""Intervals and differences against closed forms, SciPy, scikit-learn and simulation."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest, t
from sklearn.metrics import f1_score, matthews_corrcoef

from harness.results import corpus, exact, shares, stats
from harness.results.frame import Result, TaskView
from harness.results.items import Samples


def result(scores: Sequence[Any], metric: str = "acc", *, protocol: str = "p", first: int = 0, **other: Any) -> Result:
    """A result of one seed; scores: one float an item, or one (gold, predicted) pair."""
    items = tuple(f"d{i:05d}" for i in range(first, first + len(scores)))
    view = TaskView("suite", "task", metric, True, "key", protocol)
    if isinstance(scores[0], tuple):
        value = other.get("value", corpus.score(scores, metric))
        return Result(view, "ok", "", value, len(scores), Samples(items, pairs=tuple(scores)))
    value = other.get("value", float(np.mean(scores)))
    return Result(view, "ok", "", value, len(scores), Samples(items, values=array("d", scores)))


def ones(k: int, n: int) -> list[float]:
    return [1.0] * k + [0.0] * (n - k)


@pytest.mark.parametrize(("k", "n"), [(31, 100), (0, 30), (30, 30), (1, 20), (700, 1319)])
def test_a_share_has_wilsons_interval(k: int, n: int) -> None:
    found, wanted = stats.mean([result(ones(k, n))]), binomtest(k, n).proportion_ci(method="wilson")
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high))
    assert (found.value, found.n, found.how) == (pytest.approx(k / n), n, "wilson")


def test_the_published_example_of_wilsons_interval() -> None:
    """81 of 263 (Newcombe 1998, table I, method 3)."""
    assert shares.wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)


def test_runs_that_answer_alike_leave_the_interval_of_one() -> None:
    one, three = stats.mean([result(ones(2, 200))]), stats.mean([result(ones(2, 200))] * 3)
    assert three.how == "items x seeds" and one.how == "wilson"
    assert (three.low, three.high) == pytest.approx((one.low, one.high), rel=0.03)  # t of 199 for z, 200 / 199


def test_a_few_right_answers_of_several_runs_do_not_count_as_that_many_items() -> None:
    """One right answer in each of three runs, on other items: as if 600 answers were independent, by their variance."""
    runs = [[float(item == seed) for item in range(200)] for seed in range(3)]
    found = stats.mean([result(run) for run in runs])
    wanted = shares.wilson(200 * 3**0.5 * 0.005, 200 * 3**0.5)
    assert (found.value, found.low, found.high) == (0.005, *(pytest.approx(w) for w in wanted))


def test_clusters_widen_the_interval_of_a_share() -> None:
    scores, names = [1.0, 1, 1, 1, 0, 0, 0, 0] * 10, tuple(str(i // 4) for i in range(80))
    alone = stats.mean([result(scores)])
    plain = result(scores)
    assert plain.samples is not None
    found = stats.mean([replace(plain, samples=replace(plain.samples, clusters=names))])
    half = t.ppf(0.975, 19) * np.std(scores[::4], ddof=1) / 20**0.5
    assert found.clusters == 20 and alone.low is not None and found.low is not None and found.low < alone.low
    assert (found.low, found.high) == pytest.approx(shares.of_layout(0.5, half, 80, 1, True))


def test_clusters_that_are_all_wrong_leave_room_for_a_share_of_clusters() -> None:
    plain = result(ones(0, 80))
    assert plain.samples is not None
    found = stats.mean([replace(plain, samples=replace(plain.samples, clusters=tuple(str(i // 4) for i in range(80))))])
    assert (found.low, found.high) == (0, pytest.approx(shares.wilson(0, 20)[1]))


def test_graded_scores_have_students_interval() -> None:
    scores = [0.2, 0.9, 0.4, 0.7, 0.55]
    found = stats.mean([result(scores)])
    wanted = t.interval(0.95, 4, np.mean(scores), np.std(scores, ddof=1) / 5**0.5)
    assert (found.low, found.high) == pytest.approx(wanted) and found.how == "t"


def test_an_interval_of_shares_stays_within_0_and_1_and_other_metrics_have_no_bounds() -> None:
    low = stats.mean([result([0.0, 0.0, 0.0, 0.5])])
    perplexity = stats.mean([result([3.0, 30.0, 4.0])])
    assert low.low == 0 and low.bounds == (0, 1)
    assert perplexity.bounds is None and perplexity.low is not None and perplexity.low < 0


def test_several_seeds_add_the_variance_between_seeds_to_that_between_items() -> None:
    rng = np.random.default_rng(1)
    y = rng.random((3, 40)) * 0.2 + rng.random(40) * 0.5 + np.array([[0.0], [0.1], [0.25]])
    found = stats.mean([result(list(row)) for row in y])
    rest = y - y.mean(1, keepdims=True) - y.mean(0) + y.mean()
    items = y.mean(0).var(ddof=1) / 40
    seeds = (y.mean(1).var(ddof=1) - (rest**2).sum() / (2 * 39) / 40) / 3
    half = (t.ppf(0.975, 39) ** 2 * items + t.ppf(0.975, 2) ** 2 * seeds) ** 0.5
    assert found.low is not None and found.low == pytest.approx(max(0, y.mean() - half))
    assert (found.high, found.seeds, found.how) == (pytest.approx(min(1, y.mean() + half)), 3, "items x seeds")


def test_a_paired_difference_is_students_interval_of_the_differences() -> None:
    ours, base = [1.0, 1, 1, 0, 1, 0, 1, 1], [0.0, 1, 0, 0, 1, 1, 0, 0]
    found = stats.difference([result(ours)], [result(base)])
    d = np.subtract(ours, base)
    wanted = t.interval(0.95, 7, d.mean(), d.std(ddof=1) / 8**0.5)
    assert (found.value, found.low, found.high) == pytest.approx((d.mean(), *wanted))
    assert (found.how, found.seeds) == ("items only: McNemar", 1)


def test_averages_of_several_seeds_are_no_flips_for_mcnemar() -> None:
    ours, base = [ones(9, 12), ones(8, 12), ones(6, 12)], ones(5, 12)
    found = stats.difference([result(scores) for scores in ours], [result(base)])
    assert found.how == "items only: sign flips" and found.flips == (4, 0)
    assert found.p == pytest.approx(exact.sign_flips(np.mean(ours, axis=0) - base))


def test_an_item_is_paired_with_itself_whatever_the_order_of_the_files() -> None:
    pairs = [(f"d{i}", float(i % 3 == 0), float(i % 2)) for i in range(12)]
    one, two = result([a for _, a, _ in pairs]), result([b for _, _, b in pairs])
    assert stats.difference([one], [two]).value == pytest.approx(4 / 12 - 6 / 12)


def test_different_items_or_protocols_are_refused_with_the_reason() -> None:
    a = result(ones(3, 10))
    items = stats.difference([a], [result(ones(3, 10), first=2)])
    protocol = stats.difference([a], [result(ones(3, 10), protocol="q")])
    assert items.value is None and items.reason == "different items (2 only on one side, 2 only on the other)"
    assert protocol.value is None and "protocols" in protocol.reason


def test_two_models_that_agree_everywhere_are_not_known_to_be_equal() -> None:
    """30 items without a disagreement leave room for a share of 11 % (Wilson) either way, not for none."""
    found = stats.difference([result(ones(0, 30))], [result(ones(0, 30))])
    room = binomtest(0, 30).proportion_ci(method="wilson").high
    assert (found.value, found.low, found.high) == (0, pytest.approx(-room), pytest.approx(room))


def test_no_interval_is_invented_where_the_samples_do_not_make_up_the_metric() -> None:
    view = TaskView("suite", "task", "acc", True, "key", "p")
    unlike = stats.mean([result(ones(3, 10), value=0.9)])
    without = stats.mean([Result(view, "ok", "", 0.4, 10, None)])
    assert (unlike.value, unlike.low) == (0.9, None) and "no mean over items" in unlike.reason
    assert (without.value, without.low) == (0.4, None) and "no score by item" in without.reason


def labels(n: int, seed: int, right: float, classes: int = 2) -> list[tuple[int, int]]:
    rng = np.random.default_rng(seed)
    gold = np.random.default_rng(0).integers(classes, size=n)
    other = rng.integers(classes, size=n)
    return [(int(g), int(g if r < right else o)) for g, o, r in zip(gold, other, rng.random(n), strict=True)]


@pytest.mark.parametrize("classes", [2, 3])
def test_matthews_is_that_of_scikit_learn(classes: int) -> None:
    pairs = labels(80, 1, 0.5, classes)
    assert corpus.score(pairs, "mcc") == pytest.approx(matthews_corrcoef(*zip(*pairs, strict=True)))


def test_f1_is_that_of_scikit_learn_and_needs_the_classes_0_and_1() -> None:
    pairs = labels(80, 1, 0.5)
    assert corpus.score(pairs, "f1") == pytest.approx(f1_score(*zip(*pairs, strict=True)))
    assert corpus.score([("yes", "no"), ("no", "no")], "f1") is None


def test_the_bootstrap_of_a_corpus_metric_is_that_of_resampled_items_and_repeats_itself() -> None:
    pairs = labels(100, 2, 0.6)
    found = stats.mean([result(pairs, "mcc")])
    rng, drawn = np.random.default_rng(5), []
    for _ in range(1000):
        drawn.append(corpus.score([pairs[i] for i in rng.integers(100, size=100)], "mcc"))
    assert (found.low, found.high) == pytest.approx(np.percentile(drawn, [2.5, 97.5]), abs=0.02)
    assert found == stats.mean([result(pairs, "mcc")]) and found.how == "bootstrap"


def test_a_paired_difference_of_a_corpus_metric_is_narrower_than_an_unpaired_one() -> None:
    base = labels(200, 3, 0.6)
    ours = [(g, g if i % 10 == 0 else p) for i, (g, p) in enumerate(base)]
    one, two = stats.mean([result(ours, "mcc")]), stats.mean([result(base, "mcc")])
    found = stats.difference([result(ours, "mcc")], [result(base, "mcc")])
    assert found.low is not None and found.high is not None and one.high is not None and two.low is not None
    assert found.value is not None and found.low < found.value < found.high
    assert found.high - found.low < (one.high - (one.low or 0)) / 2


def test_seeds_widen_the_interval_of_a_corpus_metric() -> None:
    same = [result(labels(200, 3, 0.6), "mcc")] * 3
    unlike = [result(labels(200, seed, right), "mcc") for seed, right in ((3, 0.3), (4, 0.6), (5, 0.9))]
    widths = [
        e.high - e.low for e in (stats.mean(same), stats.mean(unlike)) if e.high is not None and e.low is not None
    ]
    assert widths[1] > 1.5 * widths[0]


def test_a_constant_answer_has_a_value_and_no_interval() -> None:
    found = stats.mean([result([(i % 2, 1) for i in range(20)], "mcc")])
    assert (found.value, found.low) == (0, None) and found.reason.startswith("no interval")


def test_a_suite_mean_adds_the_variances_of_its_tasks() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.random(50), rng.random(80)
    found = stats.suite_mean([stats.mean([result(list(a))]), stats.mean([result(list(b))])])
    parts = [(x.var(ddof=1) / len(x) / 4, len(x) - 1) for x in (a, b)]
    variance = sum(v for v, _ in parts)
    half = t.ppf(0.975, variance**2 / sum(v**2 / df for v, df in parts)) * variance**0.5
    middle = (a.mean() + b.mean()) / 2
    assert (found.value, found.low, found.high) == pytest.approx((middle, middle - half, middle + half))
    assert found.n == 130


def test_a_seed_that_moves_all_tasks_together_moves_the_suite_mean_as_much() -> None:
    """Were the tasks' intervals treated as independent, the one of the mean would be narrower by the root of two."""
    rng = np.random.default_rng(3)
    shift = np.array([[0.0], [0.15], [0.3]])
    tasks = [rng.random((1, 400)) * 0.1 + rng.random((3, 400)) * 0.01 + shift for _ in range(2)]
    parts = [stats.mean([result(list(row)) for row in y]) for y in tasks]
    whole = stats.suite_mean(parts)
    assert whole.high is not None and whole.low is not None and parts[0].high is not None and parts[0].low is not None
    assert whole.high - whole.low > 0.95 * (parts[0].high - parts[0].low)


def test_a_suite_without_one_of_its_tasks_has_no_mean() -> None:
    missing = stats.Estimate(None, reason="not run yet")
    assert stats.suite_mean([stats.mean([result(ones(3, 10))]), missing]).reason == "not run yet"


def test_equal_methods_are_seldom_told_apart_when_seeds_vary() -> None:
    """Of 300 pairs of equal methods with seeds that differ by 4 points, items alone would flag many more than 5 %."""
    rng, flagged, items_only = np.random.default_rng(7), 0, 0
    for _ in range(300):
        easy = rng.random(200)
        sides = [
            [
                result([float(x < e + s) for x, e in zip(rng.random(200), easy, strict=True)])
                for s in rng.normal(0, 0.04, 3)
            ]
            for _ in range(2)
        ]
        both, one = stats.difference(*sides), stats.difference(sides[0][:1], sides[1][:1])
        flagged += (both.low or 0) > 0 or (both.high or 0) < 0
        items_only += (one.low or 0) > 0 or (one.high or 0) < 0
    assert flagged <= 0.08 * 300 < items_only
