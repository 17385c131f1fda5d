"""GLUE's official metrics: F1 beside accuracy, and the two correlations, from prompts and from trained heads alike.

The corpus metrics are those of `harness.results.corpus`, so that a score and its interval come from one definition: 0
where a metric is undefined, as for one answer to everything. What the metrics of each task are is in the task files.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from harness.results import corpus

Pair = tuple[float, float]  # gold, predicted
SCALE = (0.0, 5.0)  # of STS-B's similarities


def accuracy_and_f1(doc: Mapping[str, Any], results: Sequence[tuple[float, bool]]) -> dict[str, Any]:
    """results: (log-probability, greedy) of each answer; the label is the number of the right one."""
    gold, chosen = int(doc["label"]), _likeliest([logprob for logprob, _ in results])
    return {"acc": float(gold == chosen), "f1": (gold, chosen), "acc_and_f1": (gold, chosen)}


def expected_similarity(doc: Mapping[str, Any], results: Sequence[tuple[float, bool]]) -> dict[str, Any]:
    """results: (log-probability, greedy) of the answers 0, 1, ...; their mean, weighed by probability, is predicted."""
    logprobs = [logprob for logprob, _ in results]
    top = max((p for p in logprobs if math.isfinite(p)), default=0.0)
    shares = [math.exp(p - top) if math.isfinite(p) else 0.0 for p in logprobs]
    total = sum(shares) or 1.0
    return _similarity(doc, sum(number * share for number, share in enumerate(shares)) / total)


def written_similarity(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, Any]:
    """results: a number as text. What is none counts as the least similarity, with its reason."""
    try:
        value = float(str(results[0])[:100])
    except ValueError:
        value = math.nan
    if math.isfinite(value):
        return {**_similarity(doc, value), "outcome": "number", "why": ""}
    return {**_similarity(doc, SCALE[0]), "outcome": "no number", "why": "the answer is not a finite number"}


def f1(pairs: Sequence[Pair]) -> float:
    return _corpus(pairs, "f1")


def acc_and_f1(pairs: Sequence[Pair]) -> float:
    return _corpus(pairs, "acc_and_f1")


def pearson(pairs: Sequence[Pair]) -> float:
    return _corpus(pairs, "pearson")


def spearman(pairs: Sequence[Pair]) -> float:
    return _corpus(pairs, "spearman")


def pearson_and_spearman(pairs: Sequence[Pair]) -> float:
    return _corpus(pairs, "pearson_and_spearman")


def _similarity(doc: Mapping[str, Any], predicted: float) -> dict[str, Any]:
    pair = (float(doc["label"]), predicted)
    return {"pearson": pair, "spearman": pair, "pearson_and_spearman": pair}


def _likeliest(logprobs: Sequence[float]) -> int:
    """The first of the likeliest; what is not a number is never likely."""
    return max(range(len(logprobs)), key=lambda i: -math.inf if math.isnan(logprobs[i]) else logprobs[i])


def _corpus(pairs: Sequence[Pair], metric: str) -> float:
    value = corpus.score(list(pairs), metric)
    return math.nan if value is None else value
