"""What all plots share: colours, names that cannot break a layout, units, captions and files of deterministic bytes.

Figures are made and saved inside `style()`, which neither reads nor leaves settings of the user's Matplotlib.
"""

from __future__ import annotations

import re
import textwrap
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.digest import digest
from harness.results.columns import Column
from harness.results.table import Entry, Row, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BETTER, WORSE, GREY, FAINT, INK = "#0072b2", "#d55e00", "#8a8a8a", "#e9e9e9", "#222222"  # Okabe and Ito's
WIDTH = 9.0  # inches; with DPI what a README shows without shrinking letters below reading
DPI = 150
FONT = "DejaVu Sans"  # ships inside Matplotlib, so that every machine draws the same letters
OURS = {
    "text.parse_math": False,  # a name with two dollars is no formula
    "axes.formatter.useoffset": False,
    "axes.unicode_minus": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.labelsize": 8.5,
    "font.family": [FONT],
    "font.size": 8.5,
    "svg.hashsalt": "harness",
    "text.color": INK,
}


@dataclass(frozen=True)
class Plot:
    """name: of its files, without a suffix."""

    name: str
    figure: Figure


@contextmanager
def style() -> Iterator[None]:
    """Our settings over Matplotlib's own defaults, whatever the user has set."""
    from matplotlib import style as settings

    with settings.context(["default", OURS]):
        yield


def canvas(width: float, height: float) -> Figure:
    """An empty figure that no window knows of."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=DPI, layout="constrained")


def save(plot: Plot, folder: Path) -> list[Path]:
    """Write it as PNG and SVG; the files. The same figure gives the same bytes of SVG."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{plot.name}.{suffix}" for suffix in ("png", "svg")]
    with style():
        for path in paths:
            plot.figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    return paths


def clean(name: str, width: int = 26) -> str:
    """A name on one line of at most `width` letters that the font has; the middle of a longer one is left out."""
    text = " ".join(unicodedata.normalize("NFC", name).split())
    text = "".join(c if ord(c) in _letters() else "\N{WHITE SQUARE}" for c in text)
    if len(text) <= width:
        return text or "\N{WHITE SQUARE}"
    head = (width - 1) * 2 // 3
    return f"{text[:head]}\N{HORIZONTAL ELLIPSIS}{text[head + 1 - width :]}"


@cache
def _letters() -> frozenset[int]:
    from matplotlib import font_manager

    font = font_manager.get_font(font_manager.findfont(FONT))
    return frozenset(font.get_charmap()) - {n for n in range(0x2000) if unicodedata.category(chr(n)).startswith("C")}


def file_names(kind: str, models: Sequence[str]) -> dict[str, str]:
    """Of each model the name of its file: plain letters only, and no two the same."""
    if len(models) == 1:
        return {models[0]: kind}
    plain = {m: re.sub(r"[^A-Za-z0-9.-]+", "_", m).strip("._")[:60] or "model" for m in models}
    taken = [p.lower() for p in plain.values()]
    return {m: f"{kind}-{p}" + (f"-{digest(m)[:6]}" if taken.count(p.lower()) > 1 else "") for m, p in plain.items()}


def by_model(table: Table) -> dict[str, list[Row]]:
    """The rows of methods, without those of single seeds."""
    models: dict[str, list[Row]] = {}
    for row in table.rows:
        if row.level == "method":
            models.setdefault(row.model, []).append(row)
    return models


def scale(column: Column) -> float:
    """From the metric's own unit to what is shown."""
    return 100.0 if column.percent else 1.0


def headlines(table: Table) -> list[int]:
    """The places of the suites' headlines."""
    return [i for i, c in enumerate(table.columns) if c.headline]


def heading(column: Column, entries: Iterable[Entry], width: int = 34) -> str:
    """A column's label with how many items were scored."""
    found = sorted({e.estimate.n for e in entries if e.estimate is not None and e.estimate.n})
    n = "" if not found else f" (n = {span(found)})"
    return clean(column.label, width - len(n)) + n


def span(numbers: Sequence[int]) -> str:
    """`3`, or `1 to 3`."""
    return str(min(numbers)) if min(numbers) == max(numbers) else f"{min(numbers)} to {max(numbers)}"


def seeds_of(rows: Iterable[Row]) -> str:
    """How many seeds the scores of trained rows rest on, in words; seeds that are not done yet do not count."""
    counts = [e.estimate.seeds for row in rows if row.trained for e in row.entries if e.estimate is not None]
    if not counts:
        return "no trained method has a score"
    return f"{span(counts)} seed{'' if max(counts) == 1 else 's'} a trained method"


def absent(entry: Entry) -> str:
    """Why there is no difference to show, in a word or two."""
    if entry.state != "ok":
        return entry.state
    return "no baseline" if entry.difference is None else "refused"


def verdict_of(entry: Entry) -> str:
    """What the difference shows after correction; a difference without a test is undecided."""
    return entry.finding.verdict if entry.finding is not None else "undecided"


def entitle(figure: Figure, title: str, caption: Sequence[str]) -> None:
    """A title above and sentences below, wrapped to the figure's width."""
    width = figure.get_figwidth()
    figure.suptitle("\n".join(textwrap.wrap(title, int(width * 11))), x=0.01, ha="left", fontsize=10.5)
    lines = textwrap.wrap(" ".join(caption), int(width * 17))
    figure.supxlabel("\n".join(lines), x=0.01, ha="left", fontsize=7.5, color="#444444")


def signed(value: float, unit: float) -> str:
    """A difference as a cell shows it: points to one decimal, other units to three digits."""
    return (f"{unit * value:+.1f}" if unit == 100 else f"{value:+.3g}").replace("-", "\N{MINUS SIGN}")


def plain_ticks(axis: Any) -> None:
    """Numbers as people write them; Matplotlib's own of logarithmic axes are formulas."""
    from matplotlib.ticker import FuncFormatter

    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
