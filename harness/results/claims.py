"""What may be said from an estimate beyond "different", and what a comparison can find before it is run."""

from __future__ import annotations

from collections.abc import Sequence

from harness.results.crossed import Variance
from harness.results.stats import Estimate


def non_inferior(difference: Estimate, margin: float) -> bool | None:
    """Whether ours is shown to lose less than the margin (a positive number in the metric's unit).

    Shown is: the lower bound of the 95 % interval lies above minus the margin. That a difference is not significant
    shows nothing. None where there is no interval, or it covers items only.
    """
    if margin <= 0:
        raise ValueError("a margin is a positive number")
    if difference.low is None or difference.items_only:
        return None
    return difference.low > -margin


def detectable(
    items: Sequence[int], seeds: int, seed_sd: float, discordance: float, *, settled_baseline: bool = False
) -> float:
    """The smallest true difference of two means of 0/1 scores that is found with 80 % power, as a share.

    items: of each task, whose plain mean is compared.  seed_sd: of that mean between training seeds, as a share.
    discordance: the share of items on which two runs differ. Half of it is taken as run-to-run noise that more seeds
    average out. settled_baseline: only ours is trained. With one seed a side, items alone: no finding rests on it.
    """
    trained = 1 if settled_baseline else 2
    by_item = discordance / 2 + discordance / 4 * trained / seeds
    within = by_item * sum(1 / n for n in items) / len(items) ** 2
    counted = seed_sd**2 * trained / seeds if seeds > 1 else 0.0
    return float(Variance(within, sum(items) - len(items), counted, trained * (seeds - 1)).detectable)
