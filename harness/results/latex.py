r"""A table for a paper: LaTeX with booktabs, bold for the top tier, and a caption that says how the numbers were made.

Needs `\usepackage{booktabs}`. Headline columns alone, unless others are named; intervals in small type beside their
values. Text from models, methods and tasks is escaped, so that it prints as it stands.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from harness.errors import HarnessError, nearest
from harness.results.columns import Column
from harness.results.notes import unplaced
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
    "[": "{[}",  # after `\\\\` a bracket or an asterisk would belong to it
    "]": "{]}",
    "*": "{*}",
    "†": r"$^\dagger$",
    "–": "--",
}


def latex(table: Table, *, columns: Sequence[str] = ()) -> str:
    """A `table` environment. columns: labels; without any, the headlines.  HarnessError for a label there is not."""
    chosen = _chosen(table, columns)
    regimes = _regimes(table.columns, chosen)
    shown = replace(
        table,
        columns=tuple(table.columns[c] for c in chosen),
        rows=tuple(replace(row, entries=tuple(row.entries[c] for c in chosen)) for row in table.rows),
    )
    several = len({row.model for row in shown.rows}) > 1
    head = [*(["Model"] if several else []), "Method", *(escape(label_of(c)) for c in shown.columns)]
    bold = [_tells_apart(shown.rows, place) for place in range(len(chosen))]
    lines = [
        " & ".join(
            [
                *([escape(row.model)] if several else []),
                escape(row_label(row)),
                *(_cell(e, c, b) for e, c, b in zip(row.entries, shown.columns, bold, strict=True)),
            ]
        )
        for row in shown.rows
    ]
    aligned = "l" * (1 + several) + "r" * len(chosen)
    body = " \\\\\n".join(lines)
    return (
        "\\begin{table}\n\\centering\n"
        f"\\caption{{{_caption(shown, regimes, any(bold))}}}\n"
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


def _cell(entry: Entry, column: Column, bold: bool) -> str:
    if entry.estimate is None or entry.estimate.value is None:
        return entry.state if entry.state in ("diverged", "failed") else escape(DASH)
    value = rounded(entry.estimate.value, column.percent)
    if bold and entry.place is not None and entry.place.tier == 1:
        value = f"\\textbf{{{value}}}"
    return f"{value}{_interval(entry.estimate, column)}"


def _interval(estimate: Estimate, column: Column) -> str:
    if estimate.low is None or estimate.high is None:
        return ""
    low, high = (rounded(x, column.percent) for x in (estimate.low, estimate.high))
    return f" {{\\scriptsize [{low}, {high}]}}"


def _caption(shown: Table, regimes: Sequence[str], bold: bool) -> str:
    columns, ranked = shown.columns, any(e.place for row in shown.rows for e in row.entries)
    items = ", ".join(f"{c.label} {c.items}" for c in columns if c.items is not None)
    best = "bold: the top tier, not told apart from the best" if bold else "no row is told apart from the best"
    said = [
        "Scores" + (" in percent" if columns and all(c.percent for c in columns) else ""),
        *_test(shown.rows),
        "correction: Holm's, 5 %, over the methods of a model",
        *([best] if ranked else []),
        *([f"items: {items}"] if items else []),
        "brackets: 95 % intervals over items and training seeds (over items alone with one seed)",
        *(sentence.rstrip(".") for sentence in unplaced(shown.rows, columns)),
        *([f"regimes: {', '.join(regimes)}"] if regimes else []),
        *([f"protocols: {', '.join(f'{c.label} {c.protocol[:8]}' for c in columns)}"] if columns else []),
    ]
    return escape("; ".join(said) + ".")


def _test(rows: Sequence[Row]) -> Iterator[str]:
    """How many training seeds there are, and what test tells two rows apart."""
    seeds = sorted({len(row.seeds) for row in rows if row.trained and row.level == "method" and row.seeds})
    tests = []
    if seeds:
        yield f"training seeds a trained row: {', '.join(map(str, seeds))}"
    if seeds and seeds[-1] > 1:
        tests.append(
            "training seeds x items, crossed, by Student's t with the degrees of freedom of each of the two, not "
            "Satterthwaite's single number"
        )
    if seeds and seeds[0] == 1:
        tests.append("items only for a row of one training seed, which is told apart from no other")
    if any(e.estimate is not None and e.estimate.how == "bootstrap" for row in rows for e in row.entries):
        tests.append("paired bootstrap for a metric that is no mean")
    yield f"test: {', '.join(tests) or 'over items'}"


def _regimes(columns: Sequence[Column], chosen: Sequence[int]) -> list[str]:
    """The way of asking of each task behind the chosen columns, where it is known."""
    known = {c.label: c.regime for c in columns}
    tasks = dict.fromkeys(label for i in chosen for label in columns[i].of_tasks or (columns[i].label,))
    return [f"{label} {known[label]}" for label in tasks if known[label]]


def _tells_apart(rows: Sequence[Row], place: int) -> bool:
    """Whether a column has more than one tier: bold on every row would say nothing."""
    return any(found.tier > 1 for row in rows if (found := row.entries[place].place) is not None)
