"""The end of a night: examples with both answers, the command that measures a finding again, `--bisect`, retention.

It adds to what `procedure.py` found and changes no verdict.
"""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from itertools import zip_longest
from pathlib import Path

from harness.engines.base import Response
from harness.nightly.attribution import Attempt, Overlays, bisect
from harness.nightly.findings import Example, Finding
from harness.nightly.history import FROZEN, Anchor, anchor_of, healthy, noise_for, utc_now
from harness.nightly.measure import Part, Setting
from harness.nightly.nights import Line, Night, Nights
from harness.nightly.procedure import Outcome, Procedure, stored_answers
from harness.results.frame import read_samples
from harness.results.items import name_items
from harness.steps.responses import read_responses
from harness.store import Store

Answers = Mapping[tuple[int | None, str], str]  # by seed and item
KEPT = 3  # nights whose stores stay, beside the accepted one
PART_OF = {"A": ("frozen-again", "frozen"), "replay": ("replay",), "B": ("fresh",), "drift": ("fresh",)}


def close(procedure: Procedure, *, matrix: str, find_cause: bool) -> Outcome:
    """Complete the outcome of a night."""
    outcome = procedure.outcome
    if outcome.baseline is None:
        return outcome
    anchor = anchor_of(procedure.nights, outcome.baseline)
    shown = [_with_token(_with_answers(f, anchor, outcome.night), anchor, outcome.night) for f in outcome.findings]
    outcome.findings = [_with_rerun(f, matrix, procedure.setting) for f in shown]
    if find_cause:
        outcome.attempts = _bisect(procedure, anchor)
    return outcome


def _with_rerun(finding: Finding, matrix: str, setting: Setting) -> Finding:
    if finding.status not in ("confirmed", "inconclusive", "failed", "improved") or not finding.cell:
        return finding
    gate = "b" if finding.gate in ("B", "drift") else "a"
    words = ["harness", "nightly", matrix, "--gate", gate, "--only", f"{finding.cell}*"]
    words += [part for value in setting.overrides for part in ("--set", value)]
    return replace(finding, rerun=shlex.join(words))


def _with_answers(finding: Finding, anchor: Anchor, night: Night) -> Finding:
    """The examples with the answers of both nights, where their stores are still there."""
    if not finding.examples or finding.what not in anchor.results:
        return finding
    parts = night.parts()
    name = next((part for part in PART_OF[finding.gate] if part in parts), None)
    line = next((each for each in parts[name][0] if each.what == finding.what), None) if name else None
    if line is None:
        return finding
    then, now = _answers(anchor.night, anchor.results[finding.what].line), _answers(night, line)
    return replace(finding, examples=tuple(_answered(e, then, now) for e in finding.examples))


def _with_token(finding: Finding, anchor: Anchor, night: Night) -> Finding:
    """Of a warning that items flipped under a deterministic engine: where answers first part from the stored ones."""
    lines = night.parts().get(FROZEN, ([], {}))[0]
    line = next((each for each in lines if each.what == finding.what), None)
    if (finding.gate, finding.status) != ("A", "warning") or line is None:
        return finding
    for key, now in _responses(night, line).items():
        then = _responses(anchor.night, anchor.results[finding.what].line).get(key)
        if then is not None and then.tokens != now.tokens:
            pairs = enumerate(zip_longest(then.tokens, now.tokens))
            place, (old, new) = next((i, pair) for i, pair in pairs if pair[0] != pair[1])
            return replace(
                finding, text=f"{finding.text}; request {key} differs first at token {place}: {old} -> {new}"
            )
    return finding


def _responses(night: Night, line: Line) -> dict[str, Response]:
    """By the key of the request, of every seed; nothing where the store is gone."""
    folder = night.folder / line.store
    if not folder.is_dir():
        return {}
    store, found = Store(folder), dict[str, Response]()
    for key in line.keys:
        score = store.find("score", key)
        record = store.find("generate", score.identity["generate"]) if score else None
        for response in read_responses(record.file("responses.jsonl")) if record else ():
            found.setdefault(response.key, response)
    return found


def _answered(
    example: Example, then: Mapping[tuple[int | None, str], str], now: Mapping[tuple[int | None, str], str]
) -> Example:
    place = (example.seed, example.item)
    return replace(example, answer_was=then.get(place, ""), answer_now=now.get(place, ""))


def _answers(night: Night, line: Line) -> dict[tuple[int | None, str], str]:
    """By seed and item; nothing where the store is gone."""
    folder = night.folder / line.store
    if not folder.is_dir():
        return {}
    store, found = Store(folder), dict[tuple[int | None, str], str]()
    for seed, key in zip(line.seeds, line.keys, strict=True):
        if record := store.find("score", key):
            named = name_items(read_samples(record.file("samples.jsonl")))
            found |= {(seed, item): str(sample["answer"]) for item, sample in named.items()}
    return found


def _bisect(procedure: Procedure, anchor: Anchor) -> list[Attempt]:
    outcome = procedure.outcome
    confirmed = [f for f in outcome.findings if f.status == "confirmed" and f.gate in ("A", "replay")]
    if not confirmed:
        outcome.notes.append("--bisect has nothing to look for: gate A confirmed nothing")
        return []
    replay = any(f.gate == "replay" for f in confirmed)  # the cheaper one, and mostly the same cause
    flagged = [f.what for f in confirmed if (f.gate == "replay") == replay]
    rows = {m.line.what: m for m in anchor.results.values()}
    cells = tuple(sorted({name for what in flagged for name in rows[what].line.names}))
    tasks = {what[1] for what in flagged}
    answers = stored_answers(anchor, cells) if replay else None
    if answers is not None:
        answers = {place: where for place, where in answers.items() if place.rpartition(" ")[2] in tasks}
    part = Part("", anchor.seeds, cells, () if replay else tuple(map(str, anchor.stores)), answers)
    overlays = Overlays(outcome.night, procedure.setting, part, list(anchor.results.values()), replay)
    assert outcome.baseline is not None, "without one there is nothing confirmed"
    nights = healthy(procedure.nights, outcome.baseline)
    noise = outcome.noise or dict(noise_for(nights, anchor.facts["environment"], utc_now()).noise)
    return bisect(outcome.software, overlays.install, partial(overlays.gone, flagged=flagged, noise=noise))


def let_go(nights: Nights, accepted: str | None, kept: int = KEPT) -> list[Path]:
    """Remove the stores and overlays of old nights. Their results, scores by item and reports stay for ever."""
    gone = []
    for night in nights.finished()[: -kept or None]:
        for folder in (night.folder / "stores", night.folder / "overlays"):
            if night.name != accepted and folder.is_dir():
                shutil.rmtree(folder, ignore_errors=True)
                gone.append(folder)
    return gone
