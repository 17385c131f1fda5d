"""What holds for every number of a site, in sentences: how intervals, findings and tiers were worked out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from harness.results.table import Table


def notes(table: Table, judged: Mapping[str, int], ranked: bool) -> Iterator[str]:
    """judged: how many differences of each kind could be findings.  ranked: whether any tiers are shown."""
    yield "Under every number stands its 95 % interval. Every column holds one protocol."
    estimates = [e for row in table.rows for entry in row.entries if (e := entry.estimate) is not None]
    methods = [row for row in table.rows if row.level == "method" and row.trained]
    if any(len(row.cells) == 1 for row in methods):
        yield "One seed a trained row: its intervals cover items only, not what another training seed would change."
    if any(e.how.endswith("items x seeds") for e in estimates):
        yield "Several seeds: intervals cover items and training seeds, crossed (Satterthwaite)."
    if any(row.tuning for row in table.rows):
        yield (
            "Tuned rows: the best of their trials by the loss on held-out training rows, trained again on all rows. "
            "No test set was used; the trials are not in their train time."
        )
    if table.baseline is not None:
        counted = " and ".join(f"{count} differences of {kind}" for kind, count in judged.items() if count)
        tested = (
            f"a finding has p below 5 % after Benjamini-Hochberg over {counted}" if counted else "with one training seed a row, none of them is a finding"
        )
        yield f"Differences are to {table.baseline} of the same model, paired by item; {tested}."
    if ranked:
        yield (
            "Tiers: Holm's test of the mean over tasks against the leader of each tier. Ranks: 95 % intervals, "
            "bootstrapped over items and seeds."
        )


def judged(known: Mapping[tuple[int, int], str], table: Table) -> dict[str, int]:
    """How many differences stood in each correction."""
    counts = {"tasks": 0, "means": 0}
    for (row, column), verdict in known.items():
        if table.rows[row].level == "method" and verdict in ("better", "worse", "undecided"):
            counts["means" if table.columns[column].of_tasks else "tasks"] += 1
    return counts


def any_tiers(places: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether any suite has tiers."""
    return any("places" in found for found in places.values())
