"""YAML text -> plain data, and the place of every value.

The schema is close to YAML 1.2: `1e-4` is a float; `on`, `yes`, `no`, `08`, `12:30`, `1_000` and dates stay text; a key
is always text. Anchors, aliases and the merge key `<<` are read. A key that is given twice and a tag such as `!!binary`
are problems. Nothing is validated against a schema here, and no object but dict, list, str, int, float, bool and None
is ever built.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import yaml

from harness.errors import HarnessError

try:
    from yaml import CSafeLoader as _Loader
except ImportError:  # PyYAML built without libyaml: the same answers, slower
    from yaml import SafeLoader as _Loader  # type: ignore[assignment]

MOST_VALUES = 200_000  # aliases of aliases can name more values than memory holds
_TAG = "tag:yaml.org,2002:"


class _CoreLoader(_Loader):
    """Composes nodes whose plain scalars are resolved by the rules above instead of by YAML 1.1."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - PyYAML's own name


for _name, _pattern, _first in (
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    ("int", r"^[-+]?(?:0|[1-9][0-9]*)$", list("-+0123456789")),
    ("float", r"^[-+]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?$", list("-+.0123456789")),
):
    _CoreLoader.add_implicit_resolver(_TAG + _name, re.compile(_pattern), _first)


@dataclass
class Tree:
    """What a text says.

    places: dotted path ("" is the whole) -> where the value stands.  problems: mistakes that did not stop the reading.
    unread: dotted paths of the values that could not be read; None stands for them in data.
    """

    data: Any
    places: dict[str, str] = field(default_factory=dict)
    problems: list[HarnessError] = field(default_factory=list)
    unread: set[str] = field(default_factory=set)


def parse(text: str, place: Callable[[int], str]) -> Tree:
    """Read one document. place: the words for a line (from 1), such as `matrix.yaml:12`.

    HarnessError when the text is not YAML; lesser mistakes are in `Tree.problems`.
    """
    try:
        node = yaml.compose(text, _CoreLoader)
    except yaml.MarkedYAMLError as error:
        raise _syntax_error(error, text, place) from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        character = f"the character U+{ord(text[error.position]):04X}"
        raise HarnessError(f"{character} may not stand in YAML", where=place(line), todo="remove it") from error
    except RecursionError as error:
        raise _too_deep(place) from error
    builder = _Builder(place)
    if node is None:
        return Tree(None, {"": place(1)})
    try:
        data = builder.value(node, "", 1)
    except RecursionError as error:
        raise _too_deep(place) from error
    return Tree(data, builder.places, list(builder.problems.values()), builder.unread)


def join(path: str, part: str | int) -> str:
    """The dotted path of a part of the value at a dotted path."""
    return f"{path}.{part}" if path else str(part)


def _too_deep(place: Callable[[int], str]) -> HarnessError:
    return HarnessError("the values are nested too deeply", where=place(1), why="an alias may contain itself")


def _syntax_error(error: yaml.MarkedYAMLError, text: str, place: Callable[[int], str]) -> HarnessError:
    mark = error.problem_mark or error.context_mark
    line = mark.line if mark else 0
    lines = text.splitlines()
    content = lines[line] if line < len(lines) else ""
    if "\t" in content[: len(content) - len(content.lstrip())]:
        return HarnessError("a tab indents this line", where=place(line + 1), todo="indent with spaces")
    context = error.context or ""
    if context and error.context_mark and error.context_mark.line != line:
        context += f" that begins on line {error.context_mark.line + 1}"
    return HarnessError(f"not YAML: {error.problem}", where=place(line + 1), why=context)


class _Builder:
    """Walks the nodes once. Values of an alias are built anew at each place, and keep the place of their anchor."""

    def __init__(self, place: Callable[[int], str]) -> None:
        self.place = place
        self.places: dict[str, str] = {}
        self.problems: dict[tuple[str, int], HarnessError] = {}
        self.unread: set[str] = set()

    def problem(self, line: int, what: str, **more: str) -> None:
        self.problems[what, line] = HarnessError(what, where=self.place(line), **more)

    def value(self, node: yaml.Node, path: str, line: int) -> Any:
        self.places[path] = self.place(line)
        if len(self.places) > MOST_VALUES:
            raise HarnessError(f"more than {MOST_VALUES} values", where=self.place(line), why="aliases repeat them")
        if isinstance(node, yaml.MappingNode):
            pairs = self.pairs(node)
            return {name: self.value(v, join(path, name), _line(k)) for name, (k, v) in pairs.items()}
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, join(path, i), _line(item)) for i, item in enumerate(node.value)]
        return self.scalar(node, path)

    def pairs(self, node: yaml.MappingNode) -> dict[str, tuple[yaml.Node, yaml.Node]]:
        """Key -> its node and its value's node, merged keys first and overruled by the mapping's own."""
        own: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        merged: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self.problem(_line(key), "a key should be text, not a list or a mapping")
            elif key.value == "<<" and not key.style:
                for name, pair in self.merge(value, _line(key)).items():
                    merged.setdefault(name, pair)
            elif key.value in own:
                first = f"it stands on line {_line(own[key.value][0])} already"
                self.problem(_line(key), f"key `{key.value}` is given twice", why=first, todo="remove one of them")
            else:
                own[key.value] = (key, value)
        return {**merged, **own}

    def merge(self, node: yaml.Node, line: int) -> dict[str, tuple[yaml.Node, yaml.Node]]:
        merged: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        for source in node.value if isinstance(node, yaml.SequenceNode) else [node]:
            if isinstance(source, yaml.MappingNode):
                merged = {**self.pairs(source), **merged}
            else:
                self.problem(line, "`<<` should be a mapping, or a list of mappings")
        return merged

    def scalar(self, node: yaml.Node, path: str) -> str | int | float | bool | None:
        text, tag = str(node.value), node.tag.removeprefix(_TAG)
        try:
            match tag:
                case "str":
                    return text
                case "int":
                    return int(text)
                case "float" if math.isfinite(float(text)):
                    return float(text)
                case "bool" if text.lower() in ("true", "false"):
                    return text.lower() == "true"
                case "null" if not text or text.lower() in ("~", "null"):
                    return None
        except ValueError:
            pass  # only a written tag such as `!!int x`, or a number of thousands of digits, comes here
        self.unread.add(path)
        if tag in ("int", "float", "bool", "null"):
            self.problem(_line(node), f"`{text[:40]}` cannot be read as {tag}")
        else:
            self.problem(_line(node), f"the tag `{tag}` is not read here", todo="remove it")
        return None


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1
