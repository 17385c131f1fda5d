"""Suites and their tasks: which columns a table has, what each of them asks, and which data it takes.

A suite file is read and checked, names of shipped lm-eval tasks against the index, and for each column the first task
whose data are at hand is chosen. Nothing here imports lm-eval; the questions themselves are made by `lm`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.config import load
from harness.data.mirror import open_mirror
from harness.data.sources import Source, pin
from harness.errors import HarnessError, Problems, Refused, nearest
from harness.evaluation import index
from harness.evaluation.suite_file import SuiteFile, TaskForm, check
from harness.evaluation.task import Task, lm_eval_version
from harness.evaluation.task_file import read_task_file
from harness.matrix.schema import DataEntry
from harness.packaged import packaged

__all__ = ["Suite", "Task", "choose_tasks", "load_suite", "suite_names"]

KINDS = ("generate_until", "multiple_choice", "loglikelihood")


@dataclass(frozen=True)
class Suite:
    """A suite file that has been read. tasks: by name, in the order of the file; where: a task's `file:line`."""

    name: str
    about: str
    path: Path
    tasks: Mapping[str, TaskForm]
    where: Mapping[str, str] = field(repr=False, default_factory=dict)

    def chains(self) -> list[list[str]]:
        """For each column the names of the tasks that can fill it, the preferred one first."""
        heads = [name for name, form in self.tasks.items() if form.instead_of is None]
        return [[head, *(n for n, f in self.tasks.items() if f.instead_of == head)] for head in heads]


def suite_names() -> list[str]:
    """The suites that ship with harness."""
    return sorted(p.stem for p in packaged("suites").glob("*.yaml"))


def load_suite(name: str) -> Suite:
    """A shipped suite by name, or a suite file by path. Problems with all that is wrong in the file."""
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        path = packaged("suites") / f"{name}.yaml"
        if not path.is_file():
            raise HarnessError(
                f"no suite `{name}`", todo=nearest(name, suite_names()) or "name a suite, or the path of a suite file"
            )
    loaded = load(path, SuiteFile, check=check)
    suite = loaded.value
    where = {task: loaded.where(("tasks", task)) for task in suite.tasks}
    return Suite(suite.name, suite.about, path, suite.tasks, where)


def choose_tasks(
    suite: Suite,
    *,
    limit: int | None = None,
    only: Sequence[str] | None = None,
    mirror: Path | None = None,
    offline: bool = True,
) -> tuple[list[Task], list[str]]:
    """The tasks to measure, and notes that say what was chosen and why.

    For each column the first task whose data are at hand; the hub is asked only for a task that is named in `only` or
    has no stand-in. limit: rows a task at most.  Problems with every task that cannot be measured.
    """
    chosen: list[Task] = []
    notes: list[str] = []
    problems: list[HarnessError] = []
    for chain in _wanted(suite, only):
        try:
            task, note = _first(suite, chain, limit, mirror, offline or len(chain) > 1)
        except HarnessError as problem:
            problem.where = problem.where or suite.where.get(chain[0], "")
            problems.append(problem)
            continue
        chosen.append(task)
        notes += [note] if note else []
    if problems:
        raise problems[0] if len(problems) == 1 else Problems(problems)
    return chosen, notes


def _wanted(suite: Suite, only: Sequence[str] | None) -> list[list[str]]:
    if only is None:
        return suite.chains()
    for name in only:
        if name not in suite.tasks:
            raise HarnessError(f"suite `{suite.name}` has no task `{name}`", todo=nearest(name, suite.tasks))
    return [[name] for name in only]


def _first(
    suite: Suite, chain: Sequence[str], limit: int | None, mirror: Path | None, offline: bool
) -> tuple[Task, str]:
    """The first task of a chain whose data are at hand, and a note if it is not the first."""
    needs = ""
    for name in chain:
        task = _resolve(suite, name, limit, mirror, offline)
        if task.source.at_hand and (task.shot_source is None or task.shot_source.at_hand):
            fetch = "give --mirror DIR, or name it under `tasks:` to have it fetched from the hub"
            how = needs if open_mirror(mirror) else fetch
            note = f"suite {suite.name}: {name} stands in for {chain[0]}, whose data are not at hand; {how}"
            return task, note if name != chain[0] else ""
        needs = needs or task.source.needs or (task.shot_source.needs if task.shot_source else "")
    raise Refused(f"the data of task `{chain[0]}` ({task.source.label}) are not at hand", todo=needs)


def _resolve(suite: Suite, name: str, limit: int | None, mirror: Path | None, offline: bool) -> Task:
    form = suite.tasks[name]
    file = read_task_file(suite.path.parent / form.file) if form.file else None
    entry = index.usable(index.find(form.lm_eval)) if form.lm_eval else None
    described = file or entry
    assert described is not None, "a suite file is checked when it is read"
    if entry and lm_eval_version() != index.lm_eval_version():
        raise HarnessError(
            f"lm-eval {lm_eval_version()} is installed, and its tasks are known for {index.lm_eval_version()}",
            todo=f"pip install lm-eval=={index.lm_eval_version()}",
        )
    _check_sampling(name, form, described.kind)
    own = [DataEntry(source=entry.hub, split=entry.split)] if entry else []
    source = _first_at_hand(form.data or own, mirror, offline)
    shots = described.shots if form.shots is None else form.shots
    return Task(
        suite=suite.name,
        name=name,
        form=form,
        kind=described.kind,
        source=source,
        shots=shots,
        shot_source=_shots(entry, shots, mirror, offline),
        file=file,
        entry=entry,
        limit=limit,
        notes=("made data",) if source.spec.startswith("make:") else (),
    )


def _first_at_hand(alternatives: Sequence[DataEntry], mirror: Path | None, offline: bool) -> Source:
    """The first source that is at hand, else the first; the ones after it are not looked at."""
    first = None
    for entry in alternatives:
        source = pin(entry, mirror=mirror, offline=offline)
        if source.at_hand:
            return source
        first = first or source
    assert first is not None, "a suite file is checked when it is read"
    return first


def _shots(entry: index.Entry | None, shots: int, mirror: Path | None, offline: bool) -> Source | None:
    if entry is None or not shots or not entry.shot_split:
        return None
    return pin(DataEntry(source=entry.hub, split=entry.shot_split), mirror=mirror, offline=offline)


def _check_sampling(name: str, form: TaskForm, kind: str) -> None:
    if kind not in KINDS:
        raise Refused(
            f"task `{name}` is of the kind `{kind}`, which is not measured here", todo=f"use {', '.join(KINDS)}"
        )
    if kind == "generate_until" and form.sampling is None:
        raise HarnessError(
            f"task `{name}` does not say how its answers are sampled",
            todo="give `sampling: {temperature: ..., max_tokens: ..., stop: [...]}`",
        )
    if kind != "generate_until" and form.sampling is not None:
        raise HarnessError(f"task `{name}` generates nothing, so it takes no `sampling`")
