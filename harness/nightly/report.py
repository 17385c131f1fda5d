"""The report of a night: Markdown for people, JSON for tools, JUnit for CI. The first line is the verdict.

What a model wrote is shown as code, on one line, escaped; nothing in it is rendered.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any
from xml.etree import ElementTree

from harness.nightly.attribution import summary
from harness.nightly.findings import Status, codes, verdict
from harness.nightly.procedure import Outcome

TITLES: dict[Status, str] = {
    "confirmed": "Confirmed",
    "refused": "Not comparable",
    "failed": "Failed or incomplete",
    "inconclusive": "Suspected, and undecided by fresh data",
    "no baseline": "Without a baseline",
    "improved": "Improved",
    "cleared": "Suspected, and cleared by fresh data",
    "warning": "Warnings",
}
ANSWER = 160  # characters shown of an answer


def as_json(outcome: Outcome) -> dict[str, Any]:
    """The whole outcome; `code` is the exit code, `codes` all that apply."""
    found = codes(outcome.findings)
    return {
        "schema": "harness-nightly",
        "version": 1,
        "night": outcome.night.name,
        "verdict": verdict(outcome.findings, outcome.night.name),
        "code": found[0],
        "codes": found,
        "accepted": outcome.baseline.night if outcome.baseline else None,
        "environment": outcome.facts["environment"],
        "machine": outcome.facts["machine"],
        "software": {name: list(pair) for name, pair in outcome.software.items()},
        "findings": [asdict(f) for f in outcome.findings],
        "bisect": [asdict(a) for a in outcome.attempts],
        "cause": summary(outcome.attempts) if outcome.attempts else "",
        "noise": {task: [n.flips, n.compared] for task, n in outcome.noise.items()},
        "costs": outcome.costs,
        "notes": outcome.notes,
    }


def markdown(body: dict[str, Any]) -> str:
    """From the JSON, so that an old report can be written again."""
    lines = [body["verdict"], "", f"Night {body['night']} on {_text(body['machine'])}, "]
    lines[-1] += f"compared with {body['accepted']}." if body["accepted"] else "the first of this board."
    lines[-1] += f" Exit code {body['code']}" + (f" of {body['codes']}." if len(body["codes"]) > 1 else ".")
    if body["cause"]:
        lines += ["", f"**Cause:** {_text(body['cause'])}"]
    for status, title in TITLES.items():
        found = [f for f in body["findings"] if f["status"] == status]
        if found:
            lines += ["", f"## {title}: {len(found)}", "", *_findings(found)]
    lines += ["", "## Software since the accepted night", "", *_software(body)]
    if body["bisect"]:
        lines += [
            "",
            "## One package at a time",
            "",
            *(f"- {_text(a['package'])}: {_text(a['text'])}" for a in body["bisect"]),
        ]
    if body["noise"]:
        lines += ["", "## Flips between repeated runs", ""]
        lines += [f"- {_text(task)}: {flips} of {of}" for task, (flips, of) in body["noise"].items()]
    if body["notes"]:
        lines += ["", "## Notes", "", *(f"- {_text(note)}" for note in body["notes"])]
    return "\n".join(lines) + "\n"


def _findings(found: Sequence[dict[str, Any]]) -> Iterator[str]:
    for f in found:
        place = " ".join(filter(None, [f["cell"], f["task"], f["metric"]])) or "the night"
        yield f"- **{_text(place)}** (gate {f['gate']}): {_text(f['text'])}{_numbers(f)}"
        yield from (f"  - {line}" for line in _examples(f["examples"]))
        if f["rerun"]:
            yield f"  - again: `{f['rerun']}`"


def _numbers(f: dict[str, Any]) -> str:
    parts = []
    if f["delta"] is not None and f["gate"] != "speed":
        interval = f" [{f['low']:+.4f}, {f['high']:+.4f}]" if f["low"] is not None else ""
        parts.append(f"delta {f['delta']:+.4f}{interval}")
    if f["q"] is not None:
        parts.append(f"q {f['q']:.2g}")
    return f"; {', '.join(parts)}" if parts else ""


def _examples(examples: Iterable[dict[str, Any]]) -> Iterator[str]:
    for e in examples:
        seed = "" if e["seed"] is None else f" seed {e['seed']}"
        answers = f"; {_code(e['answer_was'])} then, {_code(e['answer_now'])} now" if e["answer_was"] else ""
        yield f"item {_code(e['item'])}{seed}: {_code(e['was'])} -> {_code(e['now'])}{answers}"


def _software(body: dict[str, Any]) -> list[str]:
    if not body["accepted"]:
        return ["- there is no accepted night"]
    return [f"- {name} {old or 'absent'} -> {new or 'absent'}" for name, (old, new) in body["software"].items()] or [
        "- nothing differs"
    ]


def _text(text: str) -> str:
    """Words of ours with names from elsewhere in them: nothing in them is markup."""
    plain = " ".join(_printable(text).split())
    return "".join(f"\\{c}" if c in "\\`*_{}[]<>#|" else c for c in plain)


def _code(text: str) -> str:
    plain = " ".join(_printable(text).split()).replace("`", "'")
    return f"`{plain[:ANSWER] or ' '}`" + ("..." if len(plain) > ANSWER else "")


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() or c.isspace() else "�" for c in str(text))


def junit(body: dict[str, Any]) -> str:
    """A test suite in which every finding is a test; what needs somebody's hand is a failure or an error."""
    found = body["findings"] or [
        {"cell": "", "task": "night", "metric": "", "gate": "", "status": "passed", "text": ""}
    ]
    failures = sum(f["status"] in ("confirmed", "refused") for f in found)
    errors = sum(f["status"] == "failed" for f in found)
    skipped = sum(f["status"] in ("inconclusive", "no baseline") for f in found)
    counts = {"tests": len(found), "failures": failures, "errors": errors, "skipped": skipped}
    suite = ElementTree.Element("testsuite", {"name": "harness nightly", **{k: str(v) for k, v in counts.items()}})
    tags = {"confirmed": "failure", "refused": "failure", "failed": "error"}
    tags |= dict.fromkeys(("inconclusive", "no baseline"), "skipped")
    for f in found:
        name = " ".join(filter(None, [f["task"], f["metric"], f["gate"]])) or "night"
        case = ElementTree.SubElement(
            suite, "testcase", {"classname": _printable(f["cell"] or "night"), "name": _printable(name)}
        )
        if tag := tags.get(f["status"]):
            ElementTree.SubElement(case, tag, {"message": _printable(f["text"])})
        elif f["text"]:
            ElementTree.SubElement(case, "system-out").text = _printable(f["text"])
    ElementTree.SubElement(suite, "system-out").text = body["verdict"]
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def files(body: dict[str, Any]) -> dict[str, str]:
    """Name and content of the three."""
    return {"report.md": markdown(body), "junit.xml": junit(body), "report.json": json.dumps(body, indent=1) + "\n"}
