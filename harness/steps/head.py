"""Generate steps by trained heads: for each artifact and task a head is trained, and its outputs are kept as responses.

A response has one log-probability a choice, or the value of a regression as text, so that scoring is as for an engine's
answers. The heads themselves are not kept, and a step that was interrupted is done again as a whole.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from harness.data.models import harness_cache, materialise
from harness.data.sources import rows
from harness.engines.base import Request, Response
from harness.errors import HarnessError
from harness.evaluation.task import Task
from harness.planning.planned import PlannedCell, PlannedTask
from harness.steps.bench import Bench, write_lines
from harness.steps.generate import artifact_of, base_first
from harness.store import Attempt, Record

if TYPE_CHECKING:
    from harness.training.heads import Head, Texts


@dataclass(frozen=True)
class Examples:
    """What a head of a task needs: labelled rows to train on, and the rows of each question to answer.

    outputs: classes, or 1 for a regression.
    """

    train: Sequence[Texts]
    labels: Sequence[float]
    asked: Sequence[tuple[Request, Texts]]
    outputs: int


class Weights:
    """The weights that the heads of one cell start from. An adapter is merged once, when the first head needs it."""

    def __init__(self, bench: Bench, cell: PlannedCell, kept: ExitStack) -> None:
        self.bench, self.cell, self.kept = bench, cell, kept

    @cached_property
    def folders(self) -> tuple[Path, Path]:
        """Of the model and of its tokenizer."""
        artifact = artifact_of(self.bench, self.cell, materialise(self.cell.model, harness_cache()))
        if artifact.path is None:
            return artifact.base, artifact.base
        if artifact.kind == "full":
            return artifact.path, artifact.path
        from harness.engines.weights import merge

        folder = Path(self.kept.enter_context(TemporaryDirectory(prefix="merged-")))
        merge(artifact.base, artifact.path, folder)
        return folder, artifact.base


def run_heads(bench: Bench, cells: Sequence[PlannedCell]) -> int:
    """Train and apply what is missing, base first. A head that fails does not stop the others.

    Returns the worst exit code.
    """
    code = 0
    examples: dict[str, Examples] = {}  # by task, read once for all cells
    for cell in base_first(cells):
        with ExitStack() as kept:
            weights = Weights(bench, cell, kept)
            for planned in _missing(bench, cell):
                try:
                    _head(bench, weights, planned, examples)
                except HarnessError as error:
                    code = max(code, error.exit_code)
                    print(f"{cell.name}, {planned.task.name}: {error}", file=sys.stderr, flush=True)
    return code


def _missing(bench: Bench, cell: PlannedCell) -> list[PlannedTask]:
    """Head tasks without answers; none where training diverged or failed, which was said there."""
    if cell.trained:
        record = bench.store.find("train", cell.trained[-1].key, whole=True)
        if record is None or record.status == "diverged":
            return []
    asked = {t.generate.key: t for t in cell.tasks if t.route == "head"}
    return [t for key, t in asked.items() if bench.store.find("generate", key, whole=True) is None]


def _head(bench: Bench, weights: Weights, planned: PlannedTask, examples: dict[str, Examples]) -> None:
    held = bench.hold(planned.generate)
    if isinstance(held, Record):
        return
    with held as attempt:
        name = planned.task.name
        bench.report(planned.generate.key, 0, 0, f"{weights.cell.name}, opening {name}")
        if name not in examples:
            examples[name] = read_examples(planned.task)
        _train_and_answer(bench, weights, planned, attempt, examples[name])


def _train_and_answer(
    bench: Bench, weights: Weights, planned: PlannedTask, attempt: Attempt, examples: Examples
) -> None:
    """Leaves `responses.jsonl` and the curve of the training."""
    from harness.training.heads import apply_head, open_head, train_head

    form = planned.task.form.head
    assert form is not None, "the route says so"
    note = f"{weights.cell.name}, {planned.task.name}"
    started = time.monotonic()
    model, tokenizer = weights.folders
    head = open_head(model, tokenizer, encoder=weights.cell.model.encoder, outputs=examples.outputs, recipe=form.recipe)

    def report(done: float, total: float, said: str) -> None:
        bench.report(planned.generate.key, 0.9 * done, total, f"{note}, {said}")

    train_head(head, examples.train, examples.labels, form.recipe, report)
    trained = time.monotonic()
    responses, tokens, cut = {}, 0, 0
    for i, read, values in apply_head(head, [texts for _, texts in examples.asked]):
        responses[i] = _response(examples.asked[i][0], values, len(read.ids))
        tokens += len(read.ids)
        cut += read.cut
    write_lines(attempt.work / "curve.jsonl", ({"step": n, "loss": loss} for n, loss in enumerate(head.losses, 1)))
    write_lines(attempt.work / "responses.jsonl", (responses[i].as_json() for i in sorted(responses)))
    attempt.publish(cost=_cost(head, started, trained, tokens), extra=_extra(head, examples, cut))


def _response(request: Request, values: tuple[float, ...], tokens: int) -> Response:
    if request.kind == "generate":
        return Response(request.key, text=repr(values[0]), finish="stop", prompt_tokens=tokens)
    greedy = tuple(value == max(values) for value in values)
    return Response(request.key, logprobs=values, greedy=greedy, prompt_tokens=tokens)


def _cost(head: Head, started: float, trained: float, tokens: int) -> dict[str, Any]:
    return {
        "seconds": time.monotonic() - started,
        "train_seconds": trained - started,
        "trained_tokens": head.trained_tokens,
        "prompt_tokens": tokens,
        "generated_tokens": 0,
    }


def _extra(head: Head, examples: Examples, cut: int) -> dict[str, Any]:
    """truncated: of answers, as for every generate step. Here only rows can be cut, and they are counted apart."""
    rows_cut = {"train": head.cut, "asked": cut}
    return {"requests": len(examples.asked), "truncated": 0.0, "steps": len(head.losses), "rows_cut": rows_cut}


def read_examples(task: Task) -> Examples:
    """The rows of a head task. HarnessError where a row lacks a column, or a label suits no output."""
    from harness.evaluation.lm import chosen_rows, requests_by_document

    form, source = task.form.head, task.head_source
    assert form is not None and source is not None, "planning resolves them"
    documents, asked = chosen_rows(task), requests_by_document(task)
    once = {request.key: (request, i) for i, requests in asked.items() for request in requests}
    first = next(iter(once.values()))[0]
    outputs = len(first.choices) if first.kind == "choose" else 1
    train = rows(source)
    return Examples(
        train=[_texts(row, form.columns, source.label) for row in train],
        labels=[_label(row, form.label, outputs, source.label) for row in train],
        asked=[(q, _texts(documents[i], form.columns, task.source.label)) for q, i in once.values()],
        outputs=outputs,
    )


def _texts(row: dict[str, Any], columns: Sequence[str], where: str) -> Texts:
    for column in columns:
        if not isinstance(row.get(column), str):
            raise HarnessError(
                f"a row has no text in the column `{column}`", where=where, why=f"its columns are {', '.join(row)}"
            )
    return tuple(row[column] for column in columns)


def _label(row: dict[str, Any], column: str, outputs: int, where: str) -> float:
    label = row.get(column)
    numeric = isinstance(label, int | float) and not isinstance(label, bool) and label == label
    if numeric and (outputs == 1 or label in range(outputs)):
        return float(label)  # type: ignore[arg-type]
    wanted = "a number" if outputs == 1 else f"a whole number below {outputs}"
    raise HarnessError(f"the label of a training row should be {wanted}", where=where, why=f"`{column}` is {label!r}")
