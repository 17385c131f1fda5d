"""Comparisons with a fixed reference answer, in both orders, become wins, ties, losses and disagreements.

A comparison counts 1, 1/2 or 0 for the answer that is evaluated, and an item is the mean of its two orders. Where a
judge contradicts itself between the orders, the item says so. A reply that cannot be read never counts for anything:
its item scores 0 and is called unparsable, so that the denominator is always all items.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.engines.base import Response
from harness.evaluation.judge.cases import Case, asked
from harness.evaluation.judge.length import length_controlled
from harness.evaluation.judge.verdicts import Verdict, read_verdict
from harness.evaluation.suite_file import Judge

METRICS: tuple[str, ...] = (
    "win_rate",
    "length_controlled_win_rate",
    "ties",
    "disagreements",
    "unparsable",
    "first_place",
)
_POINTS = {"1": 1.0, "tie": 0.5, "2": 0.0}  # for the answer that is shown first
_OUTCOMES = {1.0: "win", 0.5: "tie", 0.0: "loss"}


@dataclass(frozen=True)
class Pair:
    """One item in both orders.  outcome: win, tie, loss, disagreement or unparsable."""

    score: float
    outcome: str
    why: str
    verdicts: tuple[Verdict, Verdict]


def judge_pair(form: Judge, case: Case, replies: Mapping[str, Response]) -> Pair:
    """replies: by the key of the request. KeyError if one is missing."""
    first, second = (read_verdict(replies[request.key]) for request in asked(form, case))
    if first.better is None or second.better is None:
        reasons = dict.fromkeys(v.why for v in (first, second) if v.better is None)
        return Pair(0.0, "unparsable", f"the judge {' and '.join(reasons)}", (first, second))
    forward, backward = _POINTS[first.better], 1 - _POINTS[second.better]
    if forward == backward:
        return Pair(forward, _OUTCOMES[forward], "", (first, second))
    why = f"a {_OUTCOMES[forward]} when shown first, a {_OUTCOMES[backward]} when shown second"
    return Pair((forward + backward) / 2, "disagreement", why, (first, second))


def scores_of(pair: Pair) -> dict[str, float]:
    """The scores of one item, by metric."""
    return {
        "win_rate": pair.score,
        "ties": float(pair.outcome == "tie"),
        "disagreements": float(pair.outcome == "disagreement"),
        "unparsable": float(pair.outcome == "unparsable"),
    }


def metrics_of(cases: Sequence[Case], pairs: Sequence[Pair]) -> dict[str, dict[str, Any]]:
    """Means over items, the length-controlled win rate, and how often the place decided.

    first_place: of the comparisons with a preference, the share that went to the answer shown first; an unbiased judge
    has 0.5. It is left out where there was none.
    """
    scored = [scores_of(pair) for pair in pairs]
    metrics = {name: {"value": sum(s[name] for s in scored) / len(scored), "n": len(scored)} for name in scored[0]}
    controlled = length_controlled(
        [pair.score for pair in pairs], [len(c.answer) for c in cases], [len(c.reference) for c in cases]
    )
    metrics["length_controlled_win_rate"] = {"value": controlled, "n": len(pairs)}
    preferred = [v.better for pair in pairs for v in pair.verdicts if v.better in ("1", "2")]
    if preferred:
        metrics["first_place"] = {"value": preferred.count("1") / len(preferred), "n": len(preferred)}
    return metrics
