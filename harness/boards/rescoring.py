"""Raw responses through today's scorers, against what an entry says came of them.

Every sample is scored again, not a share of them: it needs no luck, and code runs in the sandbox as it did. Also what
only responses tell: answers that were counted twice, and an answer that is the same to every question.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from harness.boards.cell_checks import EQUAL
from harness.boards.findings import Finding
from harness.boards.opened import OpenedCell
from harness.boards.protocol import Measured
from harness.digest import digest
from harness.engines.base import Response
from harness.errors import HarnessError
from harness.methods import make
from harness.methods.base import Method
from harness.results.frame import read_samples
from harness.store import Record

FEW = 5  # answers; fewer may well be the same


def check_responses(cell: OpenedCell, tasks: Mapping[str, Measured], required: bool) -> Iterator[Finding]:
    """All tasks of a cell. required: whether responses must be there."""
    for name, task in tasks.items():
        score = cell.record("score", cell.keys.get(name, ""))
        generated = cell.generated(score) if score else None
        if score is None or generated is None:
            continue  # said where completeness is checked
        place = f"{cell.name}.{name}"
        file = generated.file("responses.jsonl")
        if file.exists():
            yield from _check(cell, task, score, generated, place)
        elif required:
            yield Finding(cell.file, f"{place}.responses.jsonl", "the raw responses are missing")


def _check(cell: OpenedCell, task: Measured, score: Record, generated: Record, place: str) -> Iterator[Finding]:
    from harness.evaluation import lm
    from harness.steps.responses import answered, read_responses

    answers = list(read_responses(generated.file("responses.jsonl")))
    responses = {r.key: r for r in answers}
    field = f"{place}.responses.jsonl"
    if len(responses) != len(answers):
        yield Finding(
            cell.file, field, f"{len(answers) - len(responses)} responses answer a question for a second time"
        )
    scored = dict(responses)
    if score.identity.get("answers"):
        stack = _stack(score, generated)
        asked = lm.build_requests(task.task)
        scored |= {r.key: answered(stack, r, responses[r.key]) for r in asked if r.key in responses}
    try:
        again = lm.score(task.task, scored)
    except HarnessError as error:
        yield Finding(cell.file, field, error.what)
        return
    yield from _compare(cell, score, again.metrics, again.samples, place)
    yield from _constant(cell, task, answers, again.metrics, field)


def _stack(score: Record, generated: Record) -> list[Method]:
    """The members whose hooks the answers went through, as the keys name them."""
    named: list[Any] = [*generated.identity.get("prompts", [])]
    named += [member for member in score.identity["answers"] if member not in named]
    return [make(name, params) for name, _, params in named]


def _compare(
    cell: OpenedCell, score: Record, metrics: Mapping[str, Any], samples: Sequence[Mapping[str, Any]], place: str
) -> Iterator[Finding]:
    stated = json.loads(score.file("metrics.json").read_text())
    for metric, now in metrics.items():
        value = stated.get(metric, {}).get("value")
        if not isinstance(value, int | float) or not math.isclose(value, now["value"], abs_tol=EQUAL):
            what = f"it says {value!r}, and the responses give {now['value']!r}"
            yield Finding(cell.file, f"{place}.metrics.json.{metric}.value", what)
    told = {sample["doc"]: sample for sample in read_samples(score.file("samples.jsonl"))}
    for sample in samples:
        old = told.pop(sample["doc"], None)
        for part in ("hash", "scores", "outcome", "answer", "target"):
            if old is None or old.get(part) != json.loads(json.dumps(sample[part])):
                what = "the responses give another" if old is not None else "this sample is missing"
                yield Finding(cell.file, f"{place}.samples.jsonl.doc {sample['doc']}.{part}", what)
                break
    for doc in told:
        yield Finding(cell.file, f"{place}.samples.jsonl.doc {doc}", "the test set has no such document")


def _constant(
    cell: OpenedCell, task: Measured, answers: Sequence[Response], metrics: Mapping[str, Any], field: str
) -> Iterator[Finding]:
    """A model that says the same to everything must get no more than a guesser."""
    value = metrics.get(task.task.primary, {}).get("value", 0.0)
    texts = {r.text for r in answers}
    generates = all(not r.greedy for r in answers)
    if generates and len(answers) >= FEW and len(texts) == 1 and value > task.task.chance + EQUAL:
        what = f"the same answer to all {len(answers)} questions scores {value:g}, above chance"
        yield Finding(cell.file, field, what)


def prints(cell: OpenedCell, tasks: Mapping[str, Measured]) -> Iterator[tuple[str, str, str]]:
    """(digest of all answers to a task, which weights gave them under which prompts, field), where responses are there.

    Weights that are known to be the base's again are left out: their answers are the base's.
    """
    from harness.steps.responses import read_responses

    for name in tasks:
        score = cell.record("score", cell.keys.get(name, ""))
        generated = cell.generated(score) if score else None
        if generated is None or not generated.file("responses.jsonl").exists():
            continue
        canary = (generated.extra.get("activation") or {}).get("canary") or {}
        if canary.get("no_op"):
            continue
        said = sorted(
            (r.key, r.text, list(r.tokens), list(r.logprobs)) for r in read_responses(generated.file("responses.jsonl"))
        )
        who = digest([generated.identity.get("artifact"), generated.identity.get("prompts", [])])
        yield digest([name, said]), who, f"{cell.name}.{name}.responses.jsonl"
