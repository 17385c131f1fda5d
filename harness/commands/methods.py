"""`harness methods`: every method, or one with its hooks and parameters; or the table of docs/methods.md."""

from __future__ import annotations

import argparse
import inspect
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.commands.text import as_json, columns

if TYPE_CHECKING:
    from harness.results.relative import Spent

BOUNDS = {"exclusiveMinimum": ">", "minimum": ">=", "exclusiveMaximum": "<", "maximum": "<="}
TYPES = {"integer": "whole number", "string": "text", "boolean": "true or false", "null": "nothing"}


def methods(args: argparse.Namespace) -> int:
    """The command."""
    from harness import methods as registry

    if args.markdown:
        from harness.results.relative import relative_costs

        print(page([args.name] if args.name else sorted(registry.OURS), relative_costs(Path("leaderboards"))))
        return 0
    return _one(args.name, json_wanted=args.json) if args.name else _all(json_wanted=args.json)


def page(names: Sequence[str], costs: Mapping[str, Spent]) -> str:
    """Methods as one Markdown table. costs: of training, beside `sft`, by name."""
    from harness import methods as registry

    head = ("method", "system", "paper", "family", "verified against", "served as")
    cost = ("forward tokens", "backward tokens", "seconds", "peak memory")
    lines = [f"| {' | '.join((*head, *cost))} |", "|" + "---|" * len(head) + "--:|" * len(cost)]
    for name in names:
        about = _about(registry.load(name))
        spent = costs.get(name)
        times = [spent.forward, spent.backward, spent.seconds, spent.peak] if spent else []
        cells = (
            f"`{name}`",
            *(about[key] or "–" for key in ("system", "paper", "family", "verified", "served")),
            *([f"{each:.2f}" for each in times] or ["–"] * len(cost)),
        )
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines)


def _all(*, json_wanted: bool) -> int:
    """Name, family, how it is served, hooks, parameters, paper."""
    from harness import methods

    rows = [_about(methods.load(name)) for name in methods.names()]
    if json_wanted:
        return as_json({"schema": "harness-methods", "version": 1, "methods": rows})
    lines = (
        (r["name"], r["family"], r["served"], _listed(r["hooks"]), _listed(r["parameters"]), r["paper"] or "-")
        for r in rows
    )
    print(columns(lines, ("METHOD", "FAMILY", "SERVED AS", "HOOKS", "PARAMETERS", "PAPER")))
    return 0


def _one(name: str, *, json_wanted: bool) -> int:
    """What it is, its hooks, its parameters with types, defaults and search ranges."""
    from harness import methods

    cls = methods.load(name)
    body = _about(cls)
    if json_wanted:
        return as_json({"schema": "harness-method", "version": 1, **body})
    print(f"{body['name']} ({body['family']}, version {body['version']})\n\n{body['about']}\n")
    for title, text in {
        "paper": body["paper"],
        "hooks": _listed(body["hooks"]),
        "needs": _listed(body["needs"]),
        "samples": _sampled(body["rollouts"]),
        "served as": body["served"],
        "verified against": body["verified"],
    }.items():
        print(f"{title}: {text or '-'}")
    properties = body["params_schema"].get("properties", {})
    rows = []
    for n, default in body["parameters"].items():
        about = properties.get(n, {})
        meaning = about.get("description", "")
        rows.append((n, type_of(about), json.dumps(default), _range(body["knobs"].get(n)), meaning))
    if rows:
        print(f"\n{columns(rows, ('PARAMETER', 'TYPE', 'DEFAULT', 'SEARCH', ''))}")
    if rows and cls.Params.__doc__:
        print(f"\n{inspect.cleandoc(cls.Params.__doc__)}")
    return 0


def _about(cls: Any) -> dict[str, Any]:
    from harness.methods.base import HOOKS, Method

    about, made = inspect.cleandoc(cls.__doc__ or ""), cls()
    return {
        "name": cls.name,
        "family": cls.family,
        "version": cls.version,
        "system": " ".join(about.split()).partition(". ")[0].partition(", arXiv")[0].rstrip("."),
        "artifact": cls.artifact if cls.trains else "nothing",
        "engine": made.engine or "any",
        "served": served(cls),
        "paper": cls.paper,
        "verified": cls.verified,
        "parameters": {n: _default(f) for n, f in cls.Params.model_fields.items()},
        "knobs": {n: list(r) for n, r in cls.knobs.items()},
        "needs": sorted(made.needs),
        "rollouts": dict(made.rollouts) if made.rollouts is not None else None,
        "hooks": [h for h in HOOKS if getattr(cls, h) is not getattr(Method, h)],
        "about": about,
        "params_schema": cls.Params.model_json_schema(),
    }


def _sampled(rollouts: Mapping[str, Any] | None) -> str:
    from harness.methods.sampling import Sampling

    if rollouts is None:
        return ""
    how = Sampling(**rollouts)
    return f"{how.n} answers a prompt, {how.max_tokens} tokens each at most" + (
        ", beside the row's own" if how.reference else ""
    )


def served(cls: Any) -> str:
    """What an engine is given, and which one where only one can."""
    what = {"full": "weights", "adapter": "adapter"}[cls.artifact] if cls.trains else "the base"
    engine = cls().engine  # may depend on the parameters
    return f"{what}, by {engine} only" if engine else what


def type_of(about: Mapping[str, Any]) -> str:
    """A parameter's type and bounds in words, from its JSON schema."""
    if "anyOf" in about:
        return " or ".join(type_of(each) for each in about["anyOf"])
    if "enum" in about or "const" in about:
        return " or ".join(json.dumps(value) for value in about.get("enum", [about.get("const")]))
    if "$ref" in about:
        return str(about["$ref"]).rpartition("/")[2]
    kind = str(about.get("type", "any"))
    if kind == "array":
        return f"list of {type_of(about.get('items') or (about.get('prefixItems') or [{}])[0])}"
    bounds = [f"{sign} {about[key]:g}" for key, sign in BOUNDS.items() if key in about]
    return f"{TYPES.get(kind, kind)} {' and '.join(bounds)}".rstrip()


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "-"


def _default(field: Any) -> Any:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    return value if isinstance(value, (bool, int, float, str, list, tuple, dict, type(None))) else str(value)


def _range(knob: Sequence[float] | None) -> str:
    return f"{knob[0]:g} to {knob[1]:g}" if knob else "-"
