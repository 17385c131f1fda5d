"""Per-sample results of a whole run as one Parquet file: a line for every cell, task, metric and item.

Columns: cell, model, method, seed, suite, task, metric, protocol, item, cluster, value (of metrics that are means),
gold and predicted (of corpus metrics, as text). Written cell by cell, so that memory holds one cell, and beside its
place first, so that what was there stays until the new file is whole.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.results.frame import CellResult, Frame
from harness.store.disk import guard

NAMES = ("cell", "model", "method", "suite", "task", "metric", "protocol")


def write_samples(frame: Frame, file: Path) -> int:
    """Write the file whole or not at all; how many lines it has. HarnessError where the disk does not take it."""
    beside = file.with_name(f".{uuid.uuid4().hex}.tmp")
    with guard(file):
        try:
            lines = _write(frame, beside)
            beside.replace(file)
        finally:
            beside.unlink(missing_ok=True)
    return lines


def _write(frame: Frame, file: Path) -> int:
    import pyarrow as pa
    from pyarrow import parquet

    words = pa.dictionary(pa.int32(), pa.string())
    schema = pa.schema(
        [(name, words) for name in NAMES]
        + [("seed", pa.int64()), ("item", words), ("cluster", words), ("value", pa.float64())]
        + [("gold", pa.string()), ("predicted", pa.string())]
    )
    lines = 0
    with parquet.ParquetWriter(str(file), schema, compression="zstd") as writer:
        for cell in frame.cells:
            for columns in _columns(cell):
                writer.write_table(pa.table(columns, schema=schema))
                lines += len(columns["item"])
    return lines


def _columns(cell: CellResult) -> Iterator[dict[str, list[Any]]]:
    """Of one cell, a block for each task and metric that has scores by item."""
    view = cell.view
    for result in cell.results:
        samples, task = result.samples, result.task
        if samples is None:
            continue
        n = len(samples.items)
        named = (view.name, view.model, view.method, task.suite, task.task, task.primary, task.protocol)
        pairs = samples.pairs
        yield {
            **{name: [value] * n for name, value in zip(NAMES, named, strict=True)},
            "seed": [view.seed] * n,
            "item": list(samples.items),
            "cluster": [c or None for c in samples.clusters] if samples.clusters is not None else [None] * n,
            "value": list(samples.values) if samples.values is not None else [None] * n,
            "gold": [json.dumps(gold) for gold, _ in pairs] if pairs is not None else [None] * n,
            "predicted": [json.dumps(predicted) for _, predicted in pairs] if pairs is not None else [None] * n,
        }
