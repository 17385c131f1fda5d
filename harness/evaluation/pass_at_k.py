"""pass@k: the chance that at least one of k answers to a question is right, estimated from n >= k answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import comb

from harness.evaluation.verdict import Verdict


def pass_at_k(n: int, right: int, k: int) -> float:
    """The unbiased estimate from n answers of which `right` pass: 1 - C(n - right, k) / C(n, k).

    Chen et al. 2021 (arXiv 2107.03374), equation 1. ValueError where n < k, which allows no unbiased estimate.
    """
    if n < k:
        raise ValueError(f"pass@{k} needs at least {k} answers to each question, not {n}")
    return 1.0 - comb(n - right, k) / comb(n, k)


def summary(verdicts: Sequence[Verdict]) -> Verdict:
    """One verdict for several answers: a pass if all pass, else the commonest failure, with how many passed."""
    if len(verdicts) == 1:
        return verdicts[0]
    failures = [verdict for verdict in verdicts if not verdict.passed]
    said = f"{len(verdicts) - len(failures)} of {len(verdicts)} pass"
    if not failures:
        return Verdict("pass", said)
    outcome = Counter(verdict.outcome for verdict in failures).most_common(1)[0][0]
    example = next(verdict.detail for verdict in failures if verdict.outcome == outcome)
    return Verdict(outcome, f"{said}; {example}")
