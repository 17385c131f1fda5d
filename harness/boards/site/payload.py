"""The data of a board's pages: columns, rows, numbers with intervals, verdicts, places, costs and footnotes.

Numbers are in the metric's own unit, rounded to `DECIMALS`. Sentences stand once, and everything else names their
place. What a page shows of a difference is decided here (`verdicts`), never in the browser.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from harness import methods
from harness.boards.site import words
from harness.boards.site.about import About
from harness.boards.site.verdicts import places, verdicts
from harness.results.columns import Column
from harness.results.frame import Frame
from harness.results.stats import Estimate
from harness.results.table import Entry, Row, Table, row_label

SCHEMA, VERSION, DECIMALS = "harness-site", 1, 6
COSTS = (  # of Cost, how it is called, its unit
    ("trained_tokens", "trained tokens", "count"),
    ("sampled_tokens", "sampled tokens", "count"),
    ("train_seconds", "train time", "seconds"),
    ("tokens_per_second", "tokens/s", "count"),
    ("peak_bytes", "peak memory", "bytes"),
    ("trainable_parameters", "trainable", "count"),
    ("artifact_bytes", "artifact", "bytes"),
    ("flops", "training FLOPs", "count"),
    ("generate_seconds", "answer time", "seconds"),
    ("generated_tokens", "answer tokens", "count"),
    ("trials", "trials", "count"),
    ("tuning_seconds", "tuning time", "seconds"),
)


class Sentences:
    """Every sentence once; what names it gives its place."""

    def __init__(self) -> None:
        self.places: dict[str, int] = {}

    def place(self, sentence: str) -> int:
        return self.places.setdefault(sentence, len(self.places))

    def all(self, sentences: Sequence[str]) -> list[int]:
        return [self.place(s) for s in dict.fromkeys(sentences) if s]


def make_payload(about: About, frame: Frame, table: Table) -> dict[str, Any]:
    """Everything that `board.js` holds."""
    said = Sentences()
    numbers = {cell.view.name: number for number, cell in enumerate(frame.cells)}
    known = verdicts(table)
    ranked = places(frame, table)
    notes = words.notes(table, words.judged(known, table), words.any_tiers(ranked))
    rows = [_row(row, place, numbers, known, said) for place, row in enumerate(table.rows)]
    columns = [_column(column, said) for column in table.columns]
    return {
        "schema": SCHEMA,
        "version": VERSION,
        "name": about.name,
        "title": about.title,
        "baseline": table.baseline,
        "notes": [*notes, *about.notes],
        "reproduce": about.reproduce,
        "links": [list(link) for link in about.links],
        "suites": list(dict.fromkeys(column.suite for column in table.columns)),
        "columns": columns,
        "cost_names": [name for name, _, _ in COSTS],
        "costs": [list(cost) for cost in COSTS if any(getattr(r.cost, cost[0]) is not None for r in table.rows)],
        "rows": rows,
        "places": ranked,
        "cells": [{n: getattr(c.view, n) for n in ("name", "model", "method", "seed")} for c in frame.cells],
        "measured": _measured(frame),
        "sentences": list(said.places),
    }


def _column(column: Column, said: Sentences) -> dict[str, Any]:
    return {
        **{name: getattr(column, name) for name in ("label", "suite", "task", "metric", "headline", "protocol")},
        **{name: getattr(column, name) for name in ("items", "whole", "chance", "percent")},
        "parts": list(column.of_tasks),
        "notes": said.all(column.notes),
    }


def _row(
    row: Row, place: int, numbers: Mapping[str, int], known: Mapping[tuple[int, int], str], said: Sentences
) -> dict[str, Any]:
    return {
        "label": row_label(row),
        **{name: getattr(row, name) for name in ("level", "model", "method", "state", "reason", "trained")},
        "families": _families(row.method),
        "seeds": list(row.seeds),
        "cells": [numbers[name] for name in row.cells],
        "notes": said.all(row.notes),
        "cost": [_rounded(getattr(row.cost, name)) for name, _, _ in COSTS],
        "entries": [_entry(entry, known.get((place, at), ""), said) for at, entry in enumerate(row.entries)],
    }


def _families(method: str) -> list[str]:
    """Of the members of a stack; a method that is not installed here has none."""
    known = set(methods.names())
    members = [name.partition("[")[0] for name in method.split("+")]
    return list(dict.fromkeys(methods.load(name).family for name in members if name in known))


def _entry(entry: Entry, verdict: str, said: Sentences) -> dict[str, Any]:
    """v, l, h: value and interval; n; d: the same of the difference, with its verdict; p: corrected; m: notes."""
    body: dict[str, Any] = {}
    if entry.state != "ok":
        body["state"] = entry.state
        body["reason"] = said.place(entry.reason)
    if entry.estimate is not None:
        body |= {**_numbers(entry.estimate), "n": entry.estimate.n, "seeds": entry.estimate.seeds}
    if entry.difference is not None:
        body["d"] = _numbers(entry.difference) | {"verdict": verdict}
        if entry.difference.reason:
            body["d"]["reason"] = said.place(entry.difference.reason)
    if entry.notes:
        body["m"] = said.all(entry.notes)
    return body


def _numbers(estimate: Estimate) -> dict[str, Any]:
    named = (("v", estimate.value), ("l", estimate.low), ("h", estimate.high))
    return {name: _rounded(value) for name, value in named if value is not None}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, DECIMALS) + 0.0 if isinstance(value, float) else value


def _measured(frame: Frame) -> dict[str, dict[str, str]]:
    """What each protocol digest stands for, field by field, as text."""
    found: dict[str, dict[str, str]] = {}
    for cell in frame.cells:
        for result in cell.results:
            if result.task.protocol not in found:
                found[result.task.protocol] = dict(_flat("", result.task.measured))
    return found


def _flat(name: str, value: Any) -> list[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        return [pair for key in value for pair in _flat(f"{name}.{key}" if name else str(key), value[key])]
    return [(name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str))]
