"""The YAML reader: what it reads, and every mistake with its line, several at once."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from pydantic import BaseModel, ConfigDict, Field

from harness.config import Loaded, load, yaml_reader
from harness.errors import HarnessError, Problems

Write = Callable[[str], Path]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Oven(Strict):
    degrees: int = Field(default=180, gt=0)
    fan: bool = False
    mode: Literal["bake", "grill"] = "bake"


class Recipe(Strict):
    """A file with every kind of field."""

    title: str
    hours: float = 1.0
    oven: Oven = Oven()
    steps: list[str] = []
    range: tuple[int, int] = (1, 2)
    extras: dict[str, Any] = {}
    ovens: dict[str, Oven] = {}
    size: str | int = "m"
    parts: str | list[str] = []


class Anything(Strict):
    values: dict[str, Any]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: str) -> Path:
        path = tmp_path / "recipe.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def problems(path: Path, *overrides: str, Model: type[BaseModel] = Recipe) -> list[str]:
    """What is wrong with a file, one text a problem, without the folder."""
    with pytest.raises(HarnessError) as caught:
        load(path, Model, overrides=overrides)
    found = caught.value.problems if isinstance(caught.value, Problems) else (caught.value,)
    return [str(problem).replace(f"{path.parent}/", "") for problem in found]


# --- what plain scalars mean ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1E4", 1e4),
        ("-2.5e+3", -2500.0),
        (".5", 0.5),
        ("1.", 1.0),
        ("-3", -3),
        ("+3", 3),
        ("0", 0),
        ("true", True),
        ("False", False),
        ("~", None),
        ("null", None),
        ("", None),
        ("on", "on"),
        ("off", "off"),
        ("yes", "yes"),
        ("no", "no"),
        ("y", "y"),
        ("08", "08"),
        ("010", "010"),
        ("12:30", "12:30"),
        ("2024-01-01", "2024-01-01"),
        ("1_000", "1_000"),
        ("0x1f", "0x1f"),
        (".nan", ".nan"),
        (".inf", ".inf"),
        ("1.2.3", "1.2.3"),
        ("-", "-"),
        (".", "."),
        ("e5", "e5"),
        ("'5'", "5"),
        ('"true"', "true"),
        ("!!str 5", "5"),
        ("!!float 2", 2.0),
    ],
)
def test_a_plain_scalar_is_read_as_in_yaml_1_2(write: Write, text: str, value: object) -> None:
    if text == "-":
        text = "'-'"
    read = load(write(f"values:\n  it: {text}\n"), Anything).value.values["it"]
    assert read == value
    assert type(read) is type(value)


def test_keys_are_always_text(write: Write) -> None:
    assert load(write("values: {on: 1, 5: 2, null: 3, 1e-4: 4}"), Anything).value.values == {
        "on": 1,
        "5": 2,
        "null": 3,
        "1e-4": 4,
    }


def test_the_reader_without_libyaml_gives_the_same_data_and_places(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow(yaml.SafeLoader):
        yaml_implicit_resolvers = yaml_reader._CoreLoader.yaml_implicit_resolvers

    text = "a: &a {x: 1e-4, y: [on, 08]}\nb:\n  <<: *a\n  z: |\n    text\n"
    fast = yaml_reader.parse(text, str)
    monkeypatch.setattr(yaml_reader, "_CoreLoader", Slow)
    assert yaml_reader.parse(text, str) == fast
    assert fast.data["b"] == {"x": 1e-4, "y": ["on", "08"], "z": "text\n"}


# --- anchors ----------------------------------------------------------------------------------------------------


def test_anchors_and_merge_keys_are_read_and_own_keys_win(write: Write) -> None:
    text = "values:\n  a: &a {x: 1, y: 2}\n  b: {<<: *a, y: 3}\n  c: *a\n  d: {<<: [{x: 5}, *a]}\n"
    assert load(write(text), Anything).value.values == {
        "a": {"x": 1, "y": 2},
        "b": {"x": 1, "y": 3},
        "c": {"x": 1, "y": 2},
        "d": {"x": 5, "y": 2},
    }


def test_an_override_inside_an_alias_leaves_the_anchor_alone(write: Write) -> None:
    path = write("title: x\novens:\n  a: &a {degrees: 5}\n  b: *a\n")
    ovens = load(path, Recipe, overrides=["ovens.b.degrees=9"]).value.ovens
    assert (ovens["a"].degrees, ovens["b"].degrees) == (5, 9)


@pytest.mark.parametrize("text", ["title: &a [*a]\n", "title: &a {<<: *a}\n", "title: " + "[" * 3000 + "]" * 3000])
def test_a_value_that_contains_itself_is_refused(write: Write, text: str) -> None:
    assert "nested too deeply" in problems(write(text))[0] or "not YAML" in problems(write(text))[0]


def test_aliases_that_multiply_are_refused_soon(write: Write) -> None:
    lines = ["a0: &a0 [1,1,1,1,1,1,1,1,1,1]"]
    lines += [f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    started = time.perf_counter()
    assert "more than 200000 values" in problems(write("\n".join(lines)))[0]
    assert time.perf_counter() - started < 10


def test_a_merge_of_something_else_is_a_problem(write: Write) -> None:
    assert problems(write("title: x\noven: {<<: 5}\n")) == [
        "recipe.yaml:2: `<<` should be a mapping, or a list of mappings"
    ]


# --- files that cannot be read ----------------------------------------------------------------------------------


def test_a_missing_file_names_the_nearest_one(write: Write) -> None:
    path = write("title: x").with_name("recipes.yaml")
    assert problems(path) == ['recipes.yaml: no such file\n  do:  did you mean "recipe.yaml"?']


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    assert "there is no folder" in problems(tmp_path / "no" / "recipe.yaml")[0]


def test_a_folder_lists_its_files(write: Write) -> None:
    path = write("title: x").parent
    with pytest.raises(HarnessError) as caught:
        load(path, Recipe)
    assert (caught.value.what, caught.value.todo) == (
        "this is a folder, not a YAML file",
        "name one of its files: recipe.yaml",
    )


def test_text_that_is_not_utf8_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(b"title: x\nsteps: [caf\xe9]\n")
    assert problems(path) == ["recipe.yaml:2: not UTF-8 text\n  do:  save the file as UTF-8"]


def test_a_byte_order_mark_does_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(b"\xef\xbb\xbftitle: x\r\nhours: 2\r\n")
    assert load(path, Recipe).value == Recipe(title="x", hours=2)


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n", "---\n"])
def test_an_empty_file_says_what_it_needs(write: Write, text: str) -> None:
    assert problems(write(text)) == ["recipe.yaml: the file is empty\n  do:  it needs the keys `title`"]


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("title: x\noven:\n\tdegrees: 5\n", "recipe.yaml:3: a tab indents this line\n  do:  indent with spaces"),
        ("title: x\nsteps: [a, b\nhours: 2\n", "recipe.yaml:3: not YAML:"),
        ("title: a: b\n", "recipe.yaml:1: not YAML: mapping values are not allowed"),
        ("title: x\n---\ntitle: y\n", "recipe.yaml:2: not YAML: but found another document"),
        ("title: 'x\n", "recipe.yaml:2: not YAML: found unexpected end of stream"),
        ("title: x\nhours: @2\n", "recipe.yaml:2: not YAML: found character"),
        ("title: *missing\n", "recipe.yaml:1: not YAML: found undefined alias"),
        ("title: x\n\nhours: \x07\n", "recipe.yaml:3: the character U+0007 may not stand in YAML"),
    ],
)
def test_text_that_is_not_yaml_is_refused_with_its_line(write: Write, text: str, start: str) -> None:
    [problem] = problems(write(text))
    assert problem.startswith(start)


def test_an_unclosed_bracket_names_the_line_where_it_opens(write: Write) -> None:
    assert "that begins on line 2" in problems(write("title: x\nsteps: [a,\n b\nhours: 2\n"))[0]


# --- single mistakes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("title: x\nhuors: 2", '2: unknown key `huors`\n  do:  did you mean "hours"?'),
        (
            "title: x\noven:\n  fan: true\n  degres: 3",
            '4: unknown key `degres` in `oven`\n  do:  did you mean "degrees"?',
        ),
        (
            "title: x\novens: {a: {moed: bake}}",
            '2: unknown key `moed` in `ovens.a`\n  do:  did you mean "mode"?',
        ),
        ("title: x\noven: {zzz: 3}", "2: unknown key `zzz` in `oven`\n  do:  known: degrees, fan, mode"),
        ("title: x\nhours: 2\ntitle: y", "3: key `title` is given twice\n  why: it stands on line 1 already"),
        (
            "title: x\noven: {fan: true,\n  fan: false}",
            "3: key `fan` is given twice\n  why: it stands on line 2 already",
        ),
        ("hours: 2", "1: key `title` is missing"),
        ("title: 5", "1: `title` should be text, not 5\n  do:  put it in quotes"),
        ("title:", "1: `title` should be text, not nothing"),
        ("title: [x]", "1: `title` should be text, not a list"),
        ("title: x\nhours: soon", '2: `hours` should be a number, not "soon"'),
        ("title: x\nhours: '1.5'", '2: `hours` should be a number, not "1.5"\n  do:  write 1.5'),
        ("title: x\nhours: true", "2: `hours` should be a number, not true"),
        ("title: x\nhours: .inf", '2: `hours` should be a number, not ".inf"'),
        ("title: x\nhours: 1e999", "2: `1e999` cannot be read as float"),
        ("title: x\noven:\n  degrees: 1e2", "3: `oven.degrees` should be a whole number, not 100.0\n  do:  write 100"),
        (
            "title: x\noven:\n  degrees: 1_80",
            '3: `oven.degrees` should be a whole number, not "1_80"\n  do:  write 180',
        ),
        ("title: x\noven: {degrees: 0}", "2: `oven.degrees` should be more than 0, not 0"),
        ("title: x\noven: {fan: on}", '2: `oven.fan` should be true or false, not "on"\n  do:  write true'),
        ("title: x\noven: {fan: 1}", "2: `oven.fan` should be true or false, not 1"),
        (
            "title: x\noven: {mode: gril}",
            '2: `oven.mode` should be bake or grill, not "gril"\n  do:  did you mean "grill"?',
        ),
        ("title: x\noven: hot", '2: `oven` should be a mapping, not "hot"'),
        ("title: x\noven:\n- a", "2: `oven` should be a mapping, not a list"),
        ("title: x\nsteps: stir", '2: `steps` should be a list, not "stir"'),
        ("title: x\nsteps:\n- stir\n- 5", "4: `steps.1` should be text, not 5"),
        ("title: x\nrange: [1]", "2: `range` needs at least 2 items"),
        ("title: x\nrange: [1, 2, 3]", "2: `range` may have 2 items at most"),
        ("title: x\nsize: 1.5", "2: `size` should be text or a whole number, not 1.5"),
        ("title: x\nparts: 5", "2: `parts` should be text or a list, not 5"),
        ("title: x\nparts: [a, 5]", "2: `parts.1` should be text, not 5"),
        ("title: x\nextras: {? [1] : 2}", "2: a key should be text, not a list or a mapping"),
        ("title: x\nextras: {a: !!binary aGk=}", "2: the tag `binary` is not read here"),
        ("title: x\nextras: {a: !!python/name:os.system }", "2: the tag `python/name:os.system` is not read here"),
        ("title: x\nextras: {a: !!int x}", "2: `x` cannot be read as int"),
        ("- title: x", "1: the file should be a mapping, not a list"),
        ("just text", '1: the file should be a mapping, not "just text"'),
    ],
)
def test_one_mistake_is_one_problem_with_its_line(write: Write, text: str, problem: str) -> None:
    [found] = problems(write(text + "\n"))
    assert found.startswith(f"recipe.yaml:{problem}")


def test_all_mistakes_are_reported_together_in_the_order_of_the_lines(write: Write) -> None:
    text = "hours: soon\noven:\n  degrees: -1\n  fna: true\n  fan: no\n  fan: no\nsteps: [1]\nextras: !!set {}\nx: 1\n"
    starts = [problem.splitlines()[0] for problem in problems(write(text), "oven.mode=fry")]
    assert starts[:2] == [
        "recipe.yaml:1: key `title` is missing",
        'recipe.yaml:1: `hours` should be a number, not "soon"',
    ]
    assert [start.split(" ")[0] for start in starts] == [
        *("recipe.yaml:1:", "recipe.yaml:1:", "recipe.yaml:3:", "recipe.yaml:4:", "recipe.yaml:5:"),
        *("recipe.yaml:6:", "recipe.yaml:7:", "recipe.yaml:9:", "--set"),
    ]


# --- overrides --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("hours=1e-3", "hours", 1e-3),
        ("oven.degrees=9", "oven.degrees", 9),
        ("oven={degrees: 7}", "oven.degrees", 7),
        ("steps=[a, b]", "steps", ["a", "b"]),
        ("steps.1=z", "steps", ["x", "z"]),
        ("title=a=b", "title", "a=b"),
        ("ovens.gas-0.5.degrees=3", "ovens.gas-0.5", Oven(degrees=3)),
        ("ovens.new={fan: true}", "ovens.new", Oven(fan=True)),
        ("size='5'", "size", "5"),
        ("extras.a=~", "extras.a", None),
        ("extras.deep.b=2", "extras.deep.b", 2),
    ],
)
def test_an_override_changes_one_value(write: Write, override: str, path: str, value: object) -> None:
    file = write("title: x\nsteps: [x, y]\novens: {gas-0.5: {degrees: 1}}\nextras: {deep: {b: 1}}\n")
    loaded = load(file, Recipe, overrides=[override])
    here: Any = loaded.value.model_dump(mode="python") if path.startswith("extras") else loaded.value
    for key in ["ovens", "gas-0.5"] if "gas" in path else path.split("."):
        here = here[key] if isinstance(here, dict) else getattr(here, key)
    assert here == value
    assert loaded.where(override.partition("=")[0]) == f"--set {override}"


def test_a_later_override_wins(write: Write) -> None:
    assert load(write("title: x"), Recipe, overrides=["hours=2", "hours=3"]).value.hours == 3


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("hours", "not of the form path.to.key=value"),
        ("=5", "not of the form path.to.key=value"),
        ("huors=5", 'unknown key `huors`\n  do:  did you mean "hours"?'),
        ("ovn.degrees=5", 'there is no `ovn`\n  do:  did you mean "oven"?'),
        ("oven.degres=5", 'unknown key `degres` in `oven`\n  do:  did you mean "degrees"?'),
        ("ovens.gaz.degrees=5", 'there is no `ovens.gaz`\n  do:  did you mean "gas"?'),
        ("oven.degrees=hot", '`oven.degrees` should be a whole number, not "hot"'),
        ("oven.degrees=", "`oven.degrees` should be a whole number, not nothing"),
        ("title.x=5", '`title` is "x", which has no keys'),
        ("steps.7=a", "`steps` is a list of 1, without an item `7`"),
        ("steps.first=a", "`steps` is a list of 1, without an item `first`"),
        ("hours=[1", "not YAML:"),
        ("oven={fan: true, fan: true}", "key `fan` is given twice"),
    ],
)
def test_a_wrong_override_is_named(write: Write, override: str, problem: str) -> None:
    [found] = problems(write("title: x\nsteps: [a]\novens: {gas: {}}\n"), override)
    assert found.startswith(f"--set {override}: {problem}")


# --- places and checks ------------------------------------------------------------------------------------------


def test_the_place_of_every_value_is_kept(write: Write) -> None:
    path = write("title: x\novens:\n  gas-0.5:\n    degrees: 1\nsteps:\n- a\n- b\n")
    loaded = load(path, Recipe)
    lines = {"title": 1, "ovens": 2, "ovens.gas-0.5": 3, "ovens.gas-0.5.degrees": 4, "steps.1": 7, "steps.9.x": 5}
    assert {name: loaded.where(name) for name in lines} == {name: f"{path}:{line}" for name, line in lines.items()}
    assert loaded.where(("ovens", "gas-0.5", "fan")) == f"{path}:3"
    assert loaded.where("nothing") == f"{path}:1"


def needs_sugar(loaded: Loaded[Recipe]) -> list[HarnessError]:
    return [HarnessError("no sugar", where=loaded.where("steps"))] if "sugar" not in loaded.value.steps else []


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("title: x\nsteps: [salt]\n", ["2: no sugar"]),
        ("title: x\nhuors: 1\nsteps: [salt]\nhours: soon\n", ["2: unknown key", "3: no sugar", "4: `hours` should"]),
        ("steps: [salt]\n", ["1: key `title` is missing"]),
    ],
)
def test_a_check_is_reported_with_the_rest_wherever_there_is_a_value(write: Write, text: str, lines: list[str]) -> None:
    path = write(text)
    with pytest.raises(Problems) as caught:
        load(path, Recipe, check=needs_sugar)
    found = [str(problem).removeprefix(f"{path}:") for problem in caught.value.problems]
    assert [a.startswith(b) for a, b in zip(found, lines, strict=True)] == [True] * len(lines)


def test_three_hundred_lines_are_read_in_a_moment(write: Write) -> None:
    path = write("title: x\novens:\n" + "".join(f"  o{i}:\n    degrees: {i + 1}\n    fan: true\n" for i in range(100)))
    times = []
    for _ in range(5):
        started = time.perf_counter()
        assert len(load(path, Recipe).value.ovens) == 100
        times.append(time.perf_counter() - started)
    assert min(times) < 0.05
