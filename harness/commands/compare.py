"""`harness compare`: two methods, two cells, or all methods that two runs or two nights share, paired by sample."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from harness.commands.named import store_of, warn
from harness.commands.sides import Asked, find_side
from harness.commands.text import as_json, indented, line
from harness.errors import HarnessError

if TYPE_CHECKING:
    from harness.results.compare import Compared, Line, Side
    from harness.results.frame import CellResult, Frame, Result

REFUSED = 4
WORDS = {
    "better": "B is better",
    "worse": "B is worse",
    "undecided": "undecided",
    "items only": "one seed: not a finding",
}


def compare(args: argparse.Namespace) -> int:
    """The command. 4 where something that both sides have cannot be compared."""
    from harness.results import compare as comparing
    from harness.results.export import line_as_dict as as_dict

    store = store_of(args)
    sides = [find_side(args, text, store) for text in (args.a, args.b)]
    pairs = _pairs(*sides)
    compared = comparing.compare(pairs)
    changed = _software(
        sides[0].software([cell for _, a, _ in pairs for cell in a.cells]),
        sides[1].software([cell for _, _, b in pairs for cell in b.cells]),
    )
    shown = list(_examples(sides, pairs, args.examples)) if args.examples else []
    warn(store)
    if args.json:
        body = [{**vars(one), "lines": [as_dict(x) for x in one.lines]} for one in compared]
        as_json({"schema": "harness-compare", "version": 1, "compared": body, "software": changed, "examples": shown})
    else:
        print(_text(compared, changed, shown, args.margin))
    return REFUSED if any(x.refused for one in compared for x in one.lines) else 0


def _pairs(a: Asked, b: Asked) -> list[tuple[str, Side, Side]]:
    """What is compared with what: two methods on every model that both have, or equal methods of two runs."""
    from harness.results.compare import Side

    ours, theirs = _by_row(a.frame), _by_row(b.frame)
    if bool(a.chosen) != bool(b.chosen):
        raise HarnessError(
            "a method cannot be compared with a whole run",
            todo="name a method on both sides, RUN:METHOD, or on neither",
        )
    if a.chosen:
        found = [
            (model, Side(a.text, mine), Side(b.text, yours))
            for (model, _), mine in ours.items()
            for (other, _), yours in theirs.items()
            if model == other
        ]
    else:
        found = [
            (key[0], Side(f"{a.text}:{key[1]}", mine), Side(f"{b.text}:{key[1]}", theirs[key]))
            for key, mine in ours.items()
            if key in theirs
        ]
    if not found:
        models = (", ".join(sorted({model for model, _ in side})) for side in (ours, theirs))
        raise HarnessError("the two sides share nothing to compare", why="they have {}, and {}".format(*models))
    return found


def _by_row(frame: Frame) -> dict[tuple[str, str], tuple[CellResult, ...]]:
    rows: dict[tuple[str, str], tuple[CellResult, ...]] = {}
    for cell in frame.cells:
        key = cell.view.model, cell.view.row
        rows[key] = (*rows.get(key, ()), cell)
    return rows


def _software(a: Mapping[str, Sequence[str]], b: Mapping[str, Sequence[str]]) -> list[str]:
    """Packages that the two sides' steps ran with in different versions."""
    names = sorted(name for name in a.keys() | b.keys() if a.get(name) != b.get(name))
    return [f"{name} {_version(a.get(name))} and {_version(b.get(name))}" for name in names]


def _version(versions: Sequence[str] | None) -> str:
    return ", ".join(versions) if versions else "none"


def _examples(sides: Sequence[Asked], pairs: Sequence[tuple[str, Side, Side]], most: int) -> Iterator[dict[str, Any]]:
    """For every headline task samples that only one side got right, by the first seeds of the two."""
    from harness.results.items import name_items

    readers = [each.reader() for each in sides]
    for model, a, b in pairs:
        for ours in (r for r in a.cells[0].results if r.task.headline and r.samples is not None):
            theirs = _same_task(b.cells[0], ours)
            if theirs is None or theirs.samples is None:
                continue
            lines = [
                name_items(reader(cell.view.name, result.task) or ())
                for reader, cell, result in ((readers[0], a.cells[0], ours), (readers[1], b.cells[0], theirs))
            ]
            for right, names in _flipped(ours, theirs, most):
                for name in names:
                    yield {
                        "model": model,
                        "task": ours.task.task,
                        "item": name,
                        "only_right": right,
                        "a": _words(lines[0].get(name)),
                        "b": _words(lines[1].get(name)),
                    }


def _same_task(cell: CellResult, wanted: Result) -> Result | None:
    key = wanted.task.task, wanted.task.primary, wanted.task.protocol
    return next((r for r in cell.results if (r.task.task, r.task.primary, r.task.protocol) == key), None)


def _flipped(ours: Result, theirs: Result, n: int) -> Iterator[tuple[str, list[str]]]:
    """("A" or "B", items that this side alone got right)."""
    a, b = _by_item(ours), _by_item(theirs)
    for side, mine, other in (("A", a, b), ("B", b, a)):
        yield side, [item for item, value in mine.items() if value > other.get(item, value)][:n]


def _by_item(result: Result) -> dict[str, float]:
    samples = result.samples
    if samples is None or samples.values is None:
        return {}
    return dict(zip(samples.items, samples.values, strict=True))


def _words(sample: Mapping[str, Any] | None) -> dict[str, Any]:
    if sample is None:
        return {}
    return {name: sample.get(name) for name in ("prompt", "output", "answer", "target", "outcome") if name in sample}


# --- text -----------------------------------------------------------------------------------------------------------
def _text(
    compared: Sequence[Compared], changed: Sequence[str], shown: Sequence[Mapping[str, Any]], margin: float | None
) -> str:
    from harness.results.render import escape, markdown_section
    from harness.results.sections import Section

    header = ("suite", "task", "A", "B", "B - A", "p", "corrected", "detectable", "up", "down", "verdict")
    header = (*header, *((f"loss under {margin:g}",) if margin is not None else ()))
    parts = []
    for one in compared:
        lines = tuple(tuple(_line(x, margin)) for x in one.lines)
        heading = f"{one.model}: A is {one.a} ({_seeds(one, 0)}), B is {one.b} ({_seeds(one, 1)})"
        parts.append(markdown_section(Section(heading, header, lines, 2)))
    notes = [
        "Brackets hold 95 % intervals; p is two-sided. corrected: Holm over headlines (5 %), Benjamini-Hochberg over "
        "the other tasks (10 %), of one model. detectable: the smallest true difference found four times in five.",
        "up, down: items on which B, averaged over seeds, is better or worse than A. Undecided does not mean equal.",
        *(f"Asked of one side only: {', '.join(x)}." for one in compared for x in (one.only_a, one.only_b) if x),
        *(f"Not compared: {x.label}: {x.refused}." for one in compared for x in one.lines if x.refused),
        *([f"Software differs: {'; '.join(changed)}."] if changed else []),
    ]
    parts.append("\n".join(f"- {escape(note)}" for note in notes))
    parts += [_example(example) for example in shown]
    return "\n\n".join(parts)


def _seeds(one: Compared, side: int) -> str:
    found = {e.seeds for x in one.lines if (e := (x.a, x.b)[side]) is not None}
    return f"{max(found)} seed{'s' * (max(found) > 1)}" if found else "no results"


def _line(x: Line, margin: float | None) -> Iterator[str]:
    from harness.results.claims import non_inferior
    from harness.results.sections import DASH, HEADLINE, number_of, rounded

    percent = all(e is None or e.bounds is not None for e in (x.a, x.b))
    d, f = x.difference, x.finding
    yield from (x.suite, x.label + (HEADLINE if x.headline else ""))
    yield from (DASH if e is None else number_of(e, percent) for e in (x.a, x.b))
    yield DASH if d is None else number_of(d, percent, sign="+")
    yield DASH if d is None or d.p is None else f"{d.p:.3g}"
    yield DASH if f is None or f.adjusted is None else f"{f.adjusted:.3g}"
    yield DASH if d is None or d.mde is None else rounded(d.mde, percent)
    yield from (DASH, DASH) if d is None or d.flips is None else map(str, d.flips)
    yield "not comparable" if x.refused else DASH if f is None else WORDS[f.verdict]
    if margin is not None:
        shown = None if d is None else non_inferior(d, margin / 100 if percent else margin)
        yield {True: "shown", False: "not shown", None: DASH}[shown]


def _example(example: Mapping[str, Any]) -> str:
    head = f"--- {example['task']} {example['item']}: only {example['only_right']} is right"
    parts = [head]
    prompt = example["a"].get("prompt") or example["b"].get("prompt")
    if prompt:
        parts.append(f"prompt:\n{indented(prompt, '  | ')}")
    for side in ("a", "b"):
        said = example[side]
        parts.append(f"{side.upper()} answered:\n{indented(said.get('output') or '(the answer is not kept)', '  > ')}")
        if said.get("answer") is not None:
            parts.append(f"{side.upper()} extracted: {line(said['answer'])}")
    target = example["a"].get("target", example["b"].get("target"))
    if target is not None:
        parts.append(f"target: {line(target)}")
    return "\n".join(parts)
