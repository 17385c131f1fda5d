"""A table as one HTML page without scripts: the same rectangles as in Markdown, for a browser or an e-mail.

Everything that comes from models, methods and tasks is escaped. Pages with sorting, filters and samples are those of a
board (`harness.boards`).
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from harness.results.sections import Footnotes, Section, sections
from harness.results.table import Table

_WIDE = 10_000  # characters: a page scrolls sideways, so all columns stand side by side
_STYLE = """
:root { color-scheme: light dark; font: 16px/1.45 system-ui, sans-serif; }
body { margin: 2rem auto; max-width: 90rem; padding: 0 1rem; }
div { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding: 1rem 0 .5rem; }
th, td { padding: .25rem .75rem; text-align: right; white-space: nowrap; border-bottom: 1px solid #8884; }
th.name, td.name { text-align: left; }
thead th { border-bottom: 2px solid #888a; }
li { max-width: 60rem; }
"""


def html(table: Table, *, title: str) -> str:
    """A whole document."""
    footnotes = Footnotes()
    body = [_section(s) for s in sections(table, footnotes, _WIDE, 1)]
    notes = [*table.notes, *(f"{mark} {text}" for mark, text in footnotes.marked())]
    listed = "".join(f"<li>{escape(note)}</li>\n" for note in notes)
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{escape(title)}</h1>\n{''.join(body)}"
        f"<h2>Notes</h2>\n<ul>\n{listed}</ul>\n</body>\n</html>\n"
    )


def _section(section: Section) -> str:
    head = "".join(_cells("th", section.header, section.left, ' scope="col"'))
    lines = "".join(f"<tr>{''.join(_cells('td', line, section.left))}</tr>\n" for line in section.lines)
    return (
        f'<div tabindex="0"><table>\n<caption>{escape(section.heading)}</caption>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{lines}</tbody>\n</table></div>\n"
    )


def _cells(tag: str, line: tuple[str, ...], left: int, more: str = "") -> Iterator[str]:
    for place, text in enumerate(line):
        name = ' class="name"' if place < left else ""
        yield f"<{tag}{name}{more}>{escape(text)}</{tag}>"
