"""Measuring one part of a night: a store of its own, what may be taken over into it, the run, and lines of results.

A night's stores begin empty, since the software of a night is in no key: what lies finished in another store was made
by other software. Taken over are weights (gate A freezes them) and, for a replay, answers. It compares nothing.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from harness.digest import digest, file_digest
from harness.jobs.execute import Asked, execute
from harness.matrix import load_matrix
from harness.matrix.schema import Limit
from harness.nightly.nights import Line
from harness.planning.plan import Plan, Where, make_plan
from harness.planning.planned import PlannedCell, PlannedTask, Step
from harness.results.frame import CellResult, Result, collect, read_samples
from harness.results.items import write_items
from harness.runs import cell_views, save_run
from harness.store import Store

STEPS_OF_WEIGHTS = ("tune", "data", "train")
SOFTWARE = ("lm_eval",)  # fields of a protocol that name software under test, not how it is measured


@dataclass(frozen=True)
class Setting:
    """What all parts of a night share: the matrix and what the command line said of it, and where the night is."""

    matrix: str
    folder: str
    overrides: tuple[str, ...] = ()
    mirror: str | None = None
    offline: bool = True
    limit: Limit | None = None
    runner: str = "local"
    jobs: int | None = None
    environment: str = ""
    machine: str = ""


@dataclass(frozen=True)
class Part:
    """What to measure.

    seeds: of the trained cells.  cells: names, all of them if empty.  weights: stores whose trained weights are used.
    answers: {generate key of then: store} for a replay, which asks no engine; by name of cell and task.
    """

    name: str
    seeds: tuple[int, ...]
    cells: tuple[str, ...] = ()
    weights: tuple[str, ...] = ()
    answers: Mapping[str, tuple[str, str]] | None = None


def plan_part(setting: Setting, part: Part) -> Plan:
    """The plan of a part, by today's code. It looks for no overlap: training data do not change overnight."""
    overrides = [*setting.overrides, f"seeds={json.dumps(list(part.seeds))}"]
    matrix = load_matrix(Path(setting.matrix), overrides=overrides)
    where = Where(Path(setting.mirror) if setting.mirror else None, setting.offline)
    plan = make_plan(matrix, where, only=part.cells, limit=setting.limit)
    exact = [c for c in plan.cells if not part.cells or c.name in part.cells]
    return replace(plan, cells=[replace(c, tasks=tuple(replace(t, overlap=None) for t in c.tasks)) for c in exact])


def store_of(setting: Setting, part: str) -> Store:
    return Store(Path(setting.folder) / "stores" / part)


def measure(setting: Setting, part: Part) -> tuple[list[Line], dict[str, dict[str, list[float]]]]:
    """Run a part, or go on with it; (its lines, its costs by cell). What failed is a line without a value."""
    plan, store = plan_part(setting, part), store_of(setting, part.name)
    store.create()
    for source in part.weights:
        take_weights(Store(Path(source)), store, plan.cells)
    if part.answers is not None:
        plan = replace(plan, cells=list(_replayable(plan.cells, store, part.answers)))
    save_run(store, plan)
    overrides = [*setting.overrides, f"seeds={json.dumps(list(part.seeds))}"]
    asked = Asked(Path(setting.matrix), overrides, None, setting.limit, setting.runner, setting.jobs)
    if plan.cells:
        execute(plan, store, asked)
    frame = collect(cell_views(plan), store)
    return lines_of(setting, part.name, plan, store, frame.cells), costs_of(frame.cells)


def take_weights(source: Store, store: Store, cells: Iterable[PlannedCell]) -> None:
    """Finished steps up to the weights, where the source has them whole."""
    for cell in cells:
        for each in cell.line:
            for step in filter(None, (each.tune, each.data, *each.train)):
                if step.kind == "data" or source.find(step.kind, step.key, whole=True):
                    _link(source, store, step)


def frozen(source: Store, cell: PlannedCell) -> bool:
    """Whether a cell's weights are there, so that it need not be trained."""
    return all(source.find("train", step.key, whole=True) for step in cell.trained)


def _link(source: Store, store: Store, step: Step) -> None:
    there, here = source.folder(step.kind, step.key), store.folder(step.kind, step.key)
    if here.exists() or source.find(step.kind, step.key) is None:
        return
    beside = here.parent / f".{uuid.uuid4().hex}"
    shutil.copytree(there, beside, copy_function=_link_or_copy)
    beside.rename(here)


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target)


def _replayable(
    cells: Sequence[PlannedCell], store: Store, answers: Mapping[str, tuple[str, str]]
) -> Iterator[PlannedCell]:
    """The cells with the tasks whose answers could be taken over for all of them: no engine would be asked."""
    taken = [
        {t.task.name for t in cell.tasks if _take_answers(store, t, answers.get(f"{cell.name} {t.task.name}"))}
        for cell in cells
    ]
    common = set.intersection(*taken) if taken else set()
    for cell in cells if common else ():
        yield replace(cell, tasks=tuple(t for t in cell.tasks if t.task.name in common))


def _take_answers(store: Store, task: PlannedTask, there: tuple[str, str] | None) -> bool:
    """Publish stored answers under today's key. A judged task needs its judge's words, too, and those by their key."""
    if there is None:
        return False
    source, key = Store(Path(there[0])), there[1]
    record = source.find("generate", key, whole=True)
    judging = [step for step in (task.calibration, task.judge) if step]
    if record is None or any(source.find("judge", step.key, whole=True) is None for step in judging):
        return False
    for step in judging:
        _link(source, store, step)
    if key == task.generate.key:
        _link(source, store, task.generate)
    elif store.find("generate", task.generate.key) is None:
        with store.claim("generate", task.generate.key, task.generate.identity) as attempt:
            shutil.copyfile(record.file("responses.jsonl"), attempt.work / "responses.jsonl")
            attempt.publish(cost=record.cost, extra={**record.extra, "replayed": key})
    return True


# --- lines --------------------------------------------------------------------------------------------------------


def row_name(cell: CellResult) -> str:
    """A cell's name without its seed."""
    return cell.view.name if cell.view.seed is None else cell.view.name.removesuffix(f".s{cell.view.seed}")


def lines_of(setting: Setting, part: str, plan: Plan, store: Store, cells: Sequence[CellResult]) -> list[Line]:
    """A line for every task and metric of every cell, its seeds together."""
    files = {cell.view.name: _keep_items(setting, store, cell) for cell in cells}
    trainings = {c.name: training_digest(c) for c in plan.cells}
    groups: dict[str, list[CellResult]] = {}
    for cell in cells:
        groups.setdefault(row_name(cell), []).append(cell)
    found = []
    for name, group in groups.items():
        for results in zip(*(cell.results for cell in group), strict=True):
            found.append(_line(setting, part, name, group, results, files, trainings))
    return found


def _line(
    setting: Setting,
    part: str,
    name: str,
    group: Sequence[CellResult],
    results: Sequence[Result],
    files: Mapping[str, str],
    trainings: Mapping[str, str],
) -> Line:
    task, values = results[0].task, tuple(r.value for r in results)
    bad = next((r for r in results if r.value is None), None)
    known = [v for v in values if v is not None]
    names = tuple(cell.view.name for cell in group)
    return Line(
        part=part,
        cell=name,
        suite=task.suite,
        task=task.task,
        metric=task.primary,
        headline=task.headline,
        state=bad.state if bad else "ok",
        reason=bad.reason if bad else "",
        value=None if bad else sum(known) / len(known),
        n=results[0].n,
        seeds=tuple(cell.view.seed for cell in group),
        by_seed=values,
        names=names,
        keys=tuple(r.task.key for r in results),
        items=tuple(files[n] for n in names),
        protocol=protocol(task.measured),
        training=trainings[names[0]],
        environment=setting.environment,
        machine=setting.machine,
        store=f"stores/{part}",
    )


def protocol(measured: Mapping[str, Any]) -> str:
    """Like the digest that names a column, without the versions of software: those are what a night tests."""
    return digest(_without(measured))[:16]


def _without(body: Any) -> Any:
    if isinstance(body, Mapping):
        return {name: _without(value) for name, value in body.items() if name not in SOFTWARE}
    return [_without(value) for value in body] if isinstance(body, list | tuple) else body


def training_digest(cell: PlannedCell) -> str:
    """How a cell is trained, its seed apart; "" if it is not."""
    steps = []
    for each in cell.line:
        for step in filter(None, (each.tune, each.data, *each.train)):
            drop = ("seed", "data", "after", "start", "tune")
            steps.append({name: value for name, value in step.identity.items() if name not in drop})
    return digest(steps)[:16] if cell.trained else ""


def _keep_items(setting: Setting, store: Store, cell: CellResult) -> str:
    """The scores by item of one cell as a file named by its digest; "" if nothing was scored."""
    keys = dict.fromkeys(r.task.key for r in cell.results)
    records = {key: record for key in keys if (record := store.find("score", key))}
    if not records:
        return ""
    folder = Path(setting.folder) / "items"
    folder.mkdir(parents=True, exist_ok=True)
    beside = folder / f".{uuid.uuid4().hex}"
    write_items(beside, {key: read_samples(record.file("samples.jsonl")) for key, record in records.items()})
    name = file_digest(beside)
    beside.replace(folder / f"{name}.parquet")
    return name


def costs_of(cells: Sequence[CellResult]) -> dict[str, dict[str, list[float]]]:
    """{cell: {measure: a value a seed}} of speed and memory, where they are known."""
    found: dict[str, dict[str, list[float]]] = {}
    for cell in cells:
        mine, cost = found.setdefault(row_name(cell), {}), cell.cost
        answered = (cost.prompt_tokens or 0) + (cost.generated_tokens or 0)
        known = {
            "tokens_per_second": cost.tokens_per_second,
            "answer_tokens_per_second": answered / cost.generate_seconds if cost.generate_seconds else None,
            "peak_bytes": cost.peak_bytes,
        }
        for measure, value in known.items():
            if value:
                mine.setdefault(measure, []).append(float(value))
    return found


def setting_as_json(setting: Setting, part: Part) -> str:
    """For another process (`attribution.py`)."""
    return json.dumps({"setting": asdict(setting), "part": asdict(part)})


def from_json(text: str) -> tuple[Setting, Part]:
    """What `setting_as_json` gave."""
    body = json.loads(text)
    lists = {name: tuple(body["setting"][name]) for name in ("overrides",)}
    part: dict[str, Any] = {name: tuple(body["part"][name]) for name in ("seeds", "cells", "weights")}
    answers = body["part"]["answers"]
    if answers is not None:
        part["answers"] = {name: tuple(pair) for name, pair in answers.items()}
    return Setting(**{**body["setting"], **lists}), Part(**{**body["part"], **part})
