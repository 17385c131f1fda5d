"""Differences become findings family by family: Holm over headlines, Benjamini and Hochberg over the rest."""

from __future__ import annotations

import pytest

from harness.results.findings import Finding, find
from harness.results.stats import Estimate


def difference(p: float | None, value: float = 0.1, how: str = "paired") -> Estimate:
    return Estimate(value, value - 0.1, value + 0.1, n=100, how=how, p=p)


def test_headlines_are_corrected_by_holm_and_the_others_by_benjamini_and_hochberg() -> None:
    rows = [[difference(0.02), difference(0.02)], [difference(0.03), difference(0.03, -0.1)]]
    found = find(rows, headline=[True, False])
    assert [row[0] for row in found] == [
        Finding("better", True, pytest.approx(0.04)),
        Finding("better", True, pytest.approx(0.04)),
    ]
    assert [row[1] for row in found] == [
        Finding("better", False, pytest.approx(0.03)),
        Finding("worse", False, pytest.approx(0.03)),
    ]


def test_one_comparison_more_can_undo_a_finding() -> None:
    one = find([[difference(0.04)]], [True])[0][0]
    assert one is not None
    assert one.verdict == "better"
    two = find([[difference(0.04)], [difference(0.5)]], [True])
    assert [row[0].verdict for row in two if row[0]] == ["undecided", "undecided"]


def test_a_headline_is_held_to_five_percent_and_the_others_to_ten() -> None:
    [[primary, secondary]] = find([[difference(0.07), difference(0.07)]], [True, False])
    assert primary is not None
    assert secondary is not None
    assert (primary.verdict, secondary.verdict) == ("undecided", "better")


def test_one_seed_is_no_finding_and_takes_no_part_in_the_correction() -> None:
    [[seed], [other]] = find([[difference(1e-9, how="items only: exact")], [difference(0.04)]], [True])
    assert seed == Finding("items only", True, None)
    assert other is not None
    assert other.adjusted == pytest.approx(0.04)


def test_where_there_is_no_test_there_is_no_finding() -> None:
    assert find([[None, difference(None)]], [True, False]) == [[None, None]]
    assert find([], [True]) == []
