"""The readable view of a run: a folder `runs/NAME` in the store with the keys of its cells, its jobs and its tables.

It can be deleted at any time; the next `harness run` makes it again. Results live in the steps.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from harness.errors import HarnessError, nearest
from harness.evaluation.task import Task
from harness.planning.pending import keys_by_cell
from harness.planning.plan import Plan, measured, protocol_of
from harness.results.frame import CellView, TaskView
from harness.store import RUNS, Store, disk
from harness.store.transfer import export, import_


def run_folder(store: Store, name: str) -> Path:
    """Where the view of the run of a matrix of this name lies."""
    return store.root / RUNS / name


def cell_views(plan: Plan) -> list[CellView]:
    """The cells of a plan as the tables see them."""
    shared: dict[str, list[TaskView]] = {}
    for cell in plan.cells[:1]:
        for t in cell.tasks:
            shared[t.task.name] = list(_columns_of(plan, t.task))
    result = []
    for cell in plan.cells:
        tasks = tuple(
            replace(
                view,
                key=t.score.key,
                generate=t.generate.key,
                judge=t.judge.key if t.judge else "",
                overlap=t.overlap.key if t.overlap else "",
            )
            for t in cell.tasks
            for view in shared[t.task.name]
        )
        result.append(
            CellView(
                name=cell.name,
                model=cell.model.name,
                method=cell.cell.method,
                seed=cell.cell.seed,
                flags=cell.flags,
                train=tuple(s.key for s in cell.trained),
                scores=tasks,
                data=cell.data.key if cell.data else "",
                started={s.key: (c.name, c.data.key if c.data else "") for c in cell.line[:-1] for s in c.train},
                tune=cell.tune.key if cell.tune else "",
                group_of=cell.cell.group.of if cell.cell.group else "",
            )
        )
    return result


def _columns_of(plan: Plan, task: Task) -> Iterator[TaskView]:
    """The primary metric of a task, then those that its suite shows beside it."""
    primary = TaskView(
        suite=task.suite,
        task=task.name,
        primary=task.primary,
        headline=task.headline,
        key="",
        protocol=protocol_of(plan, task),
        measured=measured(plan, task),
        chance=task.chance,
        items=task.rows,
        of=task.of,
        label=task.name,
        means=task.means,
        notes=task.notes,
    )
    yield primary
    for metric in task.form.also:
        short = metric.rpartition(",")[2]
        yield replace(primary, primary=metric, label=f"{task.name} {short}", headline=False, means=(), chance=None)


@dataclass(frozen=True)
class RunView:
    """A run as tables, states and exports see it: names and keys, no results."""

    name: str
    baseline: str | None
    notes: tuple[str, ...]
    cells: tuple[CellView, ...]

    def keys(self) -> list[tuple[str, str]]:
        """Every (kind, key) that the cells name, once."""
        found: dict[tuple[str, str], None] = {}
        for cell in self.cells:
            named = [("data", data) for _, data in cell.started.values()]
            named += [("tune", cell.tune), ("data", cell.data), *(("train", key) for key in cell.train)]
            for t in cell.scores:
                named += [("generate", t.generate), ("judge", t.judge), ("score", t.key), ("overlap", t.overlap)]
            found.update({pair: None for pair in named if pair[1]})
        return list(found)

    def as_json(self) -> dict[str, Any]:
        """Plain JSON, the inverse of `from_json`."""
        return {"schema": "harness-run", "version": 1, **asdict(self)}

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> RunView:
        """What `as_json` gave."""
        cells = [
            CellView(
                **{
                    **cell,
                    "flags": tuple(cell["flags"]),
                    "train": tuple(cell["train"]),
                    "notes": tuple(cell["notes"]),
                    "scores": tuple(map(_task_view, cell["scores"])),
                    "started": {key: tuple(pair) for key, pair in cell.get("started", {}).items()},
                }
            )
            for cell in body["cells"]
        ]
        return cls(body["name"], body["baseline"], tuple(body["notes"]), tuple(cells))


def _task_view(body: Mapping[str, Any]) -> TaskView:
    means = tuple((name, parts) for name, parts in body["means"])
    return TaskView(**{**body, "notes": tuple(body["notes"]), "means": means})


def view_of(plan: Plan) -> RunView:
    """The view of a plan's cells."""
    return RunView(plan.matrix.name, plan.matrix.baseline, tuple(plan.notes), tuple(cell_views(plan)))


def save_run(store: Store, plan: Plan) -> Path:
    """Write the view and the keys of a run into its folder."""
    folder = run_folder(store, plan.matrix.name)
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / "keys.json", json.dumps(keys_by_cell(plan)))
    write(folder / "run.json", json.dumps(view_of(plan).as_json()))
    return folder


def load_run(store: Store, name: str) -> RunView:
    """The view of a run by name. HarnessError with the names there are."""
    file = run_folder(store, name) / "run.json"
    if not file.exists():
        there = [p.parent.name for p in (store.root / RUNS).glob("*/run.json")]
        raise HarnessError(
            f"there is no run `{name}` in this store",
            where=str(store.root),
            todo=nearest(name, there) or "name a matrix file, or run one first",
        )
    return RunView.from_json(json.loads(file.read_text()))


def export_run(store: Store, name: str, file: Path) -> str:
    """Pack a run's finished steps and its view into a file; a sentence about it."""
    run = load_run(store, name)
    done = export(store, run.keys(), file, manifest={"run": run.as_json()})
    text = f"wrote {file}: {done.steps} steps of run {name}, {done.bytes / 1e6:.1f} MB"
    if done.left_out:
        text += f"; left out {done.left_out / 1e6:.0f} MB of weights"
    if done.unfinished:
        text += f"; {len(done.unfinished)} steps are not finished and not in it"
    return text


def import_run(store: Store, file: Path) -> str:
    """Take over an exported file: its steps, then its view, unless a run of that name is there. What came of it."""
    came = import_(store, file)
    try:
        run = RunView.from_json(came.manifest["run"])
    except (KeyError, TypeError) as error:
        raise HarnessError("the file holds steps but no run", where=str(file), why=repr(error)) from error
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*", run.name):
        raise HarnessError(f"`{run.name}` is not the name of a run", where=str(file))
    folder = run_folder(store, run.name)
    text = f"{len(came.new)} steps taken over, {len(came.present)} were there already"
    text += "".join(f"\nrefused {kind} {key}: {why}" for kind, key, why in came.refused)
    text += "".join(f"\n{kind} {key} differs from the one in the file and was kept" for kind, key in came.differing)
    if (folder / "run.json").exists():
        return f"{text}\nrun {run.name} is in this store already; its view was kept"
    folder.mkdir(parents=True)
    write(folder / "run.json", json.dumps(run.as_json()))
    return f"{text}\nnext: harness table {run.name}"


def write(file: Path, text: str) -> None:
    """Replace a file in one step, so that two runs of one matrix cannot leave half of it."""
    with disk.guard(file):
        disk.write_whole(file, text.encode())
