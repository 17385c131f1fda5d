"""Speed and memory of a night beside the accepted one: apart from accuracy, per class of machine, and only a warning.

A measure is the median over at least three runs of a cell (its seeds). It is worse when it lost 5 % and lies outside
the spread of the earlier runs (three robust standard deviations).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import median

from harness.nightly.findings import Finding

REPEATS = 3
LOSS = 0.05
WIDTH = 3 * 1.4826  # of the median absolute deviation
MORE_IS_WORSE = ("peak_bytes",)
WORDS = {
    "tokens_per_second": "trained tokens a second",
    "answer_tokens_per_second": "answered tokens a second",
    "peak_bytes": "peak bytes of training",
}
Costs = Mapping[str, Mapping[str, Sequence[float]]]  # cell -> measure -> one value a run


def slower(then: Sequence[Costs], now: Costs) -> Iterator[Finding]:
    """then: of accepted nights on the same class of machine."""
    for cell, measures in now.items():
        for measure, values in measures.items():
            before = [v for night in then for v in night.get(cell, {}).get(measure, ())]
            if len(before) >= REPEATS and len(values) >= REPEATS:
                yield from _compared(cell, measure, before, values)


def _compared(cell: str, measure: str, before: Sequence[float], values: Sequence[float]) -> Iterator[Finding]:
    centre, middle = median(before), median(values)
    if centre <= 0:
        return
    spread = WIDTH * median(abs(v - centre) for v in before)
    change = middle / centre - 1
    loss = change if measure in MORE_IS_WORSE else -change
    if loss > LOSS and abs(middle - centre) > spread:
        text = f"{WORDS.get(measure, measure)}: {middle:.4g} after {centre:.4g} ({change:+.1%})"
        yield Finding("speed", "warning", cell, "", measure, text, delta=middle - centre)
