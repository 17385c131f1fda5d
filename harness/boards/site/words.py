"""What holds for every number of a site, in sentences: how intervals, findings and tiers were worked out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from harness.results.table import Table


def notes(table: Table, judged: int, ranked: bool) -> Iterator[str]:
    """judged: how many differences could be findings.  ranked: whether any tiers are shown."""
    yield "Under every number stands its 95 % interval. Every column holds one protocol."
    estimates = [e for row in table.rows for entry in row.entries if (e := entry.estimate) is not None]
    methods = [row for row in table.rows if row.level == "method" and row.trained]
    if any(len(row.cells) == 1 for row in methods):
        yield "One seed a trained row: its intervals cover items only, not what another training seed would change."
    if any(e.how.endswith("items x seeds") for e in estimates):
        yield "Several seeds: intervals cover items and training seeds, crossed, each with its own degrees of freedom."
    if any(row.tuning for row in table.rows):
        yield (
            "Tuned rows: the best of their trials by the loss on held-out training rows, trained again on all rows. "
            "No test set was used; the trials are not in their train time."
        )
    if table.baseline is not None:
        tested = (
            f"{judged} of them rest on several seeds. A finding is one below 5 % after Holm's correction (headlines of "
            "the suites) or below 10 % after Benjamini and Hochberg's (the others), over the methods of a model."
            if judged
            else "with one training seed a row, none of them is a finding."
        )
        yield f"Differences are to {table.baseline} of the same model, paired by item; {tested}"
    if ranked:
        yield (
            "Tiers, among the methods of a model: Holm's test of the mean over tasks against the leader of each tier. "
            "A trained row of one seed is told from no other. Ranks: 95 % intervals, bootstrapped over items and seeds."
        )


def judged(known: Mapping[tuple[int, int], str], table: Table) -> int:
    """How many differences could be findings."""
    return sum(
        table.rows[row].level == "method" and verdict in ("better", "worse", "undecided")
        for (row, _), verdict in known.items()
    )


def any_tiers(places: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether any suite has tiers."""
    return any("places" in found for found in places.values())
