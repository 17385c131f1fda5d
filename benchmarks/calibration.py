"""How often the product's comparison of two methods is wrong, by simulation.

Run by hand: `python benchmarks/calibration.py [--draws 5000] [--write docs/calibration.md]`; seeded, so that the same
draws give the same page.

Whole batches of simulated comparisons go through the functions that `harness.results.stats` calls for one comparison
(`crossed.side_of`, `crossed.variance`, `Variance.reach`), and in every setting some draws also go through
`stats.difference` and `stats.mean` themselves: the script stops where their intervals are not the same. An answer is
right where a latent number is above zero: the sum of the item (with clusters, half of it shared by four items), of what
the method makes of the item, of the run, and of the training seed, which moves all items of a run alike.
"""

from __future__ import annotations

import argparse
import functools
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import stdtrit
from scipy.stats import multivariate_normal, norm

from harness.results import corpus, crossed, exact, shares, stats
from harness.results.crossed import LEVEL, Clusters, Side
from harness.results.frame import Result, TaskView
from harness.results.items import Samples

Floats = NDArray[Any]

ITEMS = (164, 500, 1319)
SEEDS = (1, 2, 3, 5)
SEED_SD = (0.0, 0.7, 1.3)  # points
DIFFERENCE = {164: 7.4, 500: 4.5, 1319: 2.8}  # the true difference whose power is shown, in points
ACCURACY, DISCORDANCE, CLUSTER = 0.6, 0.10, 4
LOW = (0.01, 0.02, 0.05, 0.95)  # accuracies at which the intervals of scores are tried as well
LOW_SD = (0.0, 0.3)  # points
NEAR_SEEDS = (1, 3, 5)
CHECKED = 5  # draws of each setting that go through the product's own functions as well
BATCH = 250
RESAMPLED = 400  # draws of a setting whose metric is no mean: each costs a bootstrap


@dataclass(frozen=True)
class Setting:
    """untrained: the baseline is one run in which nothing is random."""

    items: int
    seeds: int
    seed_sd: float
    clustered: bool
    untrained: bool
    accuracy: float = ACCURACY

    def names(self) -> tuple[str, ...] | None:
        """The cluster of each item."""
        return tuple(str(i // CLUSTER) for i in range(self.items)) if self.clustered else None


@dataclass(frozen=True)
class Rates:
    """Shares of all draws. wrong: a difference is found where there is none.  covered: the interval of a difference
    holds the true one.  score: the interval of one method's score holds the true one.  power: a true difference is
    found.  separate, pooled: wrong, had Student's t with Satterthwaite's degrees of freedom been used, with the seed
    variance of each side taken separately or pooled.  findings: p below 5 % on which a finding may rest.
    """

    wrong: float
    covered: float
    score: float
    power: float
    separate: float
    pooled: float
    findings: float


def settings() -> Iterator[Setting]:
    """Those of the page, in its order."""
    for untrained, clustered, seeds, items, sd in product((False, True), (False, True), SEEDS, ITEMS, SEED_SD):
        if seeds > 1 or not untrained:
            yield Setting(items, seeds, sd, clustered, untrained)


def simulate(setting: Setting, draws: int) -> Rates:
    """Of one setting; the same numbers on any machine with the same NumPy."""
    rng = np.random.default_rng([setting.items, setting.seeds, round(10 * setting.seed_sd), setting.clustered])
    parts = [_batch(setting, rng, size) for size in _batches(draws)]
    return Rates(*np.concatenate(parts, axis=1).mean(axis=1).tolist())


def _batches(draws: int) -> list[int]:
    return [min(BATCH, draws - done) for done in range(0, draws, BATCH)]


def _batch(setting: Setting, rng: np.random.Generator, draws: int) -> Floats:
    """Rates.fields x draws."""
    gain = DIFFERENCE[setting.items] / 100
    base, same, better = _answers(setting, rng, draws, gain)
    clusters = Clusters.of(names) if (names := setting.names()) else None
    null, shifted = (_compared(ours, base, clusters, setting) for ours in (same, better))
    for draw in range(min(CHECKED, draws)):
        _same_as_product(setting, better[draw], base[draw], shifted, draw)
    scores = _score_interval(base, clusters, setting)
    _same_scores_as_product(setting, base, scores)
    separate, pooled = _satterthwaite(null)
    wrong = null.found if setting.seeds > 1 else _exact(same, base, clusters)
    return np.stack(
        [
            wrong,
            np.abs(shifted.value - gain) <= shifted.reach,
            _holds(scores, ACCURACY),
            shifted.found,
            separate,
            pooled,
            null.found if setting.seeds > 1 else np.zeros(draws),
        ]
    ).astype(float)


def _answers(setting: Setting, rng: np.random.Generator, draws: int, gain: float) -> tuple[Floats, Floats, Floats]:
    """Draws x seeds x items, 0 or 1: of the baseline, of an equal method, and of the same method if it were better."""
    seeds, items = setting.seeds, setting.items
    shared = _shared_variance(setting.accuracy)
    own = (1 - shared) / 2  # half of what two runs differ by is the method's, half the run's
    easy = shared**0.5 * _by_item(setting, rng, draws)
    threshold = norm.ppf(setting.accuracy)
    move = setting.seed_sd / 100 / norm.pdf(threshold)
    latent = []
    for runs, moved in ((1, 0.0) if setting.untrained else (seeds, move), (seeds, move)):
        fits = own**0.5 * _by_item(setting, rng, draws)
        noise = own**0.5 * rng.standard_normal((draws, runs, items), dtype=np.float32)
        shift = moved * rng.standard_normal((draws, runs, 1), dtype=np.float32)
        latent.append((easy + fits + noise + shift, (1 + moved**2) ** 0.5))
    (base, wide), (ours, spread) = latent  # the shift of seeds widens the distribution, and the threshold goes with it
    better = norm.ppf(setting.accuracy + gain) * spread
    return tuple(x.astype(float) for x in (base > -threshold * wide, ours > -threshold * spread, ours > -better))  # type: ignore[return-value]


def _by_item(setting: Setting, rng: np.random.Generator, draws: int) -> Floats:
    """Draws x 1 x items, of variance one."""
    alone = rng.standard_normal((draws, 1, setting.items), dtype=np.float32)
    if not setting.clustered:
        return alone
    groups = rng.standard_normal((draws, 1, -(-setting.items // CLUSTER)), dtype=np.float32)
    together: Floats = np.repeat(groups, CLUSTER, axis=2)[:, :, : setting.items]
    return (alone + together) / np.float32(2**0.5)


@functools.cache
def _shared_variance(accuracy: float) -> float:
    """Such that two runs of different methods differ on DISCORDANCE of the items, or where accuracy is not ACCURACY, on
    the same share of what two runs without anything in common would differ on."""
    at = norm.ppf(accuracy)
    wanted = DISCORDANCE * accuracy * (1 - accuracy) / (ACCURACY * (1 - ACCURACY))

    def excess(r: float) -> float:
        both = multivariate_normal.cdf([at, at], cov=[[1, r], [r, 1]])
        return float(2 * (accuracy - both) - wanted)

    return float(brentq(excess, 0.5, 0.9999))


@dataclass(frozen=True)
class _Compared:
    value: Floats
    reach: Floats
    parts: crossed.Variance
    sides: tuple[Side, Side]

    @property
    def found(self) -> Floats:
        found: Floats = np.abs(self.value) > self.reach
        return found


def _score_interval(runs: Floats, clusters: Clusters | None, setting: Setting) -> tuple[Floats, Floats]:
    """Of the score of one method: what `stats.mean` gives, for a batch of draws x seeds x items."""
    share = runs.mean(axis=(1, 2))
    if len(runs[0]) == 1 and clusters is None:
        return shares.wilson(runs.sum(axis=(1, 2)), setting.items)
    reach = _reach(runs, clusters, setting)
    other = shares.wilson(0, len(clusters) if clusters else setting.items)[1]
    with np.errstate(divide="ignore", invalid="ignore"):  # where all answers are right or all wrong
        low, high = shares.of_layout(share, reach, setting.items, len(runs[0]), setting.clustered)
    return np.where(reach == 0, share - other, low), np.where(reach == 0, share + other, high)


def _reach(runs: Floats, clusters: Clusters | None, setting: Setting) -> Floats:
    """Half the width of a score's interval by Student's t."""
    parts = crossed.variance(runs.mean(axis=1), [_settled_side(runs, clusters, setting)], clusters)
    found: Floats = parts.reach(1 - LEVEL / 2)
    return found


def _holds(interval: tuple[Floats, Floats], truth: float) -> Floats:
    held: Floats = (interval[0] <= truth) & (truth <= interval[1])
    return held


def _settled_side(base: Floats, clusters: Clusters | None, setting: Setting) -> Side:
    return crossed.side_of(base, clusters, setting.untrained)


def _compared(ours: Floats, base: Floats, clusters: Clusters | None, setting: Setting) -> _Compared:
    sides = (crossed.side_of(ours, clusters), _settled_side(base, clusters, setting))
    by_item = ours.mean(axis=1) - base.mean(axis=1)
    parts = crossed.variance(by_item, sides, clusters)
    return _Compared(by_item.mean(axis=1), parts.reach(1 - LEVEL / 2), parts, sides)


def _satterthwaite(compared: _Compared) -> tuple[Floats, Floats]:
    """Whether a difference had been found by the two tests that the product does not use."""
    parts = compared.parts
    pooled = np.abs(compared.value) > stdtrit(parts.df, 1 - LEVEL / 2) * parts.total**0.5
    each = [crossed.combined(parts.items, parts.items_df, [side]) for side in compared.sides]
    total = parts.items + sum(one.seeds for one in each)
    seeds = sum(one.seeds**2 / one.seeds_df for one in each if one.seeds_df)
    df = total**2 / (parts.items**2 / parts.items_df + seeds)
    separate: Floats = np.abs(compared.value) > stdtrit(df, 1 - LEVEL / 2) * total**0.5
    return separate, pooled


def _exact(ours: Floats, base: Floats, clusters: Clusters | None) -> Floats:
    """What the test of one seed would call different, if one believed it."""
    change = ours[:, 0] - base[:, 0]
    if clusters is not None:
        return np.array([exact.sign_flips(row) <= LEVEL for row in clusters.sums(change)])
    return np.array(
        [exact.mcnemar(*flips) <= LEVEL for flips in zip(*((d > 0).sum(1) for d in (change, -change)), strict=True)]
    )


def _results(runs: Floats, setting: Setting, settled: bool, gold: list[int] | None = None) -> list[Result]:
    """The product's view of one draw, seeds x items. gold: the right labels, if the metric shall be F1."""
    items, names = tuple(f"{i:05d}" for i in range(setting.items)), setting.names()
    view = TaskView("suite", "task", "f1" if gold else "acc", True, "key", "protocol")

    def result(run: Floats, seed: int | None) -> Result:
        if gold is None:
            samples, value = Samples(items, array("d", run), clusters=names), float(run.mean())
        else:
            pairs = tuple((g, g if right else 1 - g) for g, right in zip(gold, run, strict=True))
            samples, value = Samples(items, pairs=pairs, clusters=names), corpus.score(pairs, "f1") or 0.0
        return Result(view, "ok", "", value, len(items), samples, seed=seed, settled=seed is None)

    return [result(run, None if settled else seed) for seed, run in enumerate(runs)]


def _difference(ours: Floats, base: Floats, setting: Setting, gold: list[int] | None = None) -> stats.Estimate:
    """What the product says of one draw, each seeds x items."""
    baseline = _results(base, setting, setting.untrained, gold)
    return stats.difference(_results(ours, setting, False, gold), baseline)


def wrong_by_bootstrap(setting: Setting, draws: int) -> float:
    """The share of equal methods that the product's bootstrap calls different by F1."""
    rng = np.random.default_rng([setting.items, setting.seeds, round(10 * setting.seed_sd), 2])
    found = 0
    for _ in range(draws):
        base, ours, _ = _answers(setting, rng, 1, 0.0)
        gold = rng.integers(2, size=setting.items).tolist()
        p = _difference(ours[0], base[0], setting, gold).p
        found += p is not None and p < LEVEL
    return found / draws


def _same_as_product(setting: Setting, ours: Floats, base: Floats, compared: _Compared, draw: int) -> None:
    """The product's functions on one draw; an error where they say otherwise than the batch."""
    found = _difference(ours, base, setting)
    value, reach = float(compared.value[draw]), float(compared.reach[draw])
    if found.low is None or found.high is None or found.p is None:
        raise AssertionError(f"{setting}: no interval")
    if not np.allclose([found.low, found.high], [value - reach, value + reach]):
        raise AssertionError(f"{setting}: the batch and harness.results.stats give different intervals")
    if found.items_only != (setting.seeds == 1) or (found.claim is None) != found.items_only:
        raise AssertionError(f"{setting}: {found.how} with {setting.seeds} seeds")
    if setting.seeds > 1 and (found.p < LEVEL) != bool(compared.found[draw]):
        raise AssertionError(f"{setting}: p and interval disagree")


def _same_scores_as_product(setting: Setting, runs: Floats, batch: tuple[Floats, Floats]) -> None:
    """The product's intervals of a score; an error where they are not the batch's."""
    for draw in range(min(CHECKED, len(runs))):
        found = stats.mean(_results(runs[draw], setting, setting.untrained))
        wanted = np.clip([batch[0][draw], batch[1][draw]], 0, 1)
        if found.low is None or found.high is None or not np.allclose([found.low, found.high], wanted):
            raise AssertionError(f"{setting}: the batch and stats.mean give different intervals of a score")


def score_coverage(setting: Setting, draws: int) -> tuple[float, float]:
    """Shares of all draws in which a score's interval holds the true one: the product's, and Student's t."""
    rng = np.random.default_rng([setting.items, setting.seeds, round(1000 * setting.accuracy), 3])
    clusters = Clusters.of(names) if (names := setting.names()) else None
    held = []
    for size in _batches(draws):
        runs, _, _ = _answers(setting, rng, size, 0.0)
        ours = _score_interval(runs, clusters, setting)
        _same_scores_as_product(setting, runs, ours)
        share, reach = runs.mean(axis=(1, 2)), _reach(runs, clusters, setting)
        held.append([_holds(x, setting.accuracy) for x in (ours, (share - reach, share + reach))])
    product_, student = np.concatenate(held, axis=1).mean(axis=1).tolist()
    return product_, student


def page(draws: int) -> str:
    """The whole of docs/calibration.md."""
    rows = [(s, simulate(s, draws)) for s in settings()]
    several = [(s, r) for s, r in rows if s.seeds > 2]
    wrong, covered, score = ([getattr(r, name) for _, r in several] for name in ("wrong", "covered", "score"))
    extremes = SUMMARY.format(
        wrong=_range(wrong),
        covered=_range(covered),
        score=_range(score),
        separate=_percent(max(r.separate for _, r in several)),
        pooled=_percent(max(r.pooled for _, r in several)),
    )
    error = 100 * (0.05 * 0.95 / draws) ** 0.5
    lines = [INTRODUCTION.format(draws=f"{draws:,}", error=f"{error:.1f}"), extremes, ""]
    for untrained, one in ((False, False), (True, False), (False, True)):
        lines += [TITLES[untrained, one], "", *table([x for x in rows if _is(x[0], untrained, one)], one), ""]
    lines += [NEAR_BOUNDS, *near_bounds(draws), ""]
    return "\n".join([*lines, RESAMPLING.format(draws=f"{RESAMPLED:,}"), *_resampling(RESAMPLED)]) + "\n"


def near_bounds(draws: int) -> list[str]:
    """The table of scores near 0 and 1."""
    head = ["accuracy", "items", "seed sd", "clusters", *(f"{n} seed{'s' * (n > 1)}" for n in NEAR_SEEDS), "t, 3 seeds"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---:|" * len(head)]
    for accuracy, items, sd, clustered in product(LOW, ITEMS, LOW_SD, (False, True)):
        found = [score_coverage(Setting(items, n, sd, clustered, False, accuracy), draws) for n in NEAR_SEEDS]
        place = [f"{100 * accuracy:.0f}", str(items), f"{sd:.1f}", "yes" if clustered else "no"]
        shown = [*(ours for ours, _ in found), found[NEAR_SEEDS.index(3)][1]]
        lines.append("| " + " | ".join([*place, *(f"{100 * x:.1f}" for x in shown)]) + " |")
    return lines


def _resampling(draws: int) -> list[str]:
    lines = ["| baseline | seeds | items | seed sd | wrong |", "|---|---:|---:|---:|---:|"]
    for untrained, items, sd in product((False, True), (164, 1319), (0.0, 1.3)):
        share = wrong_by_bootstrap(Setting(items, 3, sd, False, untrained), draws)
        lines.append(f"| {'untrained' if untrained else 'trained'} | 3 | {items} | {sd:.1f} | {100 * share:.1f} |")
    return lines


def _is(setting: Setting, untrained: bool, one: bool) -> bool:
    return setting.untrained == untrained and (setting.seeds == 1) == one


INTRODUCTION = """# Calibration of the comparisons

Written by `python benchmarks/calibration.py --write docs/calibration.md`; {draws} simulated comparisons in each row, so
that a rate of 5 % has a standard error of {error} points. Accuracy 60 %, two runs differ on 10 % of the items, clusters
hold four items. All rates are in percent, seed sd and differences in points. The answers are drawn from a model with
normal latent variables; real seeds and items may be less well behaved.

*Wrong* is the share of comparisons of equal methods in which a difference is found at 5 %, *covered* the share of 95 %
intervals that hold the true difference (*score*: a method's true score), *power* the share in which the stated true
difference is found. *Separate* and *pooled* are the false positives of two tests that the product does not use:
Student's t with Satterthwaite's degrees of freedom, with the seed variance of each method or that of both together.
"""
SUMMARY = """With 3 and 5 seeds false positives lie between {wrong} (nominal 5 %), the coverage of differences
between {covered}, that of scores between {score} (nominal 95 %). Satterthwaite's degrees of
freedom would have given up to {separate} false positives, with pooled seed variance up to {pooled}. Two seeds are shown
beside them: too few where seeds matter."""
NEAR_BOUNDS = """## Scores near 0 and 1

The share of 95 % intervals that hold a method's true score, as *score* above, where few answers are right or few wrong.
*t*: had Student's t been used for several seeds, which the product does for graded scores alone.
"""
RESAMPLING = """## A metric that is no mean

F1, by the bootstrap of items with the training seeds' part drawn from Student's t; {draws} comparisons in each row.
"""
TITLES = {
    (False, False): "## Two trained methods",
    (True, False): "## A trained method and an untrained baseline",
    (False, True): "## One seed\n\nEvery result is labelled `items only` and none is called a finding; *naive* is how "
    "often exact McNemar (sign flips of clusters) would have been wrong, had it been believed.",
}


def table(rows: list[tuple[Setting, Rates]], one: bool) -> list[str]:
    names = ["naive", "findings", "score"] if one else ["wrong", "covered", "score", "power", "separate", "pooled"]
    head = ["clusters", "seeds", "items", "seed sd", *([] if one else ["difference"]), *names]
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    for s, r in rows:
        place = ["yes" if s.clustered else "no", str(s.seeds), str(s.items), f"{s.seed_sd:.1f}"]
        shown = (r.wrong, r.findings, r.score) if one else (r.wrong, r.covered, r.score, r.power, r.separate, r.pooled)
        cells = [*place, *([] if one else [f"{DIFFERENCE[s.items]:.1f}"]), *(f"{100 * x:.1f}" for x in shown)]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _range(shares: list[float]) -> str:
    return f"{_percent(min(shares))} and {_percent(max(shares))}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Calibration of the comparisons, by simulation.")
    parser.add_argument("--draws", type=int, default=5000)
    parser.add_argument("--write", type=Path, metavar="FILE", help="instead of printing")
    given = parser.parse_args()
    text = page(given.draws)
    if given.write:
        given.write.write_text(text)
    else:
        print(text)
