"""`harness show`: samples of one task of one cell, from the prompt as it was sent to the verdict on the answer."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.commands.named import replanned, store_of, warn
from harness.commands.prompt import as_dict, in_words, rendered
from harness.commands.text import as_json, indented, line
from harness.errors import HarnessError, nearest

if TYPE_CHECKING:
    from harness.engines.base import Request, Response
    from harness.planning.planned import PlannedCell, PlannedTask
    from harness.store import Store

RIGHT, WRONG = "right", "wrong"


def show(args: argparse.Namespace) -> int:
    """The command."""
    from harness.steps.bench import Bench

    store = store_of(args)
    plan = replanned(args, store)
    cell = choose_cell(args.cell, plan.cells)
    planned = choose_task(args.task, cell.tasks)
    found = _samples(store, cell, planned)
    warn(store)
    chosen = _chosen(found, planned.task.primary, only=args.only_kind, doc=args.doc)
    cell = Bench(plan, store, lambda *_: None).settled(cell)
    model = _model_folder(cell) if args.rendered else None
    bodies = [_body(sample, cell, planned, model) for sample in chosen[: args.n]]
    if args.json:
        where = {"cell": cell.name, "task": planned.task.name, "samples": len(found), "matching": len(chosen)}
        return as_json({"schema": "harness-samples", "version": 1, **where, "shown": bodies})
    for body in bodies:
        print(_text(body, planned.task.primary) + "\n")
    kind = f" that are `{args.only_kind}`" if args.only_kind else ""
    print(f"{cell.name}, {planned.task.name}: {len(bodies)} of {len(chosen)} samples{kind}, of {len(found)} in all")
    return 0


def choose_cell(name: str | None, cells: Sequence[PlannedCell]) -> PlannedCell:
    """A cell by its name, or by its method's or model's where only one has it. HarnessError with the nearest."""
    if name is None:
        same = list(cells)
    else:
        same = [c for c in cells if c.name == name] or [c for c in cells if name in (c.cell.method, c.cell.model)]
    names = [c.name for c in (same or cells)]
    if not same:
        todo = nearest(name or "", [*names, *(c.cell.method for c in cells)]) or f"known: {', '.join(names)}"
        raise HarnessError(f"there is no cell `{name}`", todo=todo)
    if len(same) > 1:
        raise HarnessError(f"{len(same)} cells to choose from", todo=f"--cell with one of: {', '.join(names)}")
    return same[0]


def choose_task(name: str | None, tasks: Sequence[PlannedTask]) -> PlannedTask:
    """A task by its name; without one, the only one there is."""
    names = [t.task.name for t in tasks]
    if name is None and len(tasks) != 1:
        raise HarnessError(f"{len(tasks)} tasks to choose from", todo=f"--task with one of: {', '.join(names)}")
    for t in tasks:
        if name in (None, t.task.name):
            return t
    raise HarnessError(f"there is no task `{name}` in this run", todo=nearest(name or "", names) or ", ".join(names))


class Sample:
    """One document: its requests as the task makes them, the stored answers, and what the scorer said, if it did."""

    def __init__(self, doc: int, asked: Sequence[Request], answers: Mapping[str, Response], scored: dict[str, Any]):
        self.doc, self.asked, self.scored = doc, asked, scored
        self.answers = [answers.get(request.key) for request in asked]

    def score(self, metric: str) -> Any:
        return self.scored.get("scores", {}).get(metric)

    def kind(self, metric: str) -> str:
        """`right` or `wrong` by the primary metric, "" where nothing was scored."""
        score = self.score(metric)
        if score is None:
            return ""
        right = score[0] == score[1] if isinstance(score, list) and len(score) == 2 else score == 1
        return RIGHT if right else WRONG


def _samples(store: Store, cell: PlannedCell, planned: PlannedTask) -> list[Sample]:
    """All samples of a task, scored or not. HarnessError if nothing was answered."""
    from harness.evaluation.lm import requests_by_document
    from harness.results.frame import read_samples
    from harness.steps.responses import read_responses

    generated = store.find("generate", planned.generate.key)
    if generated is None:
        past = store.history("generate", planned.generate.key)
        why = past[-1].message if past else "it was not done, or the task, its data or the engine have changed since"
        raise HarnessError(
            f"there are no answers of {cell.name} to {planned.task.name}", why=why, todo="`harness run` asks for them"
        )
    answers = {r.key: r for r in read_responses(generated.file("responses.jsonl"))}
    record = store.find("score", planned.score.key)
    scored = {s["doc"]: s for s in read_samples(record.file("samples.jsonl"))} if record else {}
    asked = requests_by_document(planned.task)
    return [Sample(doc, requests, answers, scored.get(doc, {})) for doc, requests in sorted(asked.items())]


def _chosen(samples: Sequence[Sample], metric: str, *, only: str | None, doc: str | None) -> list[Sample]:
    """Those of a kind or outcome, or the one document. HarnessError for a word that no sample has."""
    if doc is not None:
        found = [s for s in samples if doc == str(s.doc) or (len(doc) > 3 and _hash(s).startswith(doc))]
        if not found:
            todo = f"give a number up to {samples[-1].doc}, or the beginning of its hash"
            raise HarnessError(f"there is no document `{doc}`", todo=todo)
        return found
    if only is None:
        return list(samples)
    if only in (RIGHT, WRONG):
        return [s for s in samples if s.kind(metric) == only]
    outcomes = {s.scored.get("outcome", "") for s in samples} - {""}
    if only not in outcomes:
        known = [RIGHT, WRONG, *outcomes]
        raise HarnessError(f"no sample is `{only}`", todo=nearest(only, known) or f"known: {', '.join(sorted(known))}")
    return [s for s in samples if s.scored["outcome"] == only]


def _hash(sample: Sample) -> str:
    return str(sample.scored.get("hash", ""))


def _model_folder(cell: PlannedCell) -> Path:
    from harness.data.models import harness_cache, materialise

    return materialise(cell.model, harness_cache())


def _body(sample: Sample, cell: PlannedCell, planned: PlannedTask, model: Path | None) -> dict[str, Any]:
    from harness.steps.responses import prompted

    said = []
    for request, answer in zip(sample.asked, sample.answers, strict=True):
        sent = prompted(cell.stack, request)[-1]
        prompt = as_dict(sent) | {"rendered": rendered(sent, model) if model else None}
        said.append({"prompt": prompt, "answer": answer.as_json() if answer else None})
    return {
        "doc": sample.doc,
        "hash": _hash(sample),
        "said": said,
        "extracted": sample.scored.get("answer"),
        "target": sample.scored.get("target"),
        "verdict": sample.kind(planned.task.primary) or "not scored",
        "outcome": sample.scored.get("outcome"),
        "why": sample.scored.get("why"),
        "scores": sample.scored.get("scores", {}),
    }


def _text(body: Mapping[str, Any], metric: str) -> str:
    parts = [f"--- document {body['doc']} {body['hash']}".rstrip()]
    for number, said in enumerate(body["said"]):
        prompt, answer = said["prompt"], said["answer"]
        sent = prompt["rendered"] if prompt["rendered"] is not None else in_words(prompt)
        if number == 0 or prompt != body["said"][0]["prompt"]:
            how = "sent" if prompt["rendered"] is None else "rendered by the model's template"
            parts.append(f"prompt as {how}:\n{indented(sent, '  | ')}")
        parts += _answer(answer, prompt["choices"]) if answer else ["answer: none is stored"]
    if body["extracted"] is not None:
        parts.append(f"extracted: {line(body['extracted'])}")
        parts.append(f"target: {line(body['target'])}")
    parts.append(f"verdict: {' '.join(_verdict(body, metric))}")
    if body["why"]:
        parts.append(f"why: {line(body['why'])}")
    return "\n".join(parts)


def _verdict(body: Mapping[str, Any], metric: str) -> Iterator[str]:
    yield body["verdict"]
    if body["outcome"] and body["outcome"] != body["verdict"]:
        yield f"({line(body['outcome'])})"
    if metric in body["scores"]:
        yield f"{metric} {json.dumps(body['scores'][metric])}"


def _answer(answer: Mapping[str, Any], choices: Sequence[str]) -> list[str]:
    tokens = f"{answer.get('prompt_tokens', 0)} tokens in, {answer.get('generated_tokens', 0)} out"
    if not choices:
        return [f"answer (finish {answer.get('finish', '?')}, {tokens}):\n{indented(answer.get('text', ''), '  > ')}"]
    best = max(answer["logprobs"])
    rows = [
        f"  {'>' if value == best else ' '} {value:10.4f}  {line(repr(choice))}"
        for choice, value in zip(choices, answer["logprobs"], strict=True)
    ]
    return [f"log-probabilities of the answers ({tokens}):", *rows]
