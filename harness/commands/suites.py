"""`harness suites`: the suites and their tasks, and whether the data of each are at hand here."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from harness.commands.named import where_of
from harness.commands.text import as_json, columns
from harness.errors import HarnessError

if TYPE_CHECKING:
    from harness.evaluation.suite import Suite
    from harness.planning.plan import Where


def suites(args: argparse.Namespace) -> int:
    """The command: every suite, or one."""
    from harness.evaluation.suite import load_suite, suite_names

    if args.markdown:
        print(page(map(load_suite, [args.name] if args.name else suite_names())))
        return 0
    where = where_of(args)
    bodies: list[dict[str, Any]] = []
    for suite in map(load_suite, [args.name] if args.name else suite_names()):
        rows = [_row(suite, name, where) for name in suite.tasks]
        bodies.append({"suite": suite.name, "about": suite.about, "means": dict(suite.means), "tasks": rows})
    if args.json:
        return as_json({"schema": "harness-suites", "version": 1, "suites": bodies})
    for body in bodies:
        print(_text(body) + "\n")
    print("* measured only when a matrix names it, or says `tasks: all`")
    print("`harness tasks NAME` shows all that is sent and scored")
    return 0


def page(suites: Iterable[Suite]) -> str:
    """All tasks as one Markdown table, from the suite files alone: the same on every machine."""
    lines = ["| suite | task | regime | metrics, the shown one first | rows | source | licence |", "|" + "---|" * 7]
    for suite in suites:
        for name, form in suite.tasks.items():
            mark = "\\*" if form.extra else ""
            metrics = ", ".join(f"`{metric}`" for metric in (form.metric, *form.also))
            source = f"`{form.data[0].source}`" if form.data else f"lm-eval's `{form.lm_eval}`"
            cells = (suite.name, f"`{name}`{mark}", form.regime, metrics, form.published or "", source, form.licence)
            lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def _row(suite: Suite, name: str, where: Where) -> dict[str, Any]:
    """One task. Data that would be asked of the hub count as not at hand when it may not be asked."""
    from harness.evaluation.suite import resolve

    form = suite.tasks[name]
    row: dict[str, Any] = {
        "task": name,
        "kind": "",
        "regime": form.regime,
        "rows": None,
        "published": form.published,
        "metric": form.metric,
        "also": form.also,
        "chance": form.chance,
        "licence": form.licence,
        "headline": form.headline,
        "extra": form.extra,
        "instead_of": form.instead_of,
        "at_hand": False,
        "data": "",
        "needs": "",
    }
    try:  # the hub is not asked: a listing of fifty tasks would take as many questions
        task = resolve(suite, name, None, where.mirror, offline=True)
    except HarnessError as error:  # a task that cannot be measured here does not hide the others
        return row | {"needs": f"{error.what}{'; ' if error.todo else ''}{error.todo}"}
    kind = "head" if form.head else "judged" if form.judge else task.kind
    row |= {"kind": kind, "rows": task.source.count, "data": task.source.label, "at_hand": not task.lacking}
    on_hub = not where.offline and all(source.spec.startswith("hub:") for source in task.lacking)
    needs = ["it is fetched from the hub when it is measured"] if on_hub else [source.needs for source in task.lacking]
    return row | {"needs": "; ".join(dict.fromkeys(needs)) if task.lacking else ""}


def _text(body: dict[str, Any]) -> str:
    """A suite: its tasks, what those need whose data are not at hand, and its means."""
    head = ("  TASK", "KIND", "REGIME", "ROWS", "METRIC", "CHANCE", "LICENCE", "DATA")
    parts = [f"{body['suite']}: {body['about']}".rstrip(), columns(map(_line, body["tasks"]), head)]
    needs: dict[str, list[str]] = {}
    for row in body["tasks"]:
        if row["needs"]:
            needs.setdefault(row["needs"], []).append(row["task"])
    parts += [f"  not at hand: {', '.join(names)}: {need}" for need, names in needs.items()]
    parts += [f"  mean `{mean}`: {', '.join(names)}" for mean, names in body["means"].items()]
    return "\n".join(parts)


def _line(row: dict[str, Any]) -> tuple[object, ...]:
    asked, published = row["rows"] or "?", row["published"]
    return (
        f"  {row['task']}{'*' if row['extra'] else ''}",
        row["kind"],
        row["regime"],
        asked if published in (None, row["rows"]) else f"{asked} of {published}",
        row["metric"],
        f"{row['chance']:g}",
        row["licence"],
        f"{row['data']}{'' if row['at_hand'] else ', not at hand'}",
    )
