"""matrix.yaml -> cells, with every mistake of the file at once.

What a file may say is in `harness.matrix.schema`; here its blocks are put together and checked against each other. The
names of methods, models and suites are not resolved here: the plan does that, and asks `Matrix.where` for the line.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from harness.config import Loaded, load
from harness.config.schema_errors import dotted, place_of
from harness.errors import HarnessError, nearest
from harness.matrix.cells import Cell, fits, make_cells, origin, select
from harness.matrix.entry import MethodEntry
from harness.matrix.method_entries import TUNED, spell_out, unknown_data
from harness.matrix.schema import (
    DataEntry,
    EngineSettings,
    JudgeSettings,
    MatrixFile,
    ModelEntry,
    SuiteForm,
)


@dataclass(frozen=True)
class SuiteEntry:
    """A suite by name or path, with what `SuiteForm` says of it."""

    name: str
    limit: int | Literal["smoke"] | None = None
    tasks: tuple[str, ...] | Literal["all"] | None = None
    made: bool = False


@dataclass(frozen=True)
class Matrix:
    """A matrix file, complete and consistent.

    methods: by label, grids expanded.  baseline: a label in `methods`, or None.  left_out: excluded (model, method).
    entries: the folder of finished results that belongs to the matrix, or None.  report_to: trackers by name.
    """

    path: Path
    name: str
    models: Mapping[str, ModelEntry]
    data: Mapping[str, DataEntry]
    methods: Mapping[str, MethodEntry]
    seeds: tuple[int, ...]
    suites: tuple[SuiteEntry, ...]
    engine: EngineSettings
    judge: JudgeSettings | None
    baseline: str | None
    keep: Literal["all", "adapters", "none"]
    left_out: frozenset[tuple[str, str]]
    entries: Path | None
    report_to: tuple[str, ...]
    places: Mapping[str, str] = field(repr=False)
    aliases: Mapping[str, str] = field(repr=False)

    def cells(self, only: Sequence[str] = (), seeds: int | None = None) -> list[Cell]:
        """The cells in the order of the matrix. only: names or shell patterns of cells, methods or models.

        seeds: use 0 to seeds-1 instead of the matrix's. Problems for a pattern that matches nothing.
        """
        chosen = self.seeds if seeds is None else tuple(range(seeds))
        return select(make_cells(self.models, self.methods, chosen, self.left_out), only)

    def where(self, path: str | Sequence[str | int]) -> str:
        """`file:line` of `methods.lora`, `methods.lora.stack.0`, `suites.math`, in whatever form they are written."""
        name = path if isinstance(path, str) else dotted(tuple(path))
        head = name
        while head and head not in self.aliases:
            head = head.rpartition(".")[0]
        return place_of(self.aliases[head] + name[len(head) :] if head else name, self.places)


def load_matrix(path: Path | str, overrides: Sequence[str] = ()) -> Matrix:
    """Read a matrix file. overrides: `train.lr=1e-3`, as `--set` takes them.

    HarnessError, or Problems with all that is wrong, each with its line.
    """
    if not Path(path).exists() and not any(Path(path).parent.glob("*.y*ml")):
        raise HarnessError("no such file", where=str(path), todo="`harness init` writes a matrix.yaml to start from")
    built: list[Matrix] = []

    def check(loaded: Loaded[MatrixFile]) -> list[HarnessError]:
        matrix, problems = _build(loaded)
        built.append(matrix)
        return problems

    load(path, MatrixFile, overrides=overrides, check=check)
    return built[0]


def _build(loaded: Loaded[MatrixFile]) -> tuple[Matrix, list[HarnessError]]:
    """The matrix, and what is wrong between its blocks (then the matrix is not to be used)."""
    file = loaded.value
    methods = spell_out(file, loaded.places, partial=loaded.partial)
    models = {k: ModelEntry(source=v) if isinstance(v, str) else v for k, v in file.models.items()}
    pairs = [(model, method) for model in models for method in methods.entries]
    rules = [{p for p in pairs if fits(r.model, p[0]) and _names(r.method, p[1])} for r in file.exclude]
    suites, suite_aliases = _suites(file)
    matrix = Matrix(
        path=loaded.path,
        name=file.name or re.sub(r"[^A-Za-z0-9_.+-]+", "-", loaded.path.stem),
        models=models,
        data={k: DataEntry(source=v) if isinstance(v, str) else v for k, v in file.data.items()},
        methods=methods.entries,
        seeds=tuple(range(file.seeds)) if isinstance(file.seeds, int) else tuple(dict.fromkeys(file.seeds)),
        suites=suites,
        engine=file.engine,
        judge=file.judge,
        baseline=file.baseline or ("base" if "base" in methods.entries else None),
        keep=file.keep,
        left_out=frozenset[tuple[str, str]]().union(*rules),
        entries=Path(file.entries) if file.entries else None,
        report_to=tuple(dict.fromkeys(file.report_to)),
        places=loaded.places,
        aliases=methods.aliases | suite_aliases,
    )
    problems = [
        *methods.problems,
        *_twice("seeds", file.seeds, matrix),
        *_twice("suites", file.suites, matrix),
        *_dangling(file, matrix),
        *_by_groups(matrix),
        *_useless_rules(file, matrix, rules),
        *_clashes(matrix),
    ]
    return matrix, problems


def _names(pattern: str, method: str) -> bool:
    """Whether a rule means a method; what is said of one holds for its tuned row, too."""
    return fits(pattern, method) or fits(pattern, method.removesuffix(TUNED))


def _suites(file: MatrixFile) -> tuple[tuple[SuiteEntry, ...], dict[str, str]]:
    if isinstance(file.suites, list):
        aliases = {f"suites.{name}": f"suites.{number}" for number, name in enumerate(file.suites)}
        return tuple(SuiteEntry(name) for name in file.suites), aliases
    forms = {name: form or SuiteForm() for name, form in file.suites.items()}
    return tuple(_suite(name, form) for name, form in forms.items()), {}


def _suite(name: str, form: SuiteForm) -> SuiteEntry:
    return SuiteEntry(name, form.limit, tuple(form.tasks) if isinstance(form.tasks, list) else form.tasks, form.made)


def _twice(path: str, block: object, matrix: Matrix) -> Iterator[HarnessError]:
    items = block if isinstance(block, list) else []
    for number, item in enumerate(items):
        if item in items[:number]:
            where = place_of(f"{path}.{number}", matrix.places)
            yield HarnessError(f"{item} stands twice in `{path}`", where=where, todo="remove one of them")


def _dangling(file: MatrixFile, matrix: Matrix) -> Iterator[HarnessError]:
    """Names of one block that are not in the other."""
    if file.train.data is not None and file.train.data not in file.data:
        yield unknown_data(file.train.data, file, matrix.where("train.data"))
    if file.baseline is not None and file.baseline not in matrix.methods:
        todo = nearest(file.baseline, matrix.methods)
        yield HarnessError(
            f"the baseline `{file.baseline}` is no method here", where=matrix.where("baseline"), todo=todo
        )


def _by_groups(matrix: Matrix) -> Iterator[HarnessError]:
    entry = matrix.methods.get(matrix.baseline or "")
    if entry and entry.groups:
        what = f"the baseline `{matrix.baseline}` has `groups`, so there is no one model to compare with"
        yield HarnessError(what, where=matrix.where("baseline"), todo="name a method without `groups`")


def _useless_rules(file: MatrixFile, matrix: Matrix, rules: Sequence[set[tuple[str, str]]]) -> Iterator[HarnessError]:
    for number, (rule, pairs) in enumerate(zip(file.exclude, rules, strict=True)):
        if pairs:
            continue
        todo = ""
        if not any(fits(rule.model, name) for name in matrix.models):
            todo = nearest(rule.model, matrix.models)
        elif not any(fits(rule.method, name) for name in matrix.methods):
            todo = nearest(rule.method, [*matrix.methods, *map(origin, matrix.methods)])
        what = f"`exclude` of model `{rule.model}`, method `{rule.method}` matches no cell"
        yield HarnessError(what, where=matrix.where(f"exclude.{number}"), todo=todo)


def _clashes(matrix: Matrix) -> Iterator[HarnessError]:
    cells = make_cells(matrix.models, matrix.methods, matrix.seeds, matrix.left_out)
    if not cells and not matrix.left_out.isdisjoint((m, n) for m in matrix.models for n in matrix.methods):
        yield HarnessError("`exclude` leaves no cell", where=matrix.where("exclude"))
    for name, count in Counter(cell.name for cell in cells).items():
        if count > 1:
            same = [cell for cell in cells if cell.name == name]
            pairs = " and ".join(f"model `{cell.model}` with method `{cell.method}`" for cell in same)
            where = matrix.where(f"methods.{same[-1].method}")
            yield HarnessError(f"{count} cells are called `{name}`", where=where, why=pairs, todo="rename one of them")
