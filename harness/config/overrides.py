"""`--set path.to.key=value`: changes to a file that has been read but not yet validated.

A path names keys of the file, labels with dots in them included, and items of a list by number. A key that the file
lacks may be set where the schema has it; an entry with a label of the user's own may be set as a whole only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel

from harness.config.schema_errors import Keys, dotted, models_at, show
from harness.config.yaml_reader import Tree, join, parse
from harness.errors import HarnessError, nearest


def apply(tree: Tree, overrides: Sequence[str], Model: type[BaseModel]) -> None:
    """Change `tree` in place, in the order given; what cannot be set is added to its problems."""
    for text in overrides:
        try:
            _apply(tree, text, Model)
        except HarnessError as problem:
            tree.problems.append(problem)


def _apply(tree: Tree, text: str, Model: type[BaseModel]) -> None:
    where = f"--set {text}"
    target, equals, value_text = text.partition("=")
    if not equals or not target.strip():
        raise HarnessError("not of the form path.to.key=value", where=where)
    new = parse(value_text, lambda line: where)
    here, rest = tree.data, target.strip()
    path: Keys = ()
    while True:
        key, rest = _next(rest, here)
        if not rest:
            break
        here = _enter(here, key, path, Model, tree, where)
        path = (*path, key)
    _check_target(here, key, path, where)
    here[key] = new.data
    name = dotted((*path, key))
    for known in [p for p in tree.places if p == name or p.startswith(f"{name}.")]:
        del tree.places[known]
    tree.places |= {join(name, inner) if inner else name: place for inner, place in new.places.items()}
    tree.problems += new.problems
    tree.unread |= {join(name, inner) if inner else name for inner in new.unread}


def _next(rest: str, here: Any) -> tuple[str | int, str]:
    """The first key of a path and what follows it; the longest key of the file that fits."""
    if isinstance(here, dict):
        fitting = [key for key in here if rest == key or rest.startswith(f"{key}.")]
        if fitting:
            key = max(fitting, key=len)
            return key, rest[len(key) + 1 :]
    first, _, after = rest.partition(".")
    return (int(first) if isinstance(here, list) and first.isdigit() else first), after


def _enter(here: Any, key: str | int, path: Keys, Model: type[BaseModel], tree: Tree, where: str) -> Any:
    """The value at a key, made an empty mapping where the schema has the key and the file has nothing there."""
    _check_target(here, key, path, where)
    name = dotted((*path, key))
    if isinstance(here, dict) and here.get(key) is None:
        fields = [field for model in models_at(Model, path) for field in model.model_fields]
        if key not in fields and key not in here:
            raise HarnessError(f"there is no `{name}`", where=where, todo=nearest(str(key), [*fields, *here]))
        here[key] = {}
        tree.places[name] = where
    if not isinstance(here[key], dict | list):
        what = f"`{name}` is {show(here[key])}, which has no keys"
        raise HarnessError(what, where=where, todo=f"set it as a whole: --set '{name}={{...}}'")
    return here[key]


def _check_target(here: Any, key: str | int, path: Keys, where: str) -> None:
    if isinstance(here, list) and not (isinstance(key, int) and key < len(here)):
        what = f"`{dotted(path) or 'the file'}` is a list of {len(here)}, without an item `{key}`"
        raise HarnessError(what, where=where, todo="name an item by its number, from 0, or set the list as a whole")
    if not isinstance(here, dict | list):
        raise HarnessError("the file is not a mapping of keys", where=where)
