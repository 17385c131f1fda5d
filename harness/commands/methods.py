"""`harness methods`: every method, or one with its hooks and parameters."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any

from harness.commands.text import as_json, columns


def methods(args: argparse.Namespace) -> int:
    """The command."""
    return _one(args.name, json_wanted=args.json) if args.name else _all(json_wanted=args.json)


def _all(*, json_wanted: bool) -> int:
    """Name, family, what is left, parameters, paper."""
    from harness import methods

    rows = [_about(methods.load(name)) for name in methods.names()]
    if json_wanted:
        return as_json({"schema": "harness-methods", "version": 1, "methods": rows})
    lines = ((r["name"], r["family"], r["artifact"], ", ".join(r["parameters"]) or "-", r["paper"]) for r in rows)
    print(columns(lines, ("METHOD", "FAMILY", "LEAVES", "PARAMETERS", "PAPER")))
    return 0


def _one(name: str, *, json_wanted: bool) -> int:
    """What it is, its hooks, its parameters with defaults and search ranges."""
    from harness import methods

    body = _about(methods.load(name))
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


def _about(cls: Any) -> dict[str, Any]:
    from harness.methods.base import Method

    hooks = [h for h in vars(Method) if not h.startswith("_") and callable(getattr(Method, h)) and h != "Params"]
    return {
        "name": cls.name,
        "family": cls.family,
        "version": cls.version,
        "artifact": cls.artifact if cls.trains else "nothing",
        "engine": cls.engine or "any",
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


def _range(knob: Sequence[float] | None) -> str:
    return f"{knob[0]:g} to {knob[1]:g}" if knob else "-"
