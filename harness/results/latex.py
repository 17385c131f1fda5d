r"""A table for a paper: LaTeX with booktabs, bold for the top tier, and a caption that says how the numbers were made.

Needs `\usepackage{booktabs}`. Headline columns alone, unless others are named; intervals in small type on request. Text
from models, methods and tasks is escaped, so that it prints as it stands.
"""

from __future__ import annotations

from collections.abc import Sequence

from harness.errors import HarnessError, nearest
from harness.results.columns import Column
from harness.results.sections import DASH, label_of, rounded
from harness.results.stats import Estimate
from harness.results.table import Entry, Row, Table, row_label

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "†": r"$^\dagger$",
    "–": "--",
}


def latex(table: Table, *, columns: Sequence[str] = (), intervals: bool = True) -> str:
    """A `table` environment. columns: labels; without any, the headlines.  HarnessError for a label there is not."""
    chosen = _chosen(table, columns)
    several = len({row.model for row in table.rows}) > 1
    head = [*(["Model"] if several else []), "Method", *(escape(label_of(table.columns[c])) for c in chosen)]
    bold = [_tells_apart(table.rows, place) for place in range(len(table.columns))]
    lines = [
        " & ".join(
            [
                *([escape(row.model)] if several else []),
                escape(row_label(row)),
                *(_cell(row.entries[c], table.columns[c], intervals, bold[c]) for c in chosen),
            ]
        )
        for row in table.rows
    ]
    aligned = "l" * (1 + several) + "r" * len(chosen)
    body = " \\\\\n".join(lines)
    return (
        "\\begin{table}\n\\centering\n"
        f"\\caption{{{_caption(table, [table.columns[c] for c in chosen], intervals, any(bold))}}}\n"
        f"\\begin{{tabular}}{{{aligned}}}\n\\toprule\n{' & '.join(head)} \\\\\n\\midrule\n{body} \\\\\n\\bottomrule\n"
        "\\end{tabular}\n\\end{table}\n"
    )


def escape(text: str) -> str:
    """Text that LaTeX prints as it stands, on one line."""
    return "".join(_SPECIAL.get(character, character) for character in " ".join(text.split()))


def _chosen(table: Table, columns: Sequence[str]) -> list[int]:
    labels = [c.label for c in table.columns]
    for name in columns:
        if name not in labels:
            raise HarnessError(
                f"there is no column `{name}`", todo=nearest(name, labels) or f"known: {', '.join(labels)}"
            )
    return [i for i, c in enumerate(table.columns) if (c.label in columns if columns else c.headline)]


def _cell(entry: Entry, column: Column, intervals: bool, bold: bool) -> str:
    if entry.estimate is None or entry.estimate.value is None:
        return entry.state if entry.state in ("diverged", "failed") else escape(DASH)
    value = rounded(entry.estimate.value, column.percent)
    if bold and entry.place is not None and entry.place.tier == 1:
        value = f"\\textbf{{{value}}}"
    return f"{value}{_interval(entry.estimate, column)}" if intervals else value


def _interval(estimate: Estimate, column: Column) -> str:
    if estimate.low is None or estimate.high is None:
        return ""
    low, high = (rounded(x, column.percent) for x in (estimate.low, estimate.high))
    return f" {{\\scriptsize [{low}, {high}]}}"


def _caption(table: Table, columns: Sequence[Column], intervals: bool, bold: bool) -> str:
    seeds = sorted({len(row.seeds) for row in table.rows if row.trained and row.level == "method"})
    items = ", ".join(f"{c.label} {c.items}" for c in columns if c.items is not None)
    said = [
        "Scores" + (" in percent" if all(c.percent for c in columns) else ""),
        *([f"training seeds a trained row: {', '.join(map(str, seeds))}"] if seeds else []),
        *([f"items: {items}"] if items else []),
        *(
            ["brackets: 95 % intervals over items and training seeds (over items alone with one seed)"]
            if intervals
            else []
        ),
        *(["bold: the top tier, which Holm's test at 5 % cannot tell from the best"] if bold else []),
        *([f"protocols: {', '.join(f'{c.label} {c.protocol[:8]}' for c in columns)}"] if columns else []),
    ]
    return escape("; ".join(said) + ".")


def _tells_apart(rows: Sequence[Row], place: int) -> bool:
    """Whether a column has more than one tier: bold on every row would say nothing."""
    return any(found.tier > 1 for row in rows if (found := row.entries[place].place) is not None)
