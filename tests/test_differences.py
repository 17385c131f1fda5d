"""Tests of two methods, against SciPy and statsmodels, by closed form and by what must hold whatever the numbers."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from scipy.stats import permutation_test, t
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from harness.results import corpus, crossed, exact, stats
from harness.results.claims import detectable, non_inferior
from harness.results.corrections import benjamini_hochberg, holm
from harness.results.frame import Result, TaskView
from harness.results.items import Samples
from harness.results.stats import Estimate
from tests.test_stats import labels, ones, result


def side(runs: Sequence[Sequence[float]], *, seeds: Sequence[int] | None = None, **other: object) -> list[Result]:
    """One result a seed."""
    numbers = range(len(runs)) if seeds is None else seeds
    return [replace(result(list(run)), seed=seed, **other) for seed, run in zip(numbers, runs, strict=True)]


def clustered(scores: Sequence[float], names: Sequence[str], seed: int = 0) -> Result:
    items = tuple(f"d{i:05d}" for i in range(len(scores)))
    samples = Samples(items, array("d", scores), clusters=tuple(names))
    view = TaskView("suite", "task", "acc", True, "key", "p")
    return Result(view, "ok", "", float(np.mean(scores)), len(scores), samples, seed=seed)


def noisy(seed: int, seeds: int = 3, items: int = 60, sd: float = 0.05) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.random(items) + rng.normal(0, 0.1, (seeds, items)) + rng.normal(0, sd, (seeds, 1))


def test_one_seed_of_right_and_wrong_is_mcnemars_exact_test_and_never_a_finding() -> None:
    ours, base = [1.0] * 30 + [0.0] * 20, [1.0] * 18 + [0.0] * 22 + [1.0] * 3 + [0.0] * 7
    found = stats.difference([result(ours)], [result(base)])
    better, worse = sum(a > b for a, b in zip(ours, base, strict=True)), 3
    wanted = mcnemar([[18, better], [worse, 50 - 18 - better - worse]], exact=True).pvalue
    assert found.flips == (better, worse) == (12, 3)
    assert found.p == pytest.approx(wanted) and found.p is not None and found.p < 0.05
    assert found.how == "items only: McNemar" and found.items_only and found.claim is None


@pytest.mark.parametrize("n", [6, 40])
def test_one_seed_of_graded_scores_is_the_permutation_test_of_paired_signs(n: int) -> None:
    rng = np.random.default_rng(n)
    a, b = rng.random(n), rng.random(n) - 0.12
    wanted = permutation_test((a, b), lambda x, y: np.mean(x - y), permutation_type="samples", n_resamples=9999, rng=1)
    found = stats.difference([result(list(a))], [result(list(b))])
    assert found.p == pytest.approx(wanted.pvalue, abs=1e-9 if n == 6 else 0.03)
    assert found.how == "items only: sign flips"


def test_two_untrained_methods_may_be_told_apart_by_their_items() -> None:
    found = stats.difference(*(side([ones(k, 40)], settled=True) for k in (30, 10)))
    assert found.how == "McNemar" and found.claim == found.p == pytest.approx(2 * 0.5**20)


def test_one_trained_seed_among_several_of_the_other_side_is_items_only() -> None:
    found = stats.difference(side(noisy(1)), side(noisy(2, seeds=1)))
    assert found.items_only and found.seed_sd[1] is None and found.seed_sd[0] is not None


def test_the_seeds_of_both_sides_are_pooled_and_each_part_has_its_own_quantile() -> None:
    a, b = noisy(1), noisy(2)
    found = stats.difference(side(a), side(b))
    by_item = a.mean(0) - b.mean(0)
    items, beyond = by_item.var(ddof=1) / 60, 0.0
    for y in (a, b):
        rest = y - y.mean(1, keepdims=True) - y.mean(0) + y.mean()
        beyond += y.mean(1).var(ddof=1) - (rest**2).sum() / (2 * 59) / 60
    seeds = beyond / 2 * (1 / 3 + 1 / 3)
    half = (t.ppf(0.975, 59) ** 2 * items + t.ppf(0.975, 4) ** 2 * seeds) ** 0.5
    assert found.low == pytest.approx(by_item.mean() - half) and found.high == pytest.approx(by_item.mean() + half)
    assert found.df == pytest.approx((items + seeds) ** 2 / (items**2 / 59 + seeds**2 / 4))
    power = (t.ppf(0.8, 59) ** 2 * items + t.ppf(0.8, 4) ** 2 * seeds) ** 0.5
    assert found.mde == pytest.approx(half + power) and found.how == "paired items x seeds"


def test_an_untrained_baseline_has_no_seeds_to_fear() -> None:
    a, b = noisy(1), noisy(2, seeds=1)
    found = stats.difference(side(a), side(b, settled=True))
    parts = crossed.variance(a.mean(0) - b[0], [crossed.side_of(a)])
    assert found.low == pytest.approx(a.mean() - b.mean() - parts.reach(0.975))
    assert not found.items_only and found.claim is not None and found.seed_sd[1] == 0


def test_p_is_the_level_at_which_the_interval_reaches_zero() -> None:
    both, items = crossed.Variance(4e-4, 200, 3e-4, 4), crossed.Variance(4e-4, 200, 0.0, 4)
    for parts, value in product((both, items), (0.0, 1e-9, 0.01, 0.05, 0.2, 0.5)):
        assert float(parts.reach(parts.p(value) / 2)) == pytest.approx(value, rel=1e-4, abs=1e-12)
    assert items.p(0.03) == pytest.approx(2 * t.sf(1.5, 200)) and both.p(0.03) > items.p(0.03) and both.p(0) == 1


def test_matched_seeds_are_students_test_of_the_seeds_differences_where_items_do_not_vary() -> None:
    rng = np.random.default_rng(3)
    common = rng.normal(0, 0.1, (4, 1))
    a = np.full((4, 30), 0.5) + common + rng.normal(0, 0.01, (4, 1))
    b = np.full((4, 30), 0.48) + common + rng.normal(0, 0.01, (4, 1))
    found = stats.difference(side(a), side(b, seeds=(0, 1, 2, 3)), matched=True)
    d = (a - b).mean(1)
    wanted = t.interval(0.95, 3, d.mean(), d.std(ddof=1) / 2)
    assert (found.low, found.high) == pytest.approx(wanted) and found.how == "matched items x seeds"
    assert found.p == pytest.approx(2 * t.sf(abs(d.mean()) / (d.std(ddof=1) / 2), 3), rel=1e-4)
    unmatched = stats.difference(side(a), side(b))
    assert unmatched.high is not None and found.high is not None and unmatched.high > found.high


def test_matched_seeds_are_paired_by_number_and_not_by_place() -> None:
    a, b = noisy(1), noisy(2)
    found = stats.difference(side(a), side(b), matched=True)
    other = stats.difference(side(a), side(b[::-1], seeds=(2, 1, 0)), matched=True)
    assert (found.low, found.high, found.p) == pytest.approx((other.low, other.high, other.p))


def test_seeds_that_do_not_match_or_stand_twice_are_refused() -> None:
    a, b = noisy(1), noisy(2)
    missing = stats.difference(side(a), side(b[:2]), matched=True)
    nameless = stats.difference(side(a), [result(list(run)) for run in b], matched=True)
    twice = stats.difference(side(a, seeds=(0, 1, 1)), side(b))
    nothing = stats.difference([], side(b))
    assert (missing.value, missing.reason) == (None, "matched seeds, and seed 2 is only on one side")
    assert nameless.reason == "matched seeds, and a side does not say which seeds it has"
    assert (twice.value, twice.reason) == (None, "seed 1 twice on one side")
    assert (nothing.value, nothing.reason) == (None, "no results on one side")


def test_clusters_are_the_items_where_each_is_one_answer_many_times() -> None:
    """Four copies of each item: as clusters, the interval is that of the single items; taken as items, half of it."""
    scores = np.random.default_rng(0).random(50)
    names = [str(i // 4) for i in range(200)]
    whole, single = stats.mean([clustered(np.repeat(scores, 4), names)]), stats.mean([result(list(scores))])
    assert (whole.low, whole.high) == pytest.approx((single.low, single.high)) and whole.clusters == 50
    naive = stats.mean([result(list(np.repeat(scores, 4)))])
    assert naive.high is not None and naive.low is not None and whole.high is not None and whole.low is not None
    assert naive.high - naive.low < 0.51 * (whole.high - whole.low)


def test_clusters_of_one_item_change_nothing() -> None:
    a, b = noisy(1), noisy(2)
    names = [f"{i}" for i in range(60)]
    found = stats.difference(*([clustered(r, names, s) for s, r in enumerate(y)] for y in (a, b)))
    plain = stats.difference(side(a), side(b))
    assert (found.low, found.high, found.p) == (plain.low, plain.high, plain.p) and found.clusters == 0
    unnamed = crossed.Clusters.of(["a", "", "", "a"])
    assert len(unnamed) == 3 and sorted(unnamed.sums(np.array([1.0, 2, 4, 8])).tolist()) == [2, 4, 9]


def test_one_seed_of_clusters_flips_the_signs_of_clusters_and_not_of_items() -> None:
    better = np.array([1.0] * 12 + [0.0] * 12)
    ours, base = clustered(better, ["a", "b", "c", "d"] * 6), clustered(np.zeros(24), ["a", "b", "c", "d"] * 6)
    found = stats.difference([ours], [base])
    assert found.p == exact.sign_flips(np.array([3.0, 3, 3, 3])) == 2 / 16


def test_one_cluster_one_item_and_no_samples_have_no_interval() -> None:
    one = stats.mean([clustered([1.0, 0.0, 1.0], ["a"] * 3)])
    assert (one.low, one.reason) == (None, "no interval: all items are in one cluster")
    assert stats.mean([result([1.0])]).reason == "no interval: fewer than two items"
    graded = stats.difference(side([[0.3] * 5] * 3), side([[0.3] * 5] * 3))
    assert (graded.value, graded.p, graded.reason) == (0, None, "no interval: all items have the same score")


def test_methods_that_agree_on_every_item_under_every_seed_are_not_different() -> None:
    found = stats.difference(*(side([ones(3, 20)] * 3) for _ in range(2)))
    assert found.p == 1 and found.low is not None and found.low < 0 < (found.high or 0)


@pytest.mark.parametrize("seeds", [1, 3])
def test_the_sides_exchanged_change_the_sign_and_nothing_else(seeds: int) -> None:
    for scores in (lambda s: noisy(s, seeds), lambda s: (noisy(s, seeds) > 0.5).astype(float)):
        a, b = side(scores(1)), side(scores(2))
        one, two = stats.difference(a, b), stats.difference(b, a)
        assert one.value is not None and one.value == pytest.approx(-(two.value or 0))
        assert (one.low, one.p, one.mde) == pytest.approx((-(two.high or 0), two.p, two.mde))
        assert one.flips == (two.flips or (0, 0))[::-1] and one.seed_sd == two.seed_sd[::-1]


@pytest.mark.parametrize("seeds", [1, 3])
def test_the_order_of_items_and_of_seeds_is_nothing(seeds: int) -> None:
    a, b, order = noisy(1, seeds), noisy(2, seeds), np.random.default_rng(9).permutation(60)
    one = stats.difference(side(a), side(b))
    two = stats.difference(side(a[::-1][:, order]), side(b[:, order]))
    assert (one.value, one.low, one.high, one.p) == pytest.approx((two.value, two.low, two.high, two.p))


def test_an_added_constant_moves_the_difference_and_not_its_width() -> None:
    a, b = noisy(1), noisy(2)
    one, two = stats.difference(side(a), side(b)), stats.difference(side(a + 2.0), side(b))
    assert two.value == pytest.approx((one.value or 0) + 2)
    assert (two.high or 0) - (two.low or 0) == pytest.approx((one.high or 0) - (one.low or 0))


def test_the_bootstrap_of_a_corpus_metric_has_a_p_by_the_plus_one_rule() -> None:
    gold = labels(200, 4, 0.5)
    perfect = [(g, g) for g, _ in gold]
    ours, base = (
        [replace(result(pairs, "mcc"), seed=s) for s in range(3)] for pairs in (perfect, [(g, p) for g, p in gold])
    )
    found = stats.difference(ours, base)
    assert found.p == 2 / (corpus.DRAWS + 1) and found.how == "paired bootstrap" and not found.items_only
    assert stats.difference(ours, base[:1]).how == "items only: paired bootstrap"
    assert stats.difference(base, base).reason.startswith("no interval")


def test_the_bootstrap_draws_clusters_whole() -> None:
    pairs = labels(100, 2, 0.6)
    items = tuple(f"d{i:05d}" for i in range(400))
    view = TaskView("suite", "task", "mcc", True, "key", "p")
    repeated = tuple(pair for pair in pairs for _ in range(4))
    samples = Samples(items, pairs=repeated, clusters=tuple(str(i // 4) for i in range(400)))
    found = stats.mean([Result(view, "ok", "", corpus.score(repeated, "mcc"), 400, samples)])
    single = stats.mean([result(pairs, "mcc")])
    assert (found.low, found.high) == pytest.approx((single.low, single.high), abs=0.02) and found.clusters == 100


def test_a_suites_difference_has_p_from_seeds_that_move_all_tasks_together() -> None:
    shift = [0.0, 0.15, 0.3]
    tasks = [noisy(s, sd=0) + np.array(shift)[:, None] for s in (1, 2)]
    base = [noisy(s, seeds=1) for s in (3, 4)]
    parts = [stats.difference(side(y), side(b, settled=True)) for y, b in zip(tasks, base, strict=True)]
    whole = stats.suite_mean(parts)
    assert whole.p is not None and whole.seed_sd[0] == pytest.approx(0.15, rel=0.2)
    assert whole.p > 0.5 * min(p.p or 0 for p in parts)
    mixed = [
        stats.difference(side(y, seeds=s), side(base[0])) for y, s in zip(tasks, [(0, 1, 2), (0, 1, 3)], strict=True)
    ]
    assert stats.suite_mean(mixed).reason == "the tasks do not have the same seeds"
    single = [stats.difference(side(y[:1]), side(b, settled=True)) for y, b in zip(tasks, base, strict=True)]
    assert stats.suite_mean(single).how == "items only: tasks" and stats.suite_mean(single).claim is None


def test_corrections_are_those_of_statsmodels_and_leave_gaps() -> None:
    ps = [0.01, 0.04, 0.03, 0.5, 0.002]
    for ours, theirs in ((holm, "holm"), (benjamini_hochberg, "fdr_bh")):
        wanted = multipletests(ps, method=theirs)[1]
        assert ours(ps) == pytest.approx(list(wanted))
        with_gap = ours([ps[0], None, *ps[1:]])
        assert with_gap[1] is None and [p for p in with_gap if p is not None] == pytest.approx(list(wanted))
        assert ours([]) == [] and ours([None]) == [None] and ours([0.2]) == [0.2]
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])


def test_no_loss_is_shown_by_the_interval_and_not_by_a_large_p() -> None:
    narrow, wide = Estimate(-0.002, -0.008, 0.004, how="paired items x seeds"), Estimate(0.0, -0.03, 0.03)
    assert non_inferior(narrow, 0.01) is True and non_inferior(wide, 0.01) is False
    assert non_inferior(replace(narrow, how="items only: McNemar"), 0.01) is None
    assert non_inferior(Estimate(0.1), 0.01) is None
    with pytest.raises(ValueError, match="positive"):
        non_inferior(narrow, 0.0)


def test_what_is_detectable_is_found_four_times_of_five() -> None:
    """Of 400 simulated comparisons of 500 items and 3 seeds with the true difference that the plan names."""
    wanted = detectable([500], 3, 0.0, 0.1)
    items = 2.801585 * (0.1 * (1 / 2 + 1 / 6) / 500) ** 0.5
    assert wanted == pytest.approx(items, rel=0.01)
    assert detectable([500], 3, 0.013, 0.1) > wanted > detectable([500], 3, 0.0, 0.1, settled_baseline=True) * 0.8
    assert detectable([500, 500], 3, 0.0, 0.1) == pytest.approx(wanted / 2**0.5, rel=0.01)
    rng, found = np.random.default_rng(5), 0
    for _ in range(400):
        own = rng.normal(0, 0.05**0.5 / 2**0.5, (2, 1, 500))
        y = own + rng.normal(0, 0.025**0.5, (2, 3, 500))
        y[0] += wanted
        found += (stats.difference(side(y[0]), side(y[1])).claim or 1) < 0.05
    assert 0.72 < found / 400 < 0.88
