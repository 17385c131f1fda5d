"""The four step functions: data, train, generate, score. Each works inside one claimed attempt and publishes it.

They run in workers (`harness/worker.py`); what they need was resolved by the plan, what they leave is in the store.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from harness.data.chat import to_rows
from harness.data.models import harness_cache, materialise
from harness.data.sources import rows as source_rows
from harness.digest import digest
from harness.engines.base import Artifact, Engine, Request, Response
from harness.errors import HarnessError
from harness.methods.base import Method, overrides
from harness.plan import Plan, PlannedCell, PlannedTask, Step
from harness.store import Attempt, Busy, Done, Record, Store

Report = Callable[[str, float, float, str], None]  # step key, done, total, note

WAIT = 1.0  # seconds between looks at a step that another run is working on


@dataclass(frozen=True)
class Bench:
    """What every step function gets: the plan, the store and where to report progress."""

    plan: Plan
    store: Store
    report: Report


def hold(bench: Bench, step: Step) -> Attempt | Record:
    """Claim a step, or wait until whoever holds it is done or dead. A Record means that it is finished.

    A train step whose weights were not kept is claimed again, since it would not be asked for if nothing needed them.
    """
    while True:
        try:
            return bench.store.claim(step.kind, step.key, step.identity, whole=step.kind == "train")
        except Done as done:
            return done.record
        except Busy as busy:
            bench.report(step.key, 0, 0, f"waiting for {busy}")
            time.sleep(WAIT)


def finished(bench: Bench, kind: str, key: str) -> Record:
    """The record of a step that must be there by now."""
    record = bench.store.find(kind, key, whole=kind == "train")
    if record is None:
        raise HarnessError(f"the {kind} step {key} is not in the store", why="an earlier step did not finish")
    return record


# --- data -----------------------------------------------------------------------------------------------------


def run_data(bench: Bench, cell: PlannedCell) -> Record | None:
    """Rows in the chat format, curated where a method says so: `rows/NAME.jsonl` and `ledger.jsonl`."""
    if cell.data is None:
        return None
    held = hold(bench, cell.data)
    if isinstance(held, Record):
        return held
    with held as attempt:
        label = cell.cell.data
        source, entry = bench.plan.sources[label], bench.plan.matrix.data[label]
        rows = to_rows(source_rows(source), entry)
        sets, ledger = {"train": rows}, list[dict[str, Any]]()
        if any(overrides(m, "curate") for m in cell.stack):
            from harness.training.curation import curate

            sets, ledger = curate(
                cell.stack, rows, seed=cell.cell.seed or 0, model=materialise(cell.model, harness_cache())
            )
        for name, members in sets.items():
            write_lines(attempt.work / "rows" / f"{name}.jsonl", members)
        write_lines(attempt.work / "ledger.jsonl", ledger)
        return attempt.publish(extra={"rows": {name: len(members) for name, members in sets.items()}})


# --- train ----------------------------------------------------------------------------------------------------


def run_train(bench: Bench, cell: PlannedCell) -> None:
    """Every stage of a cell in order, up to the first that diverges. Nothing if no answer is wanted any more."""
    if all(bench.store.find("generate", t.generate.key) for t in cell.tasks):
        return
    for number, step in enumerate(cell.train):
        if _train_stage(bench, cell, number, step).status == "diverged":
            break


def _train_stage(bench: Bench, cell: PlannedCell, number: int, step: Step) -> Record:
    held = hold(bench, step)
    if isinstance(held, Record):
        return held
    from harness.training.adapters import TrainTask, make

    with held as attempt:
        sets = finished(bench, "data", cell.data.key).path / "rows" if cell.data else attempt.work
        bench.report(step.key, 0, 0, "opening the model")
        task = TrainTask(
            model=materialise(cell.model, harness_cache()),
            stack=cell.cell.stack,
            rows={p.stem: p for p in sorted(sets.glob("*.jsonl"))},
            settings=cell.cell.train,
            seed=cell.cell.seed or 0,
            stage=number,
            done={
                stage.name: finished(bench, "train", before.key).path / "artifact"
                for stage, before in zip(cell.stages[:number], cell.train, strict=False)
            },
        )
        result = make(cell.cell.trainer).train(
            task, attempt.work, attempt.earlier, lambda done, total, note: bench.report(step.key, done, total, note)
        )
        return attempt.publish(result.status, cost=result.cost, extra=result.summary)


# --- generate -------------------------------------------------------------------------------------------------


def run_generate(bench: Bench, cells: Sequence[PlannedCell]) -> None:
    """Answer every request of every task for the artifacts of one model, on one engine, base first."""
    from harness.engines import make
    from harness.evaluation.lm import build_requests

    todo = [(cell, tasks) for cell in base_first(cells) if (tasks := _unanswered(bench, cell))]
    if not todo:
        return
    base = materialise(cells[0].model, harness_cache())
    asked = {t.task.name: build_requests(t.task) for _, tasks in todo for t in tasks}
    engine = make(bench.plan.engine.name)
    for _, tasks in todo:
        for t in tasks:
            bench.report(t.generate.key, 0, 0, "starting the engine")
    started = time.monotonic()
    engine.open(base, bench.plan.engine)
    served = Served(engine, base, time.monotonic() - started)
    try:
        for cell, tasks in todo:
            _generate_cell(bench, served, cell, tasks, asked)
    finally:
        engine.close()


def base_first(cells: Iterable[PlannedCell]) -> list[PlannedCell]:
    """The base before its fine-tunes, since the canary compares with it; otherwise in the order of the matrix."""
    return sorted(cells, key=lambda c: bool(c.train))


@dataclass(frozen=True)
class Served:
    """The resident engine, the folder of its base, and the seconds that its start took."""

    engine: Engine
    base: Path
    start_seconds: float


def _unanswered(bench: Bench, cell: PlannedCell) -> list[PlannedTask]:
    if cell.train:
        record = bench.store.find("train", cell.train[-1].key, whole=True)
        if record is None or record.status == "diverged":
            return []
    seen: dict[str, PlannedTask] = {}
    for t in cell.tasks:
        if bench.store.find("generate", t.generate.key) is None:
            seen.setdefault(t.generate.key, t)
    return list(seen.values())


def _generate_cell(
    bench: Bench,
    served: Served,
    cell: PlannedCell,
    tasks: Sequence[PlannedTask],
    asked: Mapping[str, Sequence[Request]],
) -> None:
    held = [(t, h) for t in tasks if not isinstance(h := hold(bench, t.generate), Record)]
    if not held:
        return
    try:
        activation = served.engine.activate(artifact_of(bench, cell, served.base))
        answering = [_Answering(t, attempt, cell.stack, asked[t.task.name]) for t, attempt in held]
        started = time.monotonic()
        _answer_all(bench, served.engine, answering)
    except BaseException as error:
        for _, attempt in held:
            attempt.__exit__(type(error), error, error.__traceback__)
        raise
    seconds = time.monotonic() - started
    tokens = sum(a.tokens for a in answering) or 1
    for a in answering:
        a.publish(
            seconds * a.tokens / tokens,
            {"engine_start_seconds": served.start_seconds, "activation": asdict(activation)},
        )


def artifact_of(bench: Bench, cell: PlannedCell, base: Path) -> Artifact:
    """What an engine is to serve for a cell."""
    if not cell.train:
        return Artifact(base, cell.model.digest, name=cell.name)
    record = finished(bench, "train", cell.train[-1].key)
    folder = record.path / "artifact"
    kind = json.loads((folder / "artifact.json").read_text())["kind"]
    files = sorted((name, out["sha256"]) for name, out in record.outputs.items() if name.startswith("artifact/"))
    return Artifact(base, digest([cell.model.digest, files]), kind, folder, cell.name)


class _Answering:
    """The responses of one generate step while they come in, one line each, so that a kill costs one batch.

    A response is kept under the key of the task's own request, whatever the stack's `prompt` hooks made of it.
    """

    def __init__(
        self, planned: PlannedTask, attempt: Attempt, stack: Sequence[Method], requests: Sequence[Request]
    ) -> None:
        self.planned, self.attempt = planned, attempt
        self.sent = {r.key: prompted(stack, r) for r in requests}
        self.responses: dict[str, Response] = {}
        for earlier in attempt.earlier:
            for response in read_responses(earlier / "responses.jsonl"):
                if response.key in self.sent:
                    self.responses.setdefault(response.key, response)
        self.file = (attempt.work / "responses.jsonl").open("w", encoding="utf-8")
        for response in self.responses.values():
            self._write(response)

    @property
    def missing(self) -> dict[str, Request]:
        return {key: request for key, request in self.sent.items() if key not in self.responses}

    @property
    def tokens(self) -> int:
        return sum(r.prompt_tokens + r.generated_tokens for r in self.responses.values())

    def _write(self, response: Response) -> None:
        self.file.write(json.dumps(response.as_json(), ensure_ascii=False) + "\n")

    def add(self, key: str, response: Response) -> None:
        self.responses[key] = replace(response, key=key)
        self._write(self.responses[key])

    def publish(self, seconds: float, how: dict[str, Any]) -> None:
        """seconds: this task's share, by tokens, of the time in which all tasks of the artifact were answered."""
        self.file.close()
        answers = self.responses.values()
        cut = sum(r.finish == "length" for r in answers)
        cost = {
            "seconds": seconds,
            "prompt_tokens": sum(r.prompt_tokens for r in answers),
            "generated_tokens": sum(r.generated_tokens for r in answers),
        }
        extra = {"requests": len(self.sent), "truncated": cut / max(1, len(self.sent)), **how}
        self.attempt.publish(cost=cost, extra=extra)


def prompted(stack: Sequence[Method], request: Request) -> Request:
    """A request as the stack's `prompt` hooks want it sent, in stack order."""
    for m in stack:
        request = m.prompt(request, None)
    return request


def read_responses(file: Path) -> Iterator[Response]:
    """The complete lines of a response file; a last line cut short by a kill is left out."""
    if file.exists():
        for line in file.read_text(encoding="utf-8").splitlines(keepends=True):
            if line.endswith("\n"):
                yield Response.from_json(json.loads(line))


def _answer_all(bench: Bench, engine: Engine, answering: Sequence[_Answering]) -> None:
    """All tasks of an artifact at once, so that the engine's batch stays full."""
    who: dict[str, list[tuple[_Answering, str]]] = {}
    wanted: dict[str, Request] = {}
    for a in answering:
        for key, request in a.missing.items():
            who.setdefault(request.key, []).append((a, key))
            wanted[request.key] = request
    for kind, answer in (("choose", engine.loglikelihood), ("generate", engine.generate)):
        for response in answer([r for r in wanted.values() if r.kind == kind]):
            for a, key in who[response.key]:
                a.add(key, response)
                bench.report(a.planned.generate.key, len(a.responses), len(a.sent), a.planned.task.name)


# --- score ----------------------------------------------------------------------------------------------------


def run_scores(bench: Bench, cell: PlannedCell) -> None:
    """Score every task of a cell whose answers are there; why others are not was said where they failed."""
    for planned in cell.tasks:
        if bench.store.find("generate", planned.generate.key):
            _score(bench, planned)


def _score(bench: Bench, planned: PlannedTask) -> None:
    """Replay the stored responses through the task's scorer: `samples.jsonl` and `metrics.json`."""
    held = hold(bench, planned.score)
    if isinstance(held, Record):
        return
    from harness.evaluation.lm import score

    with held as attempt:
        generated = finished(bench, "generate", planned.generate.key)
        responses = {r.key: r for r in read_responses(generated.path / "responses.jsonl")}
        started = time.monotonic()
        scored = score(planned.task, responses)
        write_lines(attempt.work / "samples.jsonl", scored.samples)
        (attempt.work / "metrics.json").write_text(json.dumps(scored.metrics, indent=1, sort_keys=True))
        attempt.publish(cost={"seconds": time.monotonic() - started}, extra={"truncated": generated.extra["truncated"]})


def write_lines(file: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """JSON Lines, one object a line, UTF-8."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", encoding="utf-8") as f:
        for row in rows:
            f.write(json.dumps(row, ensure_ascii=False) + "\n")
