"""The per-item scores of one cell as one columnar file (Parquet): small, quick to read, and readable by other tools.

Columns: `task` (key of the score step), `metric`, `item` (16 hex characters of the document's hash; a repeated document
gets `#2`, ...), `score` (float, null for corpus metrics), `gold` and `predicted` (JSON, of corpus metrics), `cluster`
(empty where the task names none), `finish` ("length" where the token limit cut an answer). Answers and reasons stay in
each score step's samples.jsonl.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COLUMNS = ("task", "metric", "item", "score", "gold", "predicted", "cluster", "finish")


@dataclass(frozen=True)
class Samples:
    """Scores by item, in a fixed order that is the same for every cell with the same items.

    items: one name an item.  values: one float an item, for metrics that are means.  pairs: one (gold, predicted) an
    item, for corpus metrics.  clusters: the name of each item's cluster ("": its own), None where the task names none.
    """

    items: tuple[str, ...]
    values: array[float] | None = None
    pairs: tuple[tuple[Any, Any], ...] | None = None
    clusters: tuple[str, ...] | None = None


KnownItems = dict[tuple[str, ...], tuple[str, ...]]  # equal tuples are shared, so that a thousand cells hold names once


def by_metric(samples: Iterable[Mapping[str, Any]], known: KnownItems | None = None) -> dict[str, Samples]:
    """The lines of one samples.jsonl, by metric, each over the items that it scores; none for other kinds of values."""
    scores: dict[str, dict[str, Any]] = {}
    named = name_items(samples)
    for item, sample in sorted(named.items()):
        for metric, score in sample["scores"].items():
            scores.setdefault(metric, {})[item] = score
    found = {}
    for metric, by_item in scores.items():
        items, values = _shared(tuple(by_item), known), list(by_item.values())
        clusters = _clusters((named[item].get("cluster", "") for item in items), known)
        if all(isinstance(v, bool | int | float) for v in values):
            found[metric] = Samples(items, values=array("d", values), clusters=clusters)
        elif all(isinstance(v, list) and len(v) == 2 for v in values):
            found[metric] = Samples(items, None, tuple((gold, predicted) for gold, predicted in values), clusters)
    return found


def _shared(items: tuple[str, ...], known: KnownItems | None) -> tuple[str, ...]:
    return items if known is None else known.setdefault(items, items)


def _clusters(names: Iterable[str], known: KnownItems | None) -> tuple[str, ...] | None:
    named = tuple(names)
    return _shared(named, known) if any(named) else None


def name_items(samples: Iterable[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Samples by the name of their item, in the order of the file."""
    named: dict[str, Mapping[str, Any]] = {}
    for sample in samples:
        name, again = sample["hash"], 1
        while name in named:
            again += 1
            name = f"{sample['hash']}#{again}"
        named[name] = sample
    return named


def write_items(file: Path, scored: Mapping[str, Iterable[Mapping[str, Any]]]) -> None:
    """scored: the lines of samples.jsonl by key of the score step. Sorted by task, metric and item."""
    import pyarrow as pa
    from pyarrow import parquet

    lines = [
        (key, metric, item, *_columns(score), sample.get("cluster", ""), sample.get("finish", ""))
        for key, samples in scored.items()
        for item, sample in sorted(name_items(samples).items())
        for metric, score in sample["scores"].items()
    ]
    lines.sort(key=lambda line: line[:3])
    columns = list(zip(*lines, strict=True)) or [()] * len(COLUMNS)
    types = {"score": pa.float64()}
    table = pa.table(
        {name: pa.array(values, types.get(name, pa.string())) for name, values in zip(COLUMNS, columns, strict=True)}
    )
    parquet.write_table(table, file, compression="zstd")


def _columns(score: Any) -> tuple[float | None, str | None, str | None]:
    """score, gold, predicted. A list that is no pair (IFEval's instructions of a prompt) has none of them."""
    if isinstance(score, list):
        return (None, *map(json.dumps, score)) if len(score) == 2 else (None, None, None)  # type: ignore[return-value]
    return float(score), None, None


def read_items(file: Path, known: KnownItems | None = None) -> dict[tuple[str, str], Samples]:
    """(key of the score step, metric) -> its samples."""
    import numpy as np
    from pyarrow import parquet

    table = parquet.read_table(file, columns=list(COLUMNS[:7]), read_dictionary=["task", "metric"]).combine_chunks()
    if not len(table):
        return {}
    coded = [table[name].combine_chunks() for name in ("task", "metric")]
    changes = sum(np.diff(array.indices.to_numpy()) != 0 for array in coded)
    starts = [0, *(np.flatnonzero(changes) + 1).tolist()]
    found = {}
    for start, end in zip(starts, [*starts[1:], len(table)], strict=True):
        mine = table.slice(start, end - start)
        task, metric = (array[start].as_py() for array in coded)
        items = _shared(tuple(mine["item"].to_pylist()), known)
        clusters = _clusters(mine["cluster"].to_pylist(), known)
        if mine["score"].null_count == 0:
            scores = array("d", np.ascontiguousarray(mine["score"].to_numpy()).tobytes())
            found[task, metric] = Samples(items, values=scores, clusters=clusters)
        elif mine["gold"].null_count == 0:
            pairs = zip(mine["gold"].to_pylist(), mine["predicted"].to_pylist(), strict=True)
            texts = tuple((json.loads(gold), json.loads(predicted)) for gold, predicted in pairs)
            found[task, metric] = Samples(items, pairs=texts, clusters=clusters)
    return found


def sums(samples: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Of each metric that is a mean: n, sum and sum of squares over items, and likewise over clusters' sums."""
    found: dict[str, dict[str, float]] = {}
    clusters: dict[str, dict[str, float]] = {}
    for number, sample in enumerate(samples):
        for metric, score in sample["scores"].items():
            if isinstance(score, bool | int | float):
                total = found.setdefault(metric, {"n": 0, "sum": 0.0, "squares": 0.0})
                total["n"] += 1
                total["sum"] += score
                total["squares"] += score * score
                by = clusters.setdefault(metric, {})
                name = str(sample.get("cluster", number))
                by[name] = by.get(name, 0.0) + score
    for metric, by in clusters.items():
        found[metric] |= {"clusters": len(by), "cluster_squares": sum(v * v for v in by.values())}
    return found
