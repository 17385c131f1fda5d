"""What a table says, as rectangles of text: scores, differences, tiers, tuning, costs, and what each column is.

The same words for Markdown, terminals and HTML pages; how each of them writes a rectangle is theirs. Nothing is
computed here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from harness.results.columns import Column
from harness.results.frame import Cost
from harness.results.pareto import front
from harness.results.stats import Estimate
from harness.results.table import Entry, Row, Table, row_label

DASH = "–"
HEADLINE = "†"
SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
INTERVAL_WIDTH = 17  # of "31.0 [22.8, 40.6]"


@dataclass(frozen=True)
class Section:
    """One rectangle of text: a heading, the names of its columns, its lines (first the row's names, then values)."""

    heading: str
    header: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]
    left: int  # how many columns hold names and stand left


class Footnotes:
    """Gives every sentence a number when it is first marked."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}

    def mark(self, notes: Sequence[str]) -> str:
        """`¹` or `¹,²`, or nothing."""
        numbers = sorted(self.numbers.setdefault(note, len(self.numbers) + 1) for note in dict.fromkeys(notes))
        return ",".join(str(n).translate(SUPERSCRIPTS) for n in numbers)

    def marked(self) -> Iterator[tuple[str, str]]:
        """Every mark with its sentence."""
        for note, number in self.numbers.items():
            yield str(number).translate(SUPERSCRIPTS), note


def sections(table: Table, footnotes: Footnotes, width: int, value_width: int) -> Iterator[Section]:
    several_models = len({row.model for row in table.rows}) > 1
    names = [(row.model,) * several_models + (row_label(row),) for row in table.rows]
    marked = [(*n[:-1], n[-1] + footnotes.mark(row.notes)) for n, row in zip(names, table.rows, strict=True)]
    named = ("model",) * several_models + ("method",)
    taken = sum(max(len(line[i]) for line in [named, *marked]) + 3 for i in range(len(named))) + 1
    model = "" if several_models or not table.rows else f" of {table.rows[0].model}"
    widths = [max(len(label_of(c)), value_width) + 3 for c in table.columns]
    blocks = list(_blocks(widths, [c.headline for c in table.columns], width - taken))
    for number, places in enumerate(blocks):
        yield _scores(table, footnotes, places, named, marked, f"Scores{model}" + (", continued" if number else ""))
    yield from _differences(table, footnotes, blocks, named, marked)
    yield from _tiers(table)
    yield from _tuning(table, named, marked)
    yield from _costs(table, named, marked, width - taken)
    if table.phases:
        yield from _phases(table, named, marked, width - taken)
    if table.pareto:
        yield from _pareto(table)
    yield _legend(table)


def _blocks(widths: Sequence[int], first: Sequence[bool], width: int) -> Iterator[list[int]]:
    """Places of columns that fit side by side: all of them, or else those that come first and then the rest."""
    order = list(range(len(widths)))
    if sum(widths) > width:
        order.sort(key=lambda place: not first[place])
    block: list[int] = []
    for place in order:
        if block and sum(widths[p] for p in block) + widths[place] > width:
            yield block
            block = []
        block.append(place)
    if block:
        yield block


def _scores(
    table: Table,
    footnotes: Footnotes,
    places: Sequence[int],
    named: tuple[str, ...],
    names: Sequence[tuple[str, ...]],
    heading: str,
) -> Section:
    columns = [table.columns[p] for p in places]
    header = (*named, *(label_of(c) + footnotes.mark(c.notes) for c in columns))
    counts = ("n", *("",) * (len(named) - 1), *(count_of(table.rows, p) for p in places))
    lines = [
        (*name, *(value_of(row.entries[p], table.columns[p], footnotes) for p in places))
        for name, row in zip(names, table.rows, strict=True)
    ]
    return Section(heading, header, (counts, *lines), len(named))


def _differences(
    table: Table,
    footnotes: Footnotes,
    blocks: Sequence[Sequence[int]],
    named: tuple[str, ...],
    names: Sequence[tuple[str, ...]],
) -> Iterator[Section]:
    compared = [i for i, row in enumerate(table.rows) if any(e.difference for e in row.entries)]
    for number, places in enumerate(blocks if compared else []):
        lines = [
            (*names[i], *(difference_of(table.rows[i].entries[p], table.columns[p], footnotes) for p in places))
            for i in compared
        ]
        last = ("detectable", *("",) * (len(named) - 1), *(_detectable(table, p) for p in places))
        header = (*named, *(label_of(table.columns[p]) for p in places))
        heading = f"Difference to {table.baseline}" + (", continued" if number else "")
        yield Section(heading, header, (*lines, last), len(named))


def _detectable(table: Table, place: int) -> str:
    """The largest of a column's smallest detectable differences."""
    found = [e.mde for row in table.rows if (e := row.entries[place].difference) is not None and e.mde is not None]
    return rounded(max(found), table.columns[place].percent) if found else DASH


def _tiers(table: Table) -> Iterator[Section]:
    """A list for each headline column, where the table was made with places: the best first."""
    several = len({row.model for row in table.rows}) > 1
    for at, column in enumerate(table.columns):
        placed = [(row, row.entries[at]) for row in table.rows if row.entries[at].place is not None]
        lines = [
            (
                f"{place.tier}",
                f"{place.low} to {place.high}" if place.low < place.high else f"{place.low}",
                *((row.model,) if several else ()),
                row_label(row),
                number_of(entry.estimate, column.percent) if entry.estimate else DASH,
            )
            for row, entry in sorted(placed, key=_best_first)
            if (place := entry.place) is not None
        ]
        if lines:
            header = ("tier", "rank", *(("model",) if several else ()), "method", label_of(column))
            yield Section(f"Tiers by {label_of(column)}", header, tuple(lines), len(header) - 1)


def _best_first(placed: tuple[Row, Entry]) -> tuple[str, int, float]:
    row, entry = placed
    value = entry.estimate.value if entry.estimate and entry.estimate.value is not None else 0.0
    return row.model, entry.place.tier if entry.place else 0, -value


def label_of(column: Column) -> str:
    return column.label + (HEADLINE if column.headline else "")


def count_of(rows: Sequence[Row], place: int) -> str:
    """The items behind a column: one number, since a column holds one protocol; cells that lack some are marked."""
    counts = [e.n for row in rows if (e := row.entries[place].estimate) is not None]
    return str(max(counts)) if counts else DASH


def value_of(entry: Entry, column: Column, footnotes: Footnotes) -> str:
    words = {"diverged": "diverged", "failed": "failed"}
    text = words.get(entry.state, DASH) if entry.estimate is None else number_of(entry.estimate, column.percent)
    return text + footnotes.mark(entry.notes)


def difference_of(entry: Entry, column: Column, footnotes: Footnotes) -> str:
    if entry.difference is None or entry.difference.value is None:
        return DASH + footnotes.mark([entry.difference.reason] if entry.difference else [])
    notes = [entry.difference.reason] if entry.difference.reason else []
    marks = {"better": " ▲", "worse": " ▼"}
    shown = marks.get(entry.finding.verdict, "") if entry.finding else ""
    return number_of(entry.difference, column.percent, sign="+") + shown + footnotes.mark(notes)


def number_of(estimate: Estimate, percent: bool, sign: str = "") -> str:
    """`31.0 [22.8, 40.6]`; without an interval, the value alone."""
    if estimate.value is None:
        return DASH
    value = rounded(estimate.value, percent, sign)
    if estimate.low is None or estimate.high is None:
        return value
    return f"{value} [{rounded(estimate.low, percent)}, {rounded(estimate.high, percent)}]"


def rounded(value: float, percent: bool, sign: str = "") -> str:
    if not percent:
        return f"{value:{sign}.4g}"
    return f"{round(100 * value, 1) + 0.0:{sign}.1f}"  # adding 0.0 turns -0.0 into 0.0


def _scaled(value: float | None, units: Sequence[str], step: float = 1000.0) -> str:
    if value is None:
        return DASH
    for unit in units[:-1]:
        if abs(value) < step:
            return f"{value:.3g}{unit}" if unit or value != int(value) else f"{int(value)}"
        value /= step
    return f"{value:.3g}{units[-1]}"


def _seconds(value: float | None) -> str:
    if value is None:
        return DASH
    return f"{value:.1f} s" if value < 100 else f"{value:.0f} s"


COUNTS = ("", "k", "M", "G", "T")
BYTES = (" B", " KB", " MB", " GB", " TB")
COSTS: dict[str, Callable[[Cost], str]] = {
    "trained tokens": lambda c: _scaled(c.trained_tokens, COUNTS),
    "sampled tokens": lambda c: _scaled(c.sampled_tokens, COUNTS),
    "train time": lambda c: _seconds(c.train_seconds),
    "tokens/s": lambda c: _scaled(c.tokens_per_second and round(c.tokens_per_second), COUNTS),
    "peak memory": lambda c: _scaled(c.peak_bytes, BYTES),
    "trainable": lambda c: _scaled(c.trainable_parameters, COUNTS),
    "artifact": lambda c: _scaled(c.artifact_bytes, BYTES),
    "answer time": lambda c: _seconds(c.generate_seconds),
    "answer tokens": lambda c: _scaled(c.generated_tokens, COUNTS),
}


PARETO: dict[str, Callable[[Cost], float | None]] = {
    "trained tokens": lambda c: c.trained_tokens,
    "train time": lambda c: c.train_seconds,
    "peak memory": lambda c: c.peak_bytes,
    "trainable": lambda c: c.trainable_parameters,
    "artifact": lambda c: c.artifact_bytes,
    "answer time": lambda c: c.generate_seconds,
}


def _costs(table: Table, named: tuple[str, ...], names: Sequence[tuple[str, ...]], width: int) -> Iterator[Section]:
    known = [t for t in COSTS if t != "sampled tokens" or any(row.cost.sampled_tokens for row in table.rows)]
    blocks = _blocks([max(len(title), 8) + 3 for title in known], [True] * len(known), width)
    for number, places in enumerate(blocks):
        titles = [known[p] for p in places]
        lines = [
            (*name, *(COSTS[title](row.cost) for title in titles)) for name, row in zip(names, table.rows, strict=True)
        ]
        yield Section("Cost" + (", continued" if number else ""), (*named, *titles), tuple(lines), len(named))


def _phases(table: Table, named: tuple[str, ...], names: Sequence[tuple[str, ...]], width: int) -> Iterator[Section]:
    """Where the training time of each row went; a row that was not trained is not in it."""
    found = [
        (name, row.cost.train_phases) for name, row in zip(names, table.rows, strict=True) if row.cost.train_phases
    ]
    titles = sorted({phase for _, phases in found for phase in phases}, key=_when)
    blocks = _blocks([max(len(title), 8) + 3 for title in titles], [True] * len(titles), width)
    for number, places in enumerate(blocks):
        chosen = [titles[p] for p in places]
        lines = [(*name, *(_seconds(phases.get(title)) for title in chosen)) for name, phases in found]
        heading = "Train time by phase" + (", continued" if number else "")
        yield Section(heading, (*named, *chosen), tuple(lines), len(named))


def _when(phase: str) -> tuple[int, str]:
    """Phases in the order in which a step has them; those of single methods after the loop's own."""
    order = ("curate", "open", "engine", "data", "refresh", "rollout", "reward", "forward", "backward", "optimizer")
    last = ("checkpoint", "save")
    if phase in last:
        return len(order) + 1 + last.index(phase), phase
    return (order.index(phase) if phase in order else len(order)), phase


def _pareto(table: Table) -> Iterator[Section]:
    """For each headline the rows that no other row beats in both score and cost, the cheapest first."""
    several = len({row.model for row in table.rows}) > 1
    cost_of = PARETO[table.pareto]
    for at, column in enumerate(table.columns):
        if not column.headline:
            continue
        points = [
            (row, cost, estimate)
            for row in table.rows
            if (cost := cost_of(row.cost)) is not None and (estimate := row.entries[at].estimate) is not None
        ]
        best = front([(cost, estimate.value or 0.0) for _, cost, estimate in points])
        lines = [
            (
                *((row.model,) if several else ()),
                row_label(row),
                COSTS[table.pareto](row.cost),
                number_of(estimate, column.percent),
            )
            for (row, _, estimate), stays in sorted(zip(points, best, strict=True), key=lambda pair: pair[0][1])
            if stays
        ]
        header = (*(("model",) if several else ()), "method", table.pareto, label_of(column))
        heading = f"Not beaten in both {label_of(column)} and {table.pareto}, by point values"
        yield Section(heading, header, tuple(lines), len(header) - 2)


def _tuning(table: Table, named: tuple[str, ...], names: Sequence[tuple[str, ...]]) -> Iterator[Section]:
    """Every trained row with how its parameters were found, if any were searched for."""
    if not any(row.tuning for row in table.rows):
        return
    lines = [
        (*name, *_searched(row))
        for name, row in zip(names, table.rows, strict=True)
        if row.trained and row.level == "method"
    ]
    header = ("parameters", "trials", "default loss", "tuned loss", "trial tokens", "trial time")
    yield Section("Tuning (loss on held-out training rows)", (*named, *header), tuple(lines), len(named) + 1)


def _searched(row: Row) -> tuple[str, ...]:
    found = row.tuning
    if found is None:
        return ("default", *(DASH,) * 5)
    ended = [f"{n} {how}" for n, how in ((found.diverged, "diverged"), (found.failed, "failed")) if n]
    losses = ["diverged" if x is None else f"{x:.4f}" for x in (found.default_loss, found.loss)]
    return (
        ", ".join(f"{name} {value:.4g}" for name, value in found.parameters.items()),
        f"{found.trials}" + (f" ({', '.join(ended)})" if ended else ""),
        *losses,
        _scaled(row.cost.tuning_tokens, COUNTS),
        _seconds(row.cost.tuning_seconds),
    )


def _legend(table: Table) -> Section:
    """What each column is, so that a number can be traced to how it was measured."""
    lines = [
        (
            label_of(c),
            c.suite,
            c.metric if not c.of_tasks else f"mean of {', '.join(c.of_tasks)}",
            DASH if c.chance is None else rounded(c.chance, c.percent),
            c.protocol[:12],
        )
        for c in table.columns
    ]
    return Section(
        f"Columns ({HEADLINE} headline of its suite)",
        ("column", "suite", "metric", "chance", "protocol"),
        tuple(lines),
        5,
    )
