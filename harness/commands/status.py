"""`harness status`: how far every cell is, who works on it, and where the logs of what failed lie."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from harness.commands.named import store_of, view_named, warn
from harness.commands.text import as_json, columns

if TYPE_CHECKING:
    from harness.results.frame import CellView
    from harness.store import Store


def status(args: argparse.Namespace) -> int:
    """The command: one line a cell."""
    from harness.results.frame import collect

    store = store_of(args)
    run = view_named(args, store)
    rows: list[dict[str, Any]] = []
    for cell in collect(run.cells, store).cells:
        states = {r.task.key: r.state for r in cell.results}  # a task has a result for every metric that is shown
        rows.append(
            {
                "cell": cell.view.name,
                "tasks": dict(Counter[str](states.values())),
                "reasons": sorted({r.reason for r in cell.results if r.reason}),
                "working": _working(cell.view, store),
                "logs": _logs(cell.view, store),
            }
        )
    warn(store)
    if args.json:
        return as_json({"schema": "harness-status", "version": 1, "run": run.name, "cells": rows})
    text = [
        (
            r["cell"],
            ", ".join(f"{n} {state}" for state, n in r["tasks"].items()),
            r["working"] or "; ".join(r["reasons"]),
        )
        for r in rows
    ]
    print(columns(text, ("CELL", "TASKS", "")))
    for log in sorted({log for r in rows for log in r["logs"]}):
        print(f"log of what failed: {log}")
    return 0


def _steps(view: CellView) -> Iterator[tuple[str, str]]:
    """(kind, key) of every step of a cell, in the order in which they are done, each once."""
    named = [("data", data) for _, data in view.started.values()]
    named += [("tune", view.tune), ("data", view.data), *(("train", key) for key in view.train)]
    for t in view.scores:
        named += [("generate", t.generate), ("judge", t.judge), ("overlap", t.overlap), ("score", t.key)]
    yield from dict.fromkeys(step for step in named if step[1])


def _working(view: CellView, store: Store) -> str:
    """Who is working on a cell right now, in words, or nothing."""
    for kind, key in _steps(view):
        if holder := store.holder(kind, key):
            return f"{kind}: {holder}"
    return ""


def _logs(view: CellView, store: Store) -> list[str]:
    """Logs of the steps of a cell whose last attempt failed."""
    last = [past[-1] for kind, key in _steps(view) if (past := store.history(kind, key))]
    return sorted({e.log for e in last if e.outcome in ("failed", "dead") and e.log})
