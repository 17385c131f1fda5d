"""What one cell's file must fulfil on a board: protocol, completeness, overlap, source tree, settings, metrics.

It reads records and samples; scoring again from raw responses is for `rescoring`, what cells share for `checks`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from harness.boards.board import Admission
from harness.boards.findings import Finding
from harness.boards.opened import OpenedCell
from harness.boards.protocol import Measured, short
from harness.digest import differences, digest
from harness.results import corpus
from harness.results.frame import read_samples
from harness.store import Record

EQUAL = 1e-9  # sums of the same scores in another order differ by less


def check_cell(cell: OpenedCell, tasks: Mapping[str, Measured], admission: Admission) -> Iterator[Finding]:
    """Everything that the file tells by itself."""
    yield from _source(cell, admission)
    settings = "tuned" if cell.tuned else "default"
    if settings not in admission.settings:
        yield Finding(cell.file, f"{cell.name}.train.tune", f"its settings are {settings}, which the board bars")
    if cell.view is not None:
        yield from _view(cell, tasks)
    if cell.diverged:
        return
    for name, task in tasks.items():
        place = f"{cell.name}.{name}"
        score = cell.record("score", cell.keys.get(name, ""))
        if score is None:
            yield Finding(cell.file, f"{place}.score", "the row has no score of this task")
            continue
        yield from _protocol(cell, task, score, place)
        yield from _metrics(cell, task, score, place)
        if cell.trained:
            yield from _overlap(cell, task, place)


def _source(cell: OpenedCell, admission: Admission) -> Iterator[Finding]:
    if not admission.clean_tree:
        return
    for kind in ("data", "train", "generate", "score"):
        for record in cell.records(kind):
            source = record.provenance.get("source")
            clean = source.get("clean") if isinstance(source, dict) else None
            if clean is not True:
                what = "changes of its own" if clean is False else "nothing that tells whether it was clean"
                field = f"{kind}/{record.key}/record.json: provenance.source.clean"
                yield Finding(cell.file, field, f"the source tree of this step had {what}")


def _view(cell: OpenedCell, tasks: Mapping[str, Measured]) -> Iterator[Finding]:
    """What the manifest declares of a cell against the board, and against the file's own keys."""
    assert cell.view is not None
    shown: set[str] = set()
    for t in cell.view.scores:
        place = f"{cell.name}.{t.task}"
        task = tasks.get(t.task)
        if task is None:
            yield Finding(cell.file, place, "the board has no such task")
            continue
        yield from _limits(cell, t.measured, task, place)
        for line in differences(_plain(t.measured), _plain(task.what)):
            yield Finding(cell.file, f"{place}.measured.{line.split(' ')[0]}", f"the board measures otherwise: {line}")
        if t.protocol != digest(_plain(t.measured))[:16]:
            yield Finding(cell.file, f"{place}.protocol", "it is not the digest of what was measured")
        if cell.keys.get(t.task) != t.key:
            yield Finding(cell.file, f"{place}.key", "the cell's file holds another score than the entry declares")
        if t.task not in shown and t.primary != task.task.primary:
            yield Finding(cell.file, f"{place}.primary", f"the board shows {task.task.primary}")
        shown.add(t.task)


def _limits(cell: OpenedCell, measured: Mapping[str, Any], task: Measured, place: str) -> Iterator[Finding]:
    limit = measured.get("task", {}).get("limit")
    if limit is not None and limit != task.limited:
        wanted = "the whole test set" if task.limited is None else f"{task.limited} items"
        what = f"a limited run: {limit} items; the board measures {wanted}"
        yield Finding(cell.file, f"{place}.measured.task.limit", what)


def _plain(value: Any) -> Any:
    """As it comes back from JSON: lists for tuples."""
    return json.loads(json.dumps(value))


def _protocol(cell: OpenedCell, task: Measured, score: Record, place: str) -> Iterator[Finding]:
    """The records' own identities, from which their keys follow."""
    if short(score.identity.get("scoring")) != task.pins.scorer:
        yield Finding(cell.file, f"{place}.score.identity.scoring", "another scorer than the board's protocol")
    generated = cell.generated(score)
    if generated is None:
        yield Finding(cell.file, f"{place}.generate", "the record of the answers is missing")
        return
    if str(generated.identity.get("asked"))[:16] != task.pins.asked:
        what = "other questions, data or engine than the board's protocol"
        yield Finding(cell.file, f"{place}.generate.identity.asked", what)
    artifact = generated.identity.get("artifact")
    if cell.trained and artifact != cell.trained[-1] and cell.record("train", str(artifact)) is None:
        yield Finding(cell.file, f"{place}.generate.identity.artifact", "these are not the trained weights of the cell")


def _metrics(cell: OpenedCell, task: Measured, score: Record, place: str) -> Iterator[Finding]:
    """The stated metrics against the samples, and their number against the test set's."""
    samples = list(read_samples(score.file("samples.jsonl")))
    metrics = json.loads(score.file("metrics.json").read_text())
    wanted = task.task.rows
    if wanted is not None and len(samples) != wanted:
        what = f"{len(samples)} samples; the board asks {wanted}"
        yield Finding(cell.file, f"{place}.samples.jsonl", what)
    if task.task.primary not in metrics:
        yield Finding(
            cell.file, f"{place}.metrics.json.{task.task.primary}", "the metric that the board shows is missing"
        )
    for metric, stated in metrics.items():
        again = recomputed(samples, metric)
        value = stated.get("value")
        if again is not None and not (isinstance(value, int | float) and math.isclose(again, value, abs_tol=EQUAL)):
            what = f"it says {value!r}, and the samples give {again!r}"
            yield Finding(cell.file, f"{place}.metrics.json.{metric}.value", what)


def recomputed(samples: Sequence[Mapping[str, Any]], metric: str) -> float | None:
    """A metric from the scores of its samples; None where these do not determine it."""
    scores = [s["scores"][metric] for s in samples if metric in s["scores"]]
    if not scores:
        return None
    if all(isinstance(s, bool | int | float) for s in scores):
        return float(sum(scores)) / len(scores)
    if not all(isinstance(s, list) for s in scores):
        return None
    name = metric.split(",")[0]
    if name in corpus.COUNTED or name in corpus.CORRELATIONS:
        return corpus.score([(gold, predicted) for gold, predicted in scores], name)
    flat = [float(each) for s in scores for each in s]
    return sum(flat) / len(flat) if flat else None


def _overlap(cell: OpenedCell, task: Measured, place: str) -> Iterator[Finding]:
    """A report on the very test set and training data of the cell."""
    wanted = _plain(task.what["task"])
    trained_on = {r.identity.get("data") for r in cell.records("train")}
    for record in cell.records("overlap"):
        data = record.identity.get("data")
        sets = set(data) if isinstance(data, list) else {data}
        if _plain(record.identity.get("task")) == wanted and sets & trained_on:
            return
    yield Finding(cell.file, f"{place}.overlap", "no report on the overlap of this test set with the training data")
