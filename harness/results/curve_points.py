"""The curve of a cell's training, as its train steps left it in curve.jsonl. What the values mean is the method's."""

from __future__ import annotations

import json
from collections.abc import Iterator

from harness.results.frame import CellView
from harness.store import Store

NOT_A_VALUE = ("step", "stage")


def curve_points(view: CellView, store: Store) -> Iterator[tuple[int, dict[str, float]]]:
    """Every logged step of every stage. A later stage goes on counting where the one before it ended."""
    before = 0
    for key in view.train:
        record = store.find("train", key)
        if record is None or "curve.jsonl" not in record.outputs:
            continue
        last = 0
        for text in record.file("curve.jsonl").read_text(encoding="utf-8").splitlines():
            line = json.loads(text)
            last = int(line["step"])
            values = {k: float(v) for k, v in line.items() if k not in NOT_A_VALUE and isinstance(v, int | float)}
            yield before + last, values
        before += last
