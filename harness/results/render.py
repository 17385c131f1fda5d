"""A table for people: Markdown, and rich renderables for a terminal. Both show the same words; neither computes."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from harness.results.sections import (
    DASH,
    INTERVAL_WIDTH,
    Footnotes,
    Section,
    count_of,
    label_of,
    sections,
    value_of,
)
from harness.results.table import CUT, Table, row_label

if TYPE_CHECKING:
    from rich.console import RenderableType


# An underscore inside a word, an `&` that begins no entity, an `@` without a name or domain and a colon without `//` do
# nothing, and stay as they are.
_MARKUP = re.compile(
    r"""[\\`*\[\]<>|~$] | (?<!\w)_+ | _+(?!\w) | (?<!\S)\# | &(?=\#?\w+;)
        | :(?=//) | (?<=www)\. | (?<!\w)@ | @(?=\S*\.)""",
    re.VERBOSE | re.IGNORECASE,
)
# GitHub looks for formulas and addresses of mail in text whose backslashes are gone already.
_NOT_BY_BACKSLASH = {"<": "&lt;", ">": "&gt;", "$": "<span>$</span>", "@": "<span>@</span>"}
_NUMBER = r"-?(?:\d+(?:\.\d+)?(?:e[+-]?\d+)?|inf|nan)"
_NUMBERS = re.compile(rf"\\\[({_NUMBER}(?:, {_NUMBER})?)\\\](?!\()")
# What begins a list, a heading or a table where it stands first in a line.
_BLOCK = re.compile(r"^(\d{1,9}|)([.)+-](?= |$)|:?-+:?$|=+$)")


def markdown(table: Table, *, width: int = 120) -> str:
    """The whole table. Columns that do not fit in `width` characters follow in further blocks, headlines first."""
    footnotes = Footnotes()
    parts = [markdown_section(s) for s in sections(table, footnotes, width, INTERVAL_WIDTH)]
    return "\n\n".join([*parts, _notes(table, footnotes, width)]) + "\n"


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
        line: tuple[str, ...] = (column.suite, label_of(column), column.metric, count_of(table.rows, place))
        for entry in (row.entries[place] for row in table.rows):
            notes = tuple(n for n in (*column.notes, *entry.notes) if not n.startswith(CUT))
            cut = DASH if entry.truncated is None else f"{100 * entry.truncated:.0f}"
            seconds = DASH if entry.seconds is None else f"{entry.seconds:.1f}"
            line = (*line, value_of(replace(entry, notes=notes), column, footnotes), cut, seconds)
        lines.append(line)
    model = f" of {table.rows[0].model}" if len({row.model for row in table.rows}) == 1 else ""
    parts = [markdown_section(Section(f"Scores{model}", header, tuple(lines), 3))]
    return "\n\n".join([*parts, _notes(table, footnotes, 120)]) + "\n"


def terminal(table: Table, *, width: int = 120) -> RenderableType:
    """The same for a rich console that is `width` columns wide, with intervals under their values."""
    from rich import box
    from rich.console import Group
    from rich.table import Table as Grid
    from rich.text import Text

    footnotes = Footnotes()
    parts: list[RenderableType] = []
    for section in sections(table, footnotes, width, INTERVAL_WIDTH - 5):
        grid = Grid(title=section.heading, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1))
        for place, name in enumerate(section.header):
            grid.add_column(Text(name), justify="left" if place < section.left else "right", overflow="fold")
        for line in section.lines:
            grid.add_row(*(Text(text.replace(" [", "\n[")) for text in line))
        parts.append(grid)
    marks = [f"{mark} {text}" for mark, text in footnotes.marked()]
    return Group(*parts, *(Text(line) for line in [*table.notes, *marks]))


def _notes(table: Table, footnotes: Footnotes, width: int) -> str:
    lines = [*map(escape, table.notes), *(f"{mark} {escape(text)}" for mark, text in footnotes.marked())]
    wrapped = (textwrap.wrap(line, width - 2, break_long_words=False, break_on_hyphens=False) for line in lines)
    return "\n".join("- " + "\n  ".join(_BLOCK.sub(r"\1\\\2", line) for line in note) for note in wrapped)


def escape(text: str) -> str:
    """Text that GitHub's Markdown shows as it stands: no markup, no HTML, no links, no formulas, one line."""
    return _MARKUP.sub(_as_text, " ".join(text.split()))


def _as_text(found: re.Match[str]) -> str:
    marks = found.group()
    return _NOT_BY_BACKSLASH.get(marks) or "".join(f"\\{character}" for character in marks)


def markdown_section(section: Section) -> str:
    """A heading and a table of equal widths."""
    rows = [[_cell(text) for text in line] for line in (section.header, *section.lines)]
    widths = [max(3, *(len(row[i]) for row in rows)) for i in range(len(section.header))]
    left = [i < section.left for i in range(len(widths))]

    def line(cells: Sequence[str]) -> str:
        padded = (c.ljust(w) if is_left else c.rjust(w) for c, w, is_left in zip(cells, widths, left, strict=True))
        return f"| {' | '.join(padded)} |"

    rule = ["-" * w if is_left else "-" * (w - 1) + ":" for w, is_left in zip(widths, left, strict=True)]
    return "\n".join([f"**{escape(section.heading)}**", "", line(rows[0]), line(rule), *map(line, rows[1:])])


def _cell(text: str) -> str:
    """Escaped, but for the brackets of intervals and counts: around numbers and not before `(`, they do nothing."""
    return _NUMBERS.sub(r"[\1]", escape(text))
