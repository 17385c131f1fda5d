"""What the listing commands print: plans, states, methods, suites, garbage. Text for people, JSON for programs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.pending import Estimate, Todo
from harness.plan import Plan
from harness.progress import duration

if TYPE_CHECKING:
    from harness.results.frame import CellView
    from harness.runs import RunView
    from harness.store import Store


def columns(rows: Iterable[Sequence[object]], head: Sequence[str]) -> str:
    """Plain aligned columns, two spaces apart."""
    table = [[str(c) for c in row] for row in (head, *rows)]
    widths = [max(len(row[i]) for row in table) for i in range(len(head))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in table)


def as_json(body: Any) -> int:
    """Print JSON; exit code 0."""
    print(json.dumps(body, indent=1, ensure_ascii=False))
    return 0


def show_plan(plan: Plan, todo: Sequence[Todo], cost: Estimate, *, verbose: bool, json_wanted: bool) -> int:
    """Every step that would run, with its reason, then notes and the expected cost."""
    if json_wanted:
        steps = [
            {"cell": t.cell, "step": t.what, "kind": t.step.kind, "key": t.step.key, "reason": t.reason} for t in todo
        ]
        body = {
            "schema": "harness-plan",
            "version": 1,
            "matrix": plan.matrix.name,
            "cells": [c.name for c in plan.cells],
        }
        estimate = {"seconds": cost.seconds, "total_seconds": cost.total, "assumed": cost.assumed}
        return as_json({**body, "steps": steps, "notes": plan.notes, "estimate": estimate})
    print(f"{plan.matrix.name}: {len(plan.cells)} cells, {len(plan.steps())} steps, {len(todo)} to do")
    if todo:
        print()
        head = ("CELL", "STEP", "REASON", "KEY")[: 4 if verbose else 3]
        print(columns(((t.cell, t.what, t.reason, t.step.key)[: len(head)] for t in todo), head))
    if plan.notes:
        print()
        print("\n".join(f"note: {n}" for n in plan.notes))
    if todo:
        parts = ", ".join(f"{kind} {duration(s)}" for kind, s in cost.seconds.items())
        print(f"\nexpected: about {duration(cost.total)} ({parts})")
        if cost.assumed:
            print(f"  speed of {' and '.join(cost.assumed)} is assumed; nothing like it is in this store yet")
    return 0


def show_status(run: RunView, store: Store, *, json_wanted: bool) -> int:
    """One line a cell: its training, its tasks, what failed."""
    from harness.results.frame import collect

    frame = collect(run.cells, store)
    rows: list[dict[str, Any]] = []
    for cell in frame.cells:
        states = Counter[str](r.state for r in cell.results)
        reasons = sorted({r.reason for r in cell.results if r.reason})
        rows.append(
            {"cell": cell.view.name, "tasks": dict(states), "reasons": reasons, "working": _working(cell.view, store)}
        )
    if json_wanted:
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


def _working(view: CellView, store: Store) -> str:
    """Who is working on a cell right now, in words, or nothing."""
    steps = [("train", k) for k in view.train] + [(k, getattr(t, f)) for t in view.scores for k, f in _TASK_STEPS]
    for kind, key in steps:
        holder = store.holder(kind, key)
        if holder:
            return f"{kind}: {holder}"
    return ""


def _logs(view: CellView, store: Store) -> list[str]:
    """Logs of the steps of a cell whose last attempt failed."""
    steps = [("train", k) for k in view.train] + [(k, getattr(t, f)) for t in view.scores for k, f in _TASK_STEPS]
    last = [past[-1] for kind, key in steps if (past := store.history(kind, key))]
    return sorted({e.log for e in last if e.outcome in ("failed", "dead") and e.log})


_TASK_STEPS = (("generate", "generate"), ("score", "key"))


def show_methods(*, json_wanted: bool) -> int:
    """Every method: name, family, parameters, paper."""
    from harness import methods

    classes = [methods.load(name) for name in methods.names()]
    rows = [_method(c) for c in classes]
    if json_wanted:
        return as_json({"schema": "harness-methods", "version": 1, "methods": rows})
    lines = ((r["name"], r["family"], r["artifact"], ", ".join(r["parameters"]) or "-", r["paper"]) for r in rows)
    print(columns(lines, ("METHOD", "FAMILY", "LEAVES", "PARAMETERS", "PAPER")))
    return 0


def _method(cls: Any) -> dict[str, Any]:
    from harness.methods.base import Method

    hooks = [h for h in vars(Method) if not h.startswith("_") and callable(getattr(Method, h)) and h != "Params"]
    return {
        "name": cls.name,
        "family": cls.family,
        "version": cls.version,
        "artifact": cls.artifact if cls.trains else "nothing",
        "paper": cls.paper,
        "parameters": {n: _default(f) for n, f in cls.Params.model_fields.items()},
        "knobs": {n: list(r) for n, r in cls.knobs.items()},
        "hooks": [h for h in hooks if getattr(cls, h) is not getattr(Method, h)],
        "about": (cls.__doc__ or "").strip(),
        "params_schema": cls.Params.model_json_schema(),
    }


def _default(field: Any) -> Any:
    value = field.get_default(call_default_factory=True)
    return value if isinstance(value, (bool, int, float, str, list, dict, type(None))) else str(value)


def show_method(name: str, *, json_wanted: bool) -> int:
    """One method: what it is, its hooks, its parameters with defaults and search ranges."""
    from harness import methods

    body = _method(methods.load(name))
    if json_wanted:
        return as_json({"schema": "harness-method", "version": 1, **body})
    print(
        f"{body['name']} ({body['family']}, version {body['version']}, leaves: {body['artifact']})\n\n{body['about']}\n"
    )
    print(f"paper: {body['paper'] or '-'}\nhooks: {', '.join(body['hooks']) or 'none'}")
    properties = body["params_schema"].get("properties", {})
    rows = [
        (n, json.dumps(d), _range(body["knobs"].get(n)), properties.get(n, {}).get("description", ""))
        for n, d in body["parameters"].items()
    ]
    if rows:
        print()
        print(columns(rows, ("PARAMETER", "DEFAULT", "SEARCH", "MEANING")))
    return 0


def _range(knob: Sequence[float] | None) -> str:
    return f"{knob[0]:g} to {knob[1]:g}" if knob else "-"


def show_gc(store: Store, plans: Sequence[Plan], *, delete: bool, json_wanted: bool) -> int:
    """What could be removed and how much it holds; removed only with `delete`.

    With plans, steps that none of them needs can go too, and weights that their `keep` does not ask for.
    """
    from harness.driver import sheddable
    from harness.store import gc

    wanted = {(s.kind, s.key) for plan in plans for s in plan.steps().values()} if plans else None
    weights = [pair for plan in plans for cell in plan.cells for pair in sheddable(plan, cell, store)]
    found = gc.plan(store, wanted, weights)
    total = sum(r.bytes for r in found)
    if json_wanted:
        items = [{"path": str(r.path), "bytes": r.bytes, "why": r.why} for r in found]
        as_json({"schema": "harness-gc", "version": 1, "delete": delete, "bytes": total, "items": items})
    elif not found:
        print("nothing to delete")
    else:
        print(columns(((size(r.bytes), r.why, r.path) for r in found), ("SIZE", "WHY", "PATH")))
        print(f"\n{size(total)} could be freed" + ("" if delete else "; `harness gc --delete` does it"))
    if delete:
        freed = gc.carry_out(store, found)
        if not json_wanted:
            print(f"freed {size(freed)}")
    return 0


def size(count: float) -> str:
    """`12 B`, `3.4 MB`, `1.2 GB` (powers of 1000)."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def show_suites(name: str | None, *, mirror: Path | None, offline: bool, json_wanted: bool) -> int:
    """Every suite with the tasks that would be measured here, or one suite with all of its tasks."""
    from harness.evaluation.suite import choose_tasks, load_suite, suite_names

    names = [name] if name else suite_names()
    bodies: list[dict[str, Any]] = []
    for suite in (load_suite(n) for n in names):
        tasks, notes = choose_tasks(suite, mirror=mirror, offline=offline)
        chosen = {t.name: t for t in tasks}
        rows = [
            {
                "task": n,
                "measured": n in chosen,
                "regime": form.regime,
                "metric": form.metric,
                "chance": form.chance,
                "licence": form.licence,
                "items": chosen[n].of if n in chosen else None,
                "data": chosen[n].source.label if n in chosen else None,
            }
            for n, form in suite.tasks.items()
        ]
        bodies.append({"suite": suite.name, "about": suite.about, "tasks": rows, "notes": notes})
    if json_wanted:
        return as_json({"schema": "harness-suites", "version": 1, "suites": bodies})
    for body in bodies:
        print(f"{body['suite']}: {body['about']}")
        shown = [r for r in body["tasks"] if name or r["measured"]]
        lines = [
            (
                f"  {r['task']}",
                r["metric"],
                r["regime"],
                r["items"] or "-",
                r["data"] or "not measured here",
                r["licence"],
            )
            for r in shown
        ]
        print(columns(lines, ("  TASK", "METRIC", "REGIME", "ITEMS", "DATA", "LICENCE")))
        print("".join(f"  note: {n}\n" for n in body["notes"]))
    return 0
