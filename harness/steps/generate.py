"""The generate steps of one model: one resident engine walks its artifacts and answers every request of every task.

Beside the engine runs one process more, forked before the engine has started its threads. It makes the questions while
the engine starts, and prepares the next artifact while the engine answers for the present one.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from harness.data.models import harness_cache, materialise
from harness.digest import digest
from harness.engines.base import Artifact, Engine, EngineSpec, Request, Response
from harness.errors import HarnessError
from harness.evaluation.task import Task
from harness.planning.planned import PlannedCell, PlannedTask
from harness.steps.bench import Bench
from harness.steps.responses import Answering, share_out
from harness.store import Busy, Done, Record
from harness.store.attempt import failure_kind

Todo = Sequence[tuple[PlannedCell, list[PlannedTask]]]


@dataclass(frozen=True)
class Served:
    """The resident engine, the folder of its base, the seconds that its start took, and the questions by task.

    beside: the process beside the engine.  ahead: what it prepares, by the artifact's digest.
    """

    engine: Engine
    base: Path
    start_seconds: float
    asked: Mapping[str, Sequence[Request]]
    beside: Executor
    ahead: dict[str, Future[Any]] = field(default_factory=dict)


def run_generate(bench: Bench, cells: Sequence[PlannedCell]) -> int:
    """Answer what is unanswered, base first. An artifact that fails does not stop the others.

    Returns the worst exit code. The engine is left open: it ends with this process, which is what gives memory back.
    """
    todo = [(cell, tasks) for cell in base_first(cells) if (tasks := _unanswered(bench, cell))]
    if not todo:
        return 0
    with ProcessPoolExecutor(1, mp_context=get_context("fork")) as beside:
        try:
            served = _serve(bench, todo, beside)
        except Exception as error:
            _record_failure(bench, todo, error)
            raise
        beside.submit(os.nice, 10)  # from here on the engine goes first
        code = 0
        for number, (cell, tasks) in enumerate(todo):
            upcoming = [cell for cell, _ in todo[number + 1 : number + 2]]
            try:
                _generate_cell(bench, served, cell, tasks, upcoming)
            except HarnessError as error:
                code = max(code, error.exit_code)
                print(f"{cell.name}: {error}", file=sys.stderr, flush=True)
        return code


def base_first(cells: Iterable[PlannedCell]) -> list[PlannedCell]:
    """The base before its fine-tunes, since the canary compares with it; otherwise in the order of the matrix."""
    return sorted(cells, key=lambda c: bool(c.trained))


def _unanswered(bench: Bench, cell: PlannedCell) -> list[PlannedTask]:
    """Tasks without answers, each generate step once. In key order: two runs that hold several never wait in a ring."""
    if cell.trained:
        record = bench.store.find("train", cell.trained[-1].key, whole=True)
        if record is None or record.status == "diverged":
            return []
    asked = [t for t in cell.tasks if t.route != "head"]
    tasks = {t.generate.key: t for t in asked if bench.store.find("generate", t.generate.key, whole=True) is None}
    return [tasks[key] for key in sorted(tasks)]


def _serve(bench: Bench, todo: Todo, beside: Executor) -> Served:
    """The engine, opened. lm-eval makes the questions in the process beside it: each needs seconds of one core."""
    from harness.engines import make

    base = materialise(todo[0][0].model, harness_cache())
    tasks = {t.task.name: t.task for _, planned in todo for t in planned}
    bench.report(todo[0][1][0].generate.key, 0, 0, "starting the engine")
    asked = beside.submit(_ask, list(tasks.values()))
    engine = make(bench.plan.engine.name)
    started = time.monotonic()
    engine.open(base, bench.plan.engine)
    seconds = time.monotonic() - started
    return Served(engine, base, seconds, asked.result(), beside)


def _ask(tasks: Sequence[Task]) -> dict[str, list[Request]]:
    from harness.evaluation.lm import build_requests

    return {task.name: build_requests(task) for task in tasks}


def _record_failure(bench: Bench, todo: Todo, error: Exception) -> None:
    """No step was claimed yet; without this the tables could not say why there are no answers."""
    for _, tasks in todo:
        for t in tasks:
            with suppress(Busy, Done):
                bench.store.claim("generate", t.generate.key, t.generate.identity).fail(
                    failure_kind(error), str(error) or type(error).__name__
                )


def _generate_cell(
    bench: Bench,
    served: Served,
    cell: PlannedCell,
    tasks: Sequence[PlannedTask],
    upcoming: Sequence[PlannedCell],
) -> None:
    with ExitStack() as attempts:
        held = [(t, attempts.enter_context(h)) for t in tasks if not isinstance(h := bench.hold(t.generate), Record)]
        if not held:
            return
        artifact = artifact_of(bench, cell, served.base)
        activation = served.engine.activate(artifact, _prepared(served, artifact))
        for following in upcoming:
            _prepare_ahead(bench, served, following)
        stack = bench.settled(cell).stack
        answering = [Answering(t, attempt, stack, served.asked[t.task.name]) for t, attempt in held]
        for a in answering:
            attempts.callback(a.file.close)
        how = {"engine_start_seconds": served.start_seconds, "activation": asdict(activation)}
        _answer_all(bench, served.engine, cell, answering, how)


def _prepare_ahead(bench: Bench, served: Served, cell: PlannedCell) -> None:
    """Let the process beside do what it can for the artifact that comes next; if it cannot, its own turn says why."""
    with suppress(HarnessError, BrokenProcessPool):
        artifact = artifact_of(bench, cell, served.base)
        if work := served.engine.ahead(artifact):
            served.ahead[artifact.digest] = served.beside.submit(work)


def _prepared(served: Served, artifact: Artifact) -> Any:
    """What was prepared for an artifact, or None: then the engine does it itself."""
    future = served.ahead.pop(artifact.digest, None)
    with suppress(BrokenProcessPool):  # the process was killed, perhaps for its memory
        return future.result() if future else None


def artifact_of(bench: Bench, cell: PlannedCell, base: Path) -> Artifact:
    """What an engine is to serve for a cell."""
    if not cell.trained:
        return Artifact(base, cell.model.digest, name=cell.name)
    record = bench.finished("train", cell.trained[-1].key)
    folder = record.path / "artifact"
    kind = json.loads((folder / "artifact.json").read_text())["kind"]
    files = sorted((name, out["sha256"]) for name, out in record.outputs.items() if name.startswith("artifact/"))
    return Artifact(base, digest([cell.model.digest, files]), kind, folder, cell.name)


def _answer_all(
    bench: Bench, engine: Engine, cell: PlannedCell, answering: Sequence[Answering], how: dict[str, Any]
) -> None:
    """All tasks of an artifact at once, so that the engine's batch stays full; each is published when it is complete.

    The longest answers are begun first: what comes last then ends soon, and a full batch lasts longer.
    """
    who: dict[str, list[tuple[Answering, str]]] = {}
    wanted: dict[str, Request] = {}
    for a in answering:
        for key, request in a.missing.items():
            who.setdefault(request.key, []).append((a, key))
            wanted[request.key] = request
    if bench.plan.engine.too_long == "wrong":
        for request in [r for r in wanted.values() if _too_long(engine, bench.plan.engine, r)]:
            for a, key in who[wanted.pop(request.key).key]:
                a.add(key, Response(key, finish="too_long"))
    order = sorted(wanted.values(), key=lambda r: -r.max_tokens)
    since = _publish(answering, time.monotonic(), how)
    try:
        for kind, answer in (("choose", engine.loglikelihood), ("generate", engine.generate)):
            for response in answer([r for r in order if r.kind == kind]):
                for a, key in who[response.key]:
                    a.add(key, response)
                    note = f"{cell.name}, {a.planned.task.name}"
                    bench.report(a.planned.generate.key, len(a.responses), len(a.sent), note)
                since = _publish(answering, since, how)
    except HarnessError as error:  # an engine knows requests, a user knows tasks
        names = sorted({a.planned.task.name for a, _ in who.get(error.where.removeprefix("request "), [])})
        if names:
            error.where = f"{cell.name}, task {' and '.join(names)}"
        raise


def _too_long(engine: Engine, spec: EngineSpec, request: Request) -> bool:
    """A choice among answers cannot count as wrong without being made, so its prompt is for the engine to refuse."""
    return request.kind == "generate" and engine.prompt_tokens(request) >= spec.max_model_len


def _publish(answering: Sequence[Answering], since: float, how: dict[str, Any]) -> float:
    """Publish what has become complete. Returns from when on time is to be shared out next."""
    ended = [a for a in answering if a.complete and not a.published]
    if not ended:
        return since
    share_out(time.monotonic() - since, answering)
    for a in ended:
        a.publish(how)
    return time.monotonic()
