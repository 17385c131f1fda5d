"""The reader of every YAML file of the product: strict, and every mistake at once with its file and line.

`load` reads a file, applies `--set` overrides, validates against a pydantic model without changing any value's type,
and keeps the place of every value, so that whoever checks a name later (a method, a model, a task) can point at the
line. It knows nothing about what the files mean.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError

from harness.config.overrides import apply
from harness.config.schema_errors import dotted, explain, models_at, place_of
from harness.config.yaml_reader import Tree, parse
from harness.errors import HarnessError, Problems, nearest

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class Loaded(Generic[M]):
    """A file that has been read.

    places: dotted path -> `file:line`, or `--set ...`.
    partial: the value lacks what was wrong in the file (only a `check` ever sees this), so that a check for something
    missing would be mistaken.
    """

    value: M
    path: Path
    places: Mapping[str, str]
    partial: bool = False

    def where(self, path: str | Sequence[str | int]) -> str:
        """The place of `methods.lora` or ("methods", "lora"), or of the nearest value around it."""
        return place_of(path if isinstance(path, str) else dotted(tuple(path)), self.places)


def load(
    path: Path | str,
    Model: type[M],
    *,
    overrides: Sequence[str] = (),
    check: Callable[[Loaded[M]], Iterable[HarnessError]] = lambda loaded: (),
) -> Loaded[M]:
    """Read a YAML file as a model.

    overrides: `path.to.key=value`, the value read as YAML, applied before validation.
    check: finds what a schema cannot; its problems are reported together with those of the schema.
    HarnessError when there is nothing to read or it is not YAML; Problems, in the order of the lines, otherwise.
    """
    path = Path(path)
    tree = parse(_text(path), lambda line: f"{path}:{line}")
    if tree.data is None and not tree.problems:
        needed = [name for name, field in Model.model_fields.items() if field.is_required()]
        todo = f"it needs the keys {', '.join(f'`{name}`' for name in needed)}" if needed else ""
        raise HarnessError("the file is empty", where=str(path), todo=todo)
    apply(tree, overrides, Model)
    value, problems = _validate(tree, Model)
    if value is not None:
        problems += check(Loaded(value, path, tree.places, partial=bool(problems)))
    if problems or value is None:
        raise Problems(sorted(problems, key=_line))
    return Loaded(value, path, tree.places)


def _validate(tree: Tree, Model: type[M]) -> tuple[M | None, list[HarnessError]]:
    """The problems, and the value: where there are problems, what is valid without the keys that were wrong."""
    try:
        return _read(tree.data, Model), tree.problems
    except ValidationError as error:
        found = explain(error.errors(), Model, tree)
    data = copy.deepcopy(tree.data)
    for path, _ in found:
        _drop(data, path, Model)
    problems = tree.problems + [problem for _, problem in found]
    try:
        return _read(data, Model), problems
    except ValidationError:
        return None, problems


def _read(data: Any, Model: type[M]) -> M:
    # By way of JSON, because strict reading of Python values refuses a list where a tuple is wanted.
    return Model.model_validate_json(json.dumps(data), strict=True)


def _drop(data: Any, path: tuple[str | int, ...], Model: type[BaseModel]) -> None:
    if not path or not models_at(Model, path[:-1]):
        return  # an entry with a label of the user's own stays, since other parts of the file may name it
    for part in path[:-1]:
        data = data[part]
    if isinstance(data, dict):
        data.pop(path[-1], None)


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise HarnessError("no such file", where=str(path), todo=_nearest_file(path)) from None
    except IsADirectoryError:
        inside = ", ".join(_yaml_files(path)[:6])
        todo = f"name one of its files: {inside}" if inside else ""
        raise HarnessError("this is a folder, not a YAML file", where=str(path), todo=todo) from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise HarnessError("not UTF-8 text", where=f"{path}:{line}", todo="save the file as UTF-8") from None
    except OSError as error:
        raise HarnessError("cannot be read", where=str(path), why=str(error.strerror or error)) from None


def _nearest_file(path: Path) -> str:
    if not path.parent.is_dir():
        return f"there is no folder {path.parent}"
    return nearest(path.name, _yaml_files(path.parent))


def _yaml_files(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.suffix in (".yaml", ".yml"))


def _line(problem: HarnessError) -> tuple[bool, int]:
    number = re.search(r":(\d+)$", problem.where)
    return (False, int(number[1])) if number and not problem.where.startswith("--set") else (True, 0)
