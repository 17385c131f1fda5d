"""`harness tasks NAME`: all that is sent and scored of a task, with one question as it is sent.

The question comes from lm-eval, which is imported for it and for nothing else.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.commands.named import where_of
from harness.commands.prompt import as_dict, in_words, rendered
from harness.commands.text import as_json, columns, indented
from harness.errors import HarnessError, nearest

if TYPE_CHECKING:
    from harness.data.sources import Source
    from harness.evaluation.suite import Suite
    from harness.evaluation.task import Task


def tasks(args: argparse.Namespace) -> int:
    """The command."""
    from harness.evaluation.suite import resolve

    where = where_of(args)
    model = _tokenizer_of(args.model, offline=where.offline) if args.model else None
    bodies = []
    for suite, name in _named(args.name):
        try:
            task = resolve(suite, name, None, where.mirror, where.offline)
        except HarnessError as problem:
            problem.where = problem.where or suite.where.get(name, "")
            raise
        bodies.append(_about(task) | {"example": None if task.lacking else _example(task, model)})
    if args.json:
        return as_json({"schema": "harness-tasks", "version": 1, "tasks": bodies})
    print("\n\n".join(map(_text, bodies)))
    return 0


def _named(name: str) -> list[tuple[Suite, str]]:
    """The tasks of a name: a task's, a suite's, `SUITE:TASK`, or a suite file's. HarnessError with the nearest."""
    from harness.evaluation.suite import load_suite, suite_names

    head, colon, task = name.rpartition(":")
    if colon or Path(name).suffix in (".yaml", ".yml") or name in suite_names():
        suite = load_suite(head if colon else name)
        return [(suite, each) for each in suite.wanted([task] if colon else list(suite.tasks))]
    suites = [load_suite(each) for each in suite_names()]
    found = [(suite, name) for suite in suites if name in suite.tasks]
    if not found:
        known = [*suite_names(), *(task for suite in suites for task in suite.tasks)]
        todo = nearest(name, known) or "`harness suites` lists them"
        raise HarnessError(f"there is no task or suite `{name}`", todo=todo)
    return found


def _about(task: Task) -> dict[str, Any]:
    """Everything that decides the questions and the scores, in words."""
    form = task.form
    return {
        "task": task.name,
        "suite": task.suite,
        "kind": task.kind,
        "regime": form.regime,
        "version": form.version,
        "defined_by": f"lm-eval task {task.entry.name}, version {task.entry.version}"
        if task.entry
        else str(task.file.path if task.file else ""),
        "data": _source(task.source),
        "published_rows": form.published,
        "chat": task.chat,
        "shots": task.shots,
        "shot_data": _source(task.shot_source) if task.shot_source else None,
        "sampling": form.sampling.model_dump() if form.sampling else None,
        "head": form.head.model_dump(mode="json", exclude={"data"}) if form.head else None,
        "head_data": _source(task.head_source) if task.head_source else None,
        "judge": form.judge.model_dump(mode="json") if form.judge else None,
        "scorer": form.scorer.model_dump(),
        "metric": form.metric,
        "also": form.also,
        "headline": form.headline,
        "means": [name for name, _ in task.means],
        "chance": form.chance,
        "licence": form.licence,
        "cluster": form.cluster,
        "known_bad": form.known_bad,
        "smoke": form.smoke.model_dump(),
        "extra": form.extra,
        "instead_of": form.instead_of,
    }


def _source(source: Source) -> dict[str, Any]:
    return {
        "source": source.label,
        "revision": source.how.get("revision"),
        "digest": source.digest,
        "rows": source.count,
        "at_hand": source.at_hand,
        "needs": source.needs,
    }


def _example(task: Task, model: Path | None) -> dict[str, Any]:
    """The question about one row, chosen by its content's hash, and what is expected."""
    from harness.evaluation.lm import documents, requests_by_document

    one = replace(task, limit=1)
    asked = requests_by_document(one)
    if not asked:  # the task file leaves this row out
        one = task
        asked = requests_by_document(one)
    number = min(asked)
    request = asked[number][0]
    return {
        **as_dict(request),
        "rendered": rendered(request, model) if model else None,
        "questions_to_a_row": len(asked[number]),
        "target": documents(one)[number].answer,
    }


def _tokenizer_of(source: str, *, offline: bool) -> Path:
    """The folder of a model's tokenizer and template."""
    from harness.data.models import find_model, harness_cache, materialise

    return materialise(find_model(source, offline=offline), harness_cache())


def _text(body: dict[str, Any]) -> str:
    shown = [(name.replace("_", " "), _words(value)) for name, value in body.items() if name not in ("task", "example")]
    text = f"{body['task']} ({body['suite']})\n" + columns(
        ((f"  {name}", words) for name, words in shown if words), ("  ", "")
    )
    example = body["example"]
    if example is None:
        return f"{text}\n\n  no example: the data are not at hand"
    sent, how = example["rendered"], "as the model's template renders it"
    if sent is None:
        sent, how = in_words(example), "as it is sent"
    text += f"\n\n  one question, {how}:\n{indented(sent, '    | ')}"
    if example["choices"]:
        text += "\n  the answers that it is scored on:\n" + indented("\n".join(map(repr, example["choices"])), "    | ")
    return f"{text}\n  expected:\n{indented(example['target'], '    | ')}"


def _words(value: Any) -> str:
    if isinstance(value, dict) and "digest" in value:
        rows = f", {value['rows']} rows" if value["rows"] else ""
        revision = f", revision {value['revision']}" if value["revision"] else ""
        state = f"digest {value['digest'][:16]}" if value["at_hand"] else f"not at hand: {value['needs']}"
        return f"{value['source']}{rows}{revision}, {state}"
    if isinstance(value, dict):
        return ", ".join(f"{k} {_words(v) or '-'}" for k, v in value.items())
    if isinstance(value, list):
        return ", ".join(repr(v) if isinstance(v, str) else _words(v) for v in value)
    return {True: "yes", False: "no", None: ""}.get(value, str(value)) if isinstance(value, bool | None) else str(value)
