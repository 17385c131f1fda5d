"""The sentences under a table: what holds for all of it, and what of a test set the training data share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.evaluation import contamination
from harness.results import stats
from harness.results.frame import Result
from harness.results.stats import Estimate

if TYPE_CHECKING:
    from harness.results.columns import Column
    from harness.results.table import Row

SAME = 0.1  # how far a score may move, as printed, without the items that are known, before the rest's is printed too


def table_notes(rows: Sequence[Row], present: str | None, wanted: str | None) -> tuple[str, ...]:
    notes = ["Brackets hold 95 % intervals. n: items scored. Every column holds one protocol."]
    estimates = [x for row in rows for e in row.entries for x in (e.estimate, e.difference) if x is not None]
    if any(row.trained and len(row.cells) == 1 and row.level == "method" for row in rows):
        notes.append(
            "One seed a trained row: its intervals cover items only, not what another training seed would change, and "
            "none of its differences is a finding."
        )
    if any(e.how.endswith("items x seeds") for e in estimates):
        notes.append("Several seeds: intervals cover items and training seeds, crossed.")
    if any(row.groups for row in rows):
        notes.append(
            "Groups: the mean over models trained on one group of the rows each, all asked every item; costs are the "
            "mean of one model."
        )
    if any(row.tuning for row in rows):
        notes.append(
            "Tuned rows: the best of their trials by the loss on held-out training rows, trained again on all rows. "
            "No test set was used; the trials are not in their train time."
        )
    if wanted is not None and present is None:
        notes.append(f"No differences: the baseline {wanted} is not in this table.")
    elif any(e.difference for row in rows for e in row.entries):
        notes.append(
            f"Differences are to {present} of the same model, paired by item. detectable: the smallest true difference "
            "that is found four times in five, of the method where it is largest."
        )
        if any(e.finding and e.finding.adjusted is not None for row in rows for e in row.entries):
            notes.append(
                "▲ better, ▼ worse: significant after correction over the methods of a model (headlines: Holm, 5 %; "
                "other columns: Benjamini-Hochberg, 10 %). Without a mark a difference is undecided, not equal."
            )
    return tuple(notes)


def unplaced(rows: Sequence[Row], columns: Sequence[Column]) -> list[str]:
    """Of each headline the methods that can have no place in it, since the spread of their value is not known."""
    several, found = len({row.model for row in rows}) > 1, dict[tuple[str, str], list[str]]()
    for row in (row for row in rows if row.level == "method"):
        name = f"{row.model} {row.method}" if several else row.method
        for column, entry in zip(columns, row.entries, strict=True):
            if column.headline and entry.estimate is not None and entry.estimate.spread is None:
                found.setdefault((column.label, entry.estimate.reason), []).append(name)
    return [f"No place by {label}: {', '.join(names)} ({reason})." for (label, reason), names in found.items()]


def overlap_notes(found: Sequence[Result], shown: Estimate) -> list[str]:
    """What of the test set occurs in the training data, and the score on the rest of it where that differs."""
    overlap, samples = found[0].overlap, found[0].samples
    if overlap is None or samples is None:
        return []
    known = sum(item in overlap.items for item in samples.items)
    if not known:
        return []
    loud = "overlap above 1 %: " if known > contamination.MARK * len(samples.items) else ""
    how = ", ".join(f"{rule}: {n}" for rule, n in overlap.rules.items())
    note = f"{loud}{known} of {len(samples.items)} items share text with the training data ({how})"
    rest = stats.without(found, overlap.items)
    clean = _numbers(stats.mean(rest)) if rest else None
    if clean is None:
        return [note]
    if (seen := _numbers(shown)) and all(abs(x - y) <= SAME for x, y in zip(clean, seen, strict=True)):
        return [f"{note}; without them score and interval change by at most {SAME}"]
    value, low, high = clean
    return [f"{note}; without them {value:.1f} [{low:.1f}, {high:.1f}]"]


def _numbers(estimate: Estimate) -> tuple[float, float, float] | None:
    """Value and interval as they are printed: percent where the metric is a share. None where one is not known."""
    if estimate.value is None or estimate.low is None or estimate.high is None:
        return None
    unit = 100 if estimate.bounds else 1
    return unit * estimate.value, unit * estimate.low, unit * estimate.high
