"""Suites and their tasks: which columns a table has, what each of them asks, and which data it takes.

A suite file is read and checked, names of shipped lm-eval tasks against the index, and for each column the first task
whose data are at hand is chosen. Nothing here imports lm-eval; the questions themselves are made by `lm`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

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

__all__ = ["Suite", "Task", "choose_tasks", "load_suite", "resolve", "suite_names"]

KINDS = ("generate_until", "multiple_choice", "loglikelihood")


@dataclass(frozen=True)
class Suite:
    """A suite file that has been read. tasks: by name, in the order of the file; where: a task's `file:line`."""

    name: str
    about: str
    path: Path
    tasks: Mapping[str, TaskForm]
    means: Mapping[str, Sequence[str]] = field(default_factory=dict)
    where: Mapping[str, str] = field(repr=False, default_factory=dict)

    def wanted(self, names: Sequence[str] | Literal["all"] | None) -> list[str]:
        """The tasks that a matrix asks for. HarnessError for a name that is not in the suite."""
        if names is None or names == "all":
            return [n for n, f in self.tasks.items() if f.instead_of is None and (names == "all" or not f.extra)]
        for name in names:
            if name not in self.tasks:
                raise HarnessError(f"suite `{self.name}` has no task `{name}`", todo=nearest(name, self.tasks))
        return list(names)

    def stand_ins(self, name: str) -> list[str]:
        """The made tasks that may be measured where the data of a task are not at hand."""
        return [n for n, f in self.tasks.items() if f.instead_of == name]


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
    return Suite(suite.name, suite.about, path, suite.tasks, suite.means, where)


def choose_tasks(
    suite: Suite,
    *,
    limit: int | Literal["smoke"] | None = None,
    only: Sequence[str] | Literal["all"] | None = None,
    made: bool = False,
    mirror: Path | None = None,
    offline: bool = True,
) -> tuple[list[Task], list[str]]:
    """The tasks to measure, and notes that say what was chosen and why.

    limit: rows a task at most.  only: what the matrix says of `tasks:`.  made: where the data of a task are not at
    hand here (the hub is not asked then), its made stand-in is taken.  Problems with all that cannot be measured.
    """
    chosen: list[Task] = []
    notes: list[str] = []
    problems: list[HarnessError] = []
    for name in suite.wanted(only):
        chain = [name, *(suite.stand_ins(name) if made else [])]
        try:
            task, note = _first(suite, chain, limit, mirror, offline or len(chain) > 1)
        except HarnessError as problem:
            problem.where = problem.where or suite.where.get(name, "")
            problems.append(problem)
            continue
        chosen.append(task)
        notes += [note] if note else []
    if problems:
        raise problems[0] if len(problems) == 1 else Problems(problems)
    return chosen, notes


def _first(
    suite: Suite, chain: Sequence[str], limit: int | Literal["smoke"] | None, mirror: Path | None, offline: bool
) -> tuple[Task, str]:
    """The first task of a chain whose data are at hand, and a note if it is not the first."""
    needs = ""
    for name in chain:
        task = resolve(suite, name, limit, mirror, offline)
        if not (lacking := task.lacking):
            fetch = "give --mirror DIR, or leave `made` out to have it fetched from the hub"
            how = needs if open_mirror(mirror) else fetch
            note = f"suite {suite.name}: {name} stands in for {chain[0]}, whose data are not at hand; {how}"
            return task, note if name != chain[0] else ""
        needs = needs or lacking[0].needs
    what = "training rows" if lacking[0] is task.head_source else "data"
    raise Refused(f"the {what} of task `{chain[0]}` ({lacking[0].label}) are not at hand", todo=needs)


def resolve(suite: Suite, name: str, limit: int | Literal["smoke"] | None, mirror: Path | None, offline: bool) -> Task:
    """One task of a suite, also where its data are not at hand. HarnessError if it cannot be measured anywhere."""
    form = suite.tasks[name]
    if limit == "smoke":
        form, limit = _at_smoke_size(form)
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
        shot_source=_shots(form, entry, shots, mirror, offline),
        head_source=_first_at_hand(form.head.data, mirror, offline) if form.head else None,
        file=file,
        entry=entry,
        limit=limit,
        means=tuple((mean, len(parts)) for mean, parts in suite.means.items() if name in parts),
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


def _at_smoke_size(form: TaskForm) -> tuple[TaskForm, int]:
    """The task with its smoke repeats and few training rows, and its smoke rows."""
    if form.sampling and form.smoke.repeats:
        form = form.model_copy(update={"sampling": form.sampling.model_copy(update={"repeats": form.smoke.repeats})})
    if form.head:
        least = form.head.smoke_rows
        data = [d.model_copy(update={"rows": min(d.rows or least, least)}) for d in form.head.data]
        form = form.model_copy(update={"head": form.head.model_copy(update={"data": data})})
    return form, form.smoke.rows


def _shots(form: TaskForm, entry: index.Entry | None, shots: int, mirror: Path | None, offline: bool) -> Source | None:
    if form.shot_data and shots:
        return _first_at_hand(form.shot_data, mirror, offline)
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
