"""What pydantic found, in our words: the dotted path, the line, what was wanted, the nearest valid name.

Knows pydantic's error types and how to walk a model's annotations by a path; reads no file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Container, Iterator, Mapping, Sequence
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from harness.config.yaml_reader import Tree
from harness.errors import HarnessError, nearest

Keys = tuple[str | int, ...]  # the keys and list positions that lead to a value

_WANTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a number",
    "bool_type": "true or false",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "none_required": "left out",
    "greater_than": "more than {gt:g}",
    "greater_than_equal": "at least {ge:g}",
    "less_than": "less than {lt:g}",
    "less_than_equal": "at most {le:g}",
    "literal_error": "{expected}",
    "union_tag_invalid": "{expected_tags}",
}
_SWITCHES = {"on": "true", "yes": "true", "y": "true", "off": "false", "no": "false", "n": "false"}


def explain(errors: Sequence[ErrorDetails], Model: type[BaseModel], tree: Tree) -> list[tuple[Keys, HarnessError]]:
    """One problem a mistake, with the path of the value that it is about."""
    located = [(_locate(error, tree.data), error) for error in errors]
    wrong: dict[Keys, list[ErrorDetails]] = {}  # several of them where a union offers several types
    found: list[tuple[Keys, HarnessError]] = []
    for path, error in located:
        inside = any(other[: len(path)] == path and len(other) > len(path) for other, _ in located)
        if dotted(path) in tree.unread or (inside and error["type"] in _WANTED):  # another arm of the union fits better
            continue
        if error["type"] in _WANTED:
            wrong.setdefault(path, []).append(error)
        else:
            found.append((path, _other(path, error, Model, tree)))
    return found + [(path, _wrong_value(path, same, tree)) for path, same in wrong.items()]


def models_at(Model: Any, path: Keys) -> list[type[BaseModel]]:
    """The models that a value at a path may be read as; empty where it is no model."""
    here = list(_arms(Model))
    for part in path:
        here = [arm for annotation in here for inner in _step(annotation, part) for arm in _arms(inner)]
    return [arm for arm in here if _is_model(arm)]


def dotted(path: Keys) -> str:
    """A path as text: `methods.lora.stack.0`."""
    return ".".join(map(str, path))


def place_of(path: str, places: Mapping[str, str]) -> str:
    """Where the value at a dotted path stands, or the nearest value around it."""
    while path not in places and path:
        path = path.rpartition(".")[0]
    return places.get(path, "")


def show(value: Any) -> str:
    """A value as an error message quotes it."""
    if value is None:
        return "nothing"
    if isinstance(value, dict | list):
        return ("an empty " if not value else "a ") + ("mapping" if isinstance(value, dict) else "list")
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def _arms(annotation: Any) -> Iterator[Any]:
    if get_origin(annotation) is Annotated:
        yield from _arms(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, UnionType):
        for arm in get_args(annotation):
            yield from _arms(arm)
    else:
        yield annotation


def _step(annotation: Any, part: str | int) -> list[Any]:
    if _is_model(annotation):
        field = annotation.model_fields.get(part)
        return [field.annotation] if field else []
    origin, arguments = get_origin(annotation), get_args(annotation)
    if not isinstance(origin, type) or not arguments:
        return []
    if issubclass(origin, Mapping):
        return [arguments[1]] if isinstance(part, str) else []
    return [arguments[0]] if issubclass(origin, Sequence) and isinstance(part, int) else []


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _locate(error: ErrorDetails, data: Any) -> Keys:
    """pydantic's location without the names of the arms of unions; a missing key is its last part."""
    location = error["loc"]
    last = location[-1:] if error["type"] == "missing" and isinstance(location[-1], str) else ()
    path: list[str | int] = []
    for part in location[: len(location) - len(last)]:
        known: Container[Any] = data if isinstance(data, dict) else range(len(data)) if isinstance(data, list) else ()
        if part in known:
            data = data[part]
            path.append(part)
    return (*path, *last)


def _other(path: Keys, error: ErrorDetails, Model: type[BaseModel], tree: Tree) -> HarnessError:
    where, context = place_of(dotted(path), tree.places), error.get("ctx", {})
    inside = f" in `{dotted(path[:-1])}`" if path[:-1] else ""
    match error["type"]:
        case "extra_forbidden":
            models = models_at(Model, path[:-1])
            todo = nearest(str(path[-1]), [name for model in models for name in model.model_fields])
            own = next((text for model in models if (text := getattr(model, "unknown_key", ""))), "")
            if own and not todo.startswith("did you mean"):
                todo = own.format(key=path[-1])
            return HarnessError(f"unknown key `{path[-1]}`{inside}", where=where, todo=todo)
        case "missing" if isinstance(error["loc"][-1], str):
            return HarnessError(f"key `{path[-1]}` is missing{inside}", where=where)
        case "missing" | "too_short":
            least = context["min_length"] if context else int(error["loc"][-1]) + 1
            return HarnessError(f"`{dotted(path)}` needs at least {least} item{'s' * (least > 1)}", where=where)
        case "too_long":
            return HarnessError(f"`{dotted(path)}` may have {context['max_length']} items at most", where=where)
        case "value_error":
            below = (p for name, p in tree.places.items() if name.startswith(f"{dotted(path)}."))
            where = next((p for p in below if p.startswith("--set ")), where)
            return HarnessError(f"{f'`{dotted(path)}`: ' if path else ''}{context['error']}", where=where)
    name = f"`{dotted(path)}`: " if path else ""
    return HarnessError(f"{name}{error['msg'][:1].lower()}{error['msg'][1:]}", where=where)


def _wrong_value(path: Keys, errors: Sequence[ErrorDetails], tree: Tree) -> HarnessError:
    wants, todo, value = [], "", errors[0]["input"]
    for error in errors:
        context = dict(error.get("ctx", {}))
        if error["type"] == "union_tag_invalid":
            context["expected_tags"] = context["expected_tags"].replace(", ", " or ")
        wants.append(re.sub("['<>]", "", _WANTED[error["type"]].format(**context)))
        todo = todo or _hint(error["type"], value, error.get("ctx", {}))
    name = f"`{dotted(path)}`" if path else "the file"
    what = f"{name} should be {' or '.join(dict.fromkeys(wants))}, not {show(value)}"
    return HarnessError(what, where=place_of(dotted(path), tree.places), todo=todo)


def _hint(kind: str, value: Any, context: Mapping[str, Any]) -> str:
    """What to write instead, where that is plain."""
    if kind == "literal_error" and isinstance(value, str):
        options = [option.strip("' ") for option in context["expected"].replace(" or ", ",").split(",")]
        guess = nearest(value, options)
        return guess if guess.startswith("did you mean") else ""
    if kind == "bool_type" and str(value).lower() in _SWITCHES:
        return f"write {_SWITCHES[str(value).lower()]}"
    if kind == "string_type" and isinstance(value, int | float):
        return "put it in quotes"
    if kind in ("int_type", "int_from_float") and isinstance(value, float) and value.is_integer():
        return f"write {int(value)}"
    if kind in ("int_type", "float_type") and isinstance(value, str):
        plain = value.replace("_", "")
        return f"write {plain}" if plain.replace(".", "", 1).replace("e-", "", 1).isdigit() else ""
    return ""
