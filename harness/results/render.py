"""A table for people: Markdown, and rich renderables for a terminal. Both show the same words; neither computes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from harness.results.columns import Column
from harness.results.frame import Cost
from harness.results.stats import Estimate
from harness.results.table import CUT, Entry, Row, Table, row_label

if TYPE_CHECKING:
    from rich.console import RenderableType

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


def markdown(table: Table, *, width: int = 120) -> str:
    """The whole table. Columns that do not fit in `width` characters follow in further blocks, headlines first."""
    footnotes = Footnotes()
    parts = [_markdown_section(s) for s in _sections(table, footnotes, width, INTERVAL_WIDTH)]
    notes = [_escape(note) for note in table.notes]
    marks = [f"{str(n).translate(SUPERSCRIPTS)} {_escape(text)}" for text, n in footnotes.numbers.items()]
    return "\n\n".join([*parts, "\n".join(f"- {line}" for line in [*notes, *marks])]) + "\n"


def by_task(table: Table) -> str:
    """One line a column of the table; for every row its value, the share of cut answers and the seconds."""
    footnotes = Footnotes()
    several = len(table.rows) > 1
    header: tuple[str, ...] = ("suite", "task", "metric", "n")
    for row in table.rows:
        name = f"{row_label(row)} " if several else ""
        header = (*header, row_label(row) if several else "score", f"{name}cut %", f"{name}seconds")
    lines = []
    for place, column in enumerate(table.columns):
        line: tuple[str, ...] = (column.suite, _label(column), column.metric, _count(table.rows, place))
        for entry in (row.entries[place] for row in table.rows):
            notes = tuple(n for n in (*column.notes, *entry.notes) if not n.startswith(CUT))
            cut = DASH if entry.truncated is None else f"{100 * entry.truncated:.0f}"
            seconds = DASH if entry.seconds is None else f"{entry.seconds:.1f}"
            line = (*line, _value(replace(entry, notes=notes), column, footnotes), cut, seconds)
        lines.append(line)
    model = f" of {table.rows[0].model}" if len({row.model for row in table.rows}) == 1 else ""
    parts = [_markdown_section(Section(f"Scores{model}", header, tuple(lines), 3))]
    marks = [f"{str(n).translate(SUPERSCRIPTS)} {_escape(text)}" for text, n in footnotes.numbers.items()]
    return "\n\n".join([*parts, "\n".join(f"- {x}" for x in [*map(_escape, table.notes), *marks])]) + "\n"


def terminal(table: Table, *, width: int = 120) -> RenderableType:
    """The same for a rich console that is `width` columns wide, with intervals under their values."""
    from rich import box
    from rich.console import Group
    from rich.table import Table as Grid
    from rich.text import Text

    footnotes = Footnotes()
    parts: list[RenderableType] = []
    for section in _sections(table, footnotes, width, INTERVAL_WIDTH - 5):
        grid = Grid(title=section.heading, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1))
        for place, name in enumerate(section.header):
            grid.add_column(Text(name), justify="left" if place < section.left else "right", overflow="fold")
        for line in section.lines:
            grid.add_row(*(Text(text.replace(" [", "\n[")) for text in line))
        parts.append(grid)
    marks = [f"{str(n).translate(SUPERSCRIPTS)} {text}" for text, n in footnotes.numbers.items()]
    return Group(*parts, *(Text(line) for line in [*table.notes, *marks]))


def _sections(table: Table, footnotes: Footnotes, width: int, value_width: int) -> Iterator[Section]:
    several_models = len({row.model for row in table.rows}) > 1
    names = [(row.model,) * several_models + (row_label(row),) for row in table.rows]
    marked = [(*n[:-1], n[-1] + footnotes.mark(row.notes)) for n, row in zip(names, table.rows, strict=True)]
    named = ("model",) * several_models + ("method",)
    taken = sum(max(len(line[i]) for line in [named, *marked]) + 3 for i in range(len(named))) + 1
    model = "" if several_models or not table.rows else f" of {table.rows[0].model}"
    widths = [max(len(_label(c)), value_width) + 3 for c in table.columns]
    blocks = list(_blocks(widths, [c.headline for c in table.columns], width - taken))
    for number, places in enumerate(blocks):
        yield _scores(table, footnotes, places, named, marked, f"Scores{model}" + (", continued" if number else ""))
    compared = [i for i, row in enumerate(table.rows) if any(e.difference for e in row.entries)]
    for number, places in enumerate(blocks if compared else []):
        lines = [
            (*marked[i], *(_difference(table.rows[i].entries[p], table.columns[p], footnotes) for p in places))
            for i in compared
        ]
        header = (*named, *(_label(table.columns[p]) for p in places))
        heading = f"Difference to {table.baseline}" + (", continued" if number else "")
        yield Section(heading, header, tuple(lines), len(named))
    yield from _tuning(table, named, marked)
    yield from _costs(table, named, marked, width - taken)
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
    header = (*named, *(_label(c) + footnotes.mark(c.notes) for c in columns))
    counts = ("n", *("",) * (len(named) - 1), *(_count(table.rows, p) for p in places))
    lines = [
        (*name, *(_value(row.entries[p], table.columns[p], footnotes) for p in places))
        for name, row in zip(names, table.rows, strict=True)
    ]
    return Section(heading, header, (counts, *lines), len(named))


def _label(column: Column) -> str:
    return column.label + (HEADLINE if column.headline else "")


def _count(rows: Sequence[Row], place: int) -> str:
    """The items behind a column: one number, since a column holds one protocol; cells that lack some are marked."""
    counts = [e.n for row in rows if (e := row.entries[place].estimate) is not None]
    return str(max(counts)) if counts else DASH


def _value(entry: Entry, column: Column, footnotes: Footnotes) -> str:
    words = {"diverged": "diverged", "failed": "failed"}
    text = words.get(entry.state, DASH) if entry.estimate is None else _number(entry.estimate, column.percent)
    return text + footnotes.mark(entry.notes)


def _difference(entry: Entry, column: Column, footnotes: Footnotes) -> str:
    if entry.difference is None or entry.difference.value is None:
        return DASH + footnotes.mark([entry.difference.reason] if entry.difference else [])
    notes = [entry.difference.reason] if entry.difference.reason else []
    return _number(entry.difference, column.percent, sign="+") + footnotes.mark(notes)


def _number(estimate: Estimate, percent: bool, sign: str = "") -> str:
    """`31.0 [22.8, 40.6]`; without an interval, the value alone."""
    if estimate.value is None:
        return DASH
    value = _rounded(estimate.value, percent, sign)
    if estimate.low is None or estimate.high is None:
        return value
    return f"{value} [{_rounded(estimate.low, percent)}, {_rounded(estimate.high, percent)}]"


def _rounded(value: float, percent: bool, sign: str = "") -> str:
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
    "train time": lambda c: _seconds(c.train_seconds),
    "tokens/s": lambda c: _scaled(c.tokens_per_second and round(c.tokens_per_second), COUNTS),
    "peak memory": lambda c: _scaled(c.peak_bytes, BYTES),
    "trainable": lambda c: _scaled(c.trainable_parameters, COUNTS),
    "artifact": lambda c: _scaled(c.artifact_bytes, BYTES),
    "answer time": lambda c: _seconds(c.generate_seconds),
    "answer tokens": lambda c: _scaled(c.generated_tokens, COUNTS),
}


def _costs(table: Table, named: tuple[str, ...], names: Sequence[tuple[str, ...]], width: int) -> Iterator[Section]:
    blocks = _blocks([max(len(title), 8) + 3 for title in COSTS], [True] * len(COSTS), width)
    for number, places in enumerate(blocks):
        titles = [list(COSTS)[p] for p in places]
        lines = [
            (*name, *(COSTS[title](row.cost) for title in titles)) for name, row in zip(names, table.rows, strict=True)
        ]
        yield Section("Cost" + (", continued" if number else ""), (*named, *titles), tuple(lines), len(named))


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
            _label(c),
            c.suite,
            c.metric if not c.of_tasks else f"mean of {', '.join(c.of_tasks)}",
            DASH if c.chance is None else _rounded(c.chance, c.percent),
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


def _escape(text: str) -> str:
    """Text that Markdown shows as it stands: no markup, no HTML, one line."""
    text = " ".join(text.split())
    for character in "\\`*[]<>|":
        text = text.replace(
            character, f"\\{character}" if character not in "<>" else {"<": "&lt;", ">": "&gt;"}[character]
        )
    return text


def _markdown_section(section: Section) -> str:
    rows = [[_cell(text) for text in line] for line in (section.header, *section.lines)]
    widths = [max(3, *(len(row[i]) for row in rows)) for i in range(len(section.header))]
    left = [i < section.left for i in range(len(widths))]

    def line(cells: Sequence[str]) -> str:
        padded = (c.ljust(w) if is_left else c.rjust(w) for c, w, is_left in zip(cells, widths, left, strict=True))
        return f"| {' | '.join(padded)} |"

    rule = ["-" * w if is_left else "-" * (w - 1) + ":" for w, is_left in zip(widths, left, strict=True)]
    return "\n".join([f"**{_escape(section.heading)}**", "", line(rows[0]), line(rule), *map(line, rows[1:])])


def _cell(text: str) -> str:
    return _escape(text).replace("\\[", "[").replace("\\]", "]")
