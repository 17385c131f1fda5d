"""matrix.yaml: its forms, its cells, and every mistake between its blocks with its line."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.demo import write_demo
from harness.errors import HarnessError, Problems
from harness.matrix import Matrix, load_matrix
from harness.matrix.cells import Cell
from harness.packaged import packaged

Read = Callable[..., Matrix]

HEAD = """\
models: {m: some/model}
data: {d: "make:sums"}
train: {data: d, lr: 1e-5}
suites: [math]
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "matrix.yaml"


@pytest.fixture
def read(path: Path) -> Read:
    def read(text: str, *overrides: str) -> Matrix:
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        return load_matrix(path, overrides)

    return read


@pytest.fixture
def problems(read: Read, path: Path) -> Callable[..., list[str]]:
    def problems(text: str, *overrides: str) -> list[str]:
        with pytest.raises(Problems) as caught:
            read(text, *overrides)
        return [str(problem).replace(f"{path}:", "") for problem in caught.value.problems]

    return problems


def names(cells: list[Cell]) -> list[str]:
    return [cell.name for cell in cells]


# --- the shipped demo -------------------------------------------------------------------------------------------


def test_the_shipped_matrix_is_four_cells_on_five_suites() -> None:
    matrix = load_matrix(packaged("matrix.yaml"))
    assert names(matrix.cells()) == [
        "smollm2-135m.base",
        "smollm2-135m.sft.s0",
        "smollm2-135m.lora.s0",
        "smollm2-135m.lora+dft.s0",
    ]
    assert {suite.name: suite.limit for suite in matrix.suites} == {
        "math": 100,
        "code": 30,
        "tool_use": 40,
        "glue": 100,
        "alignment": 20,
    }
    assert all(method.train.budget.tokens == 15_000 for method in matrix.methods.values())
    assert (matrix.baseline, matrix.keep, matrix.engine.name) == ("base", "adapters", "vllm")


def test_the_examples_in_the_comments_of_the_shipped_matrix_work(read: Read) -> None:
    lines = packaged("matrix.yaml").read_text(encoding="utf-8").splitlines()
    examples = [line.replace("  # ", "  ", 1) if line.startswith("  # ") else line for line in lines]
    assert examples != lines
    matrix = read("\n".join(examples))
    assert len(matrix.models) == 3
    assert "lora-sizes[r=4,lr=0.001]" in matrix.methods


def test_the_demo_is_written_once_and_never_over_a_file(tmp_path: Path) -> None:
    written = write_demo(tmp_path / "new")
    assert len(load_matrix(written).cells()) == 4
    written.write_text("mine")
    with pytest.raises(HarnessError, match="there already"):
        write_demo(tmp_path / "new")
    assert written.read_text() == "mine"


def test_a_demo_cannot_be_written_into_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HarnessError, match="there already") as caught:
        write_demo(tmp_path / "file")
    assert caught.value.where == str(tmp_path / "file")


def test_a_missing_matrix_in_an_empty_folder_points_at_init(path: Path) -> None:
    with pytest.raises(HarnessError, match="no such file") as caught:
        load_matrix(path)
    assert "harness init" in caught.value.todo


def test_what_does_not_ship_is_an_error() -> None:
    with pytest.raises(HarnessError, match="ships with harness"):
        packaged("suites/nothing.yaml")


# --- forms and defaults -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "methods",
    [
        "methods: {base: {}, sft: {}, lora+dft: {stack: [lora, dft]}}",
        "methods: {base: , sft: , lora+dft: }",
        "methods: {base: , sft: [sft], lora+dft: [lora, {dft: }]}",
        "methods: [base, sft, [lora, dft]]",
        "methods:\n- base\n- sft: {}\n- lora+dft: [lora, dft]",
    ],
)
def test_methods_may_be_written_in_several_forms(read: Read, methods: str) -> None:
    cells = read(HEAD + methods).cells()
    assert [(cell.name, cell.stack) for cell in cells] == [
        ("m.base", (("base", {}),)),
        ("m.sft.s0", (("sft", {}),)),
        ("m.lora+dft.s0", (("lora", {}), ("dft", {}))),
    ]


def test_models_data_and_suites_may_be_written_short_or_long(read: Read) -> None:
    short = read("models: {m: a/b}\ndata: {d: 'file:x'}\nmethods: [base]\nsuites: [math, ./my.yaml]\n")
    long = read(
        "models: {m: {source: a/b}}\ndata: {d: {source: 'file:x'}}\nmethods: [base]\nsuites: {math: {}, ./my.yaml: }\n"
    )
    assert (short.models, short.data, short.suites) == (long.models, long.data, long.suites)
    assert [suite.name for suite in short.suites] == ["math", "./my.yaml"]


def test_settings_of_a_method_are_laid_over_the_shared_ones(read: Read) -> None:
    text = """\
        models: {m: some/model}
        data: {d: "make:sums", e: "make:sums"}
        train: {data: d, lr: 1e-5, batch_size: 4, budget: {tokens: 500}}
        methods:
          sft: {train: {lr: 1e-4, budget: {steps: 7}}}
          dft: {data: e, trainer: trl}
        suites: {math: {limit: 5, tasks: [gsm8k]}}
    """
    sft, dft = read(text).cells()
    assert (sft.train.lr, sft.train.batch_size, sft.train.budget.tokens, sft.train.budget.steps) == (1e-4, 4, None, 7)
    assert (dft.train.lr, dft.train.batch_size, dft.train.budget.tokens) == (1e-5, 4, 500)
    assert (sft.data, dft.data, sft.trainer, dft.trainer) == ("d", "e", "native", "trl")


def test_an_untouched_model_has_one_cell_without_seed_and_data(read: Read) -> None:
    cells = read(HEAD + "seeds: 3\nmethods: {base: {}, plain: {stack: [base]}, sft: {}}\n").cells()
    assert names(cells) == ["m.base", "m.plain", "m.sft.s0", "m.sft.s1", "m.sft.s2"]
    assert [(cell.seed, cell.data) for cell in cells[:3]] == [(None, ""), (None, ""), (0, "d")]


@pytest.mark.parametrize(("seeds", "expected"), [("3", (0, 1, 2)), ("[5, 7]", (5, 7))])
def test_seeds_are_a_list_or_a_number_of_them(read: Read, seeds: str, expected: tuple[int, ...]) -> None:
    assert read(HEAD + f"methods: [sft]\nseeds: {seeds}\n").seeds == expected


def test_a_matrix_without_a_name_is_called_like_its_file(tmp_path: Path) -> None:
    path = tmp_path / "my matrix (2).yaml"
    path.write_text(HEAD + "methods: [base]\n")
    assert load_matrix(path).name == "my-matrix-2-"


def test_the_baseline_is_base_unless_said_otherwise(read: Read) -> None:
    assert read(HEAD + "methods: [sft, base]\n").baseline == "base"
    assert read(HEAD + "methods: [sft]\n").baseline is None
    assert read(HEAD + "methods: [sft, base]\nbaseline: sft\n").baseline == "sft"


# --- grids ------------------------------------------------------------------------------------------------------


def test_a_grid_is_every_combination_of_its_values(read: Read) -> None:
    matrix = read(HEAD + "methods: {lora: {grid: {lora.r: [8, 32], train.lr: [1e-3, 1e-4]}}}\n")
    assert {label: (entry.stack[0][1]["r"], entry.train.lr) for label, entry in matrix.methods.items()} == {
        "lora[r=8,lr=0.001]": (8, 1e-3),
        "lora[r=8,lr=0.0001]": (8, 1e-4),
        "lora[r=32,lr=0.001]": (32, 1e-3),
        "lora[r=32,lr=0.0001]": (32, 1e-4),
    }


def test_a_grid_keeps_the_other_parameters_and_settings(read: Read) -> None:
    text = (
        HEAD + "methods: {x: {stack: [{lora: {alpha: 3}}, dft], train: {warmup: 0}, grid: {lora.r: [8], dft.r: [1]}}}\n"
    )
    [(label, entry)] = read(text).methods.items()
    assert label == "x[lora.r=8,dft.r=1]"
    assert entry.stack == (("lora", {"alpha": 3, "r": 8}), ("dft", {"r": 1}))
    assert (entry.train.warmup, entry.train.lr) == (0, 1e-5)


def test_values_of_a_grid_may_be_lists_and_nested_settings(read: Read) -> None:
    text = HEAD + "methods: {lora: {grid: {lora.targets: [[q, v], all], train.budget.steps: [5, 9]}}}\n"
    methods = read(text).methods
    assert list(methods) == [f"lora[targets={t},steps={s}]" for t in ("q+v", "all") for s in (5, 9)]
    assert {entry.train.budget.steps for entry in methods.values()} == {5, 9}
    assert {entry.train.budget.tokens for entry in methods.values()} == {None}


# --- choosing cells ---------------------------------------------------------------------------------------------

CHOICE = """\
models: {small: a/b, big-1.5b: c/d}
data: {d: "make:sums"}
train: {data: d}
methods: {base: , sft: , lora: {grid: {lora.r: [8, 32]}}, lora+dft: }
seeds: 2
suites: [math]
"""


@pytest.mark.parametrize(
    ("only", "count"),
    [
        ([], 2 * (1 + 2 + 4 + 2)),
        (["small"], 9),
        (["sft"], 4),
        (["lora"], 8),
        (["lora[r=8]"], 4),
        (["lora*"], 12),
        (["small.lora[r=8].s1"], 1),
        (["*.s1"], 8),
        (["big-?.5b.base"], 1),
        (["small", "base"], 10),
        (["small.lora+dft.s0", "small.base"], 2),
    ],
)
def test_only_chooses_by_cell_method_or_model(read: Read, only: list[str], count: int) -> None:
    matrix = read(CHOICE)
    chosen = matrix.cells(only)
    assert len(chosen) == count
    everything = names(matrix.cells())
    assert names(chosen) == [name for name in everything if name in names(chosen)]


def test_patterns_that_match_nothing_are_all_reported_with_what_there_is(read: Read) -> None:
    with pytest.raises(Problems) as caught:
        read(CHOICE).cells(["sft", "lorra", "huge*"])
    first, second = (str(problem) for problem in caught.value.problems)
    assert first == (
        "--only lorra: no cell, method or model matches\n"
        "  why: there are models: small, big-1.5b; methods: base, sft, lora[r=8], lora[r=32], lora+dft\n"
        '  do:  did you mean "lora"?'
    )
    assert second.startswith("--only huge*: no cell")


def test_the_number_of_seeds_may_be_changed(read: Read) -> None:
    assert names(read(CHOICE).cells(["small.sft.*"], seeds=3)) == [f"small.sft.s{i}" for i in range(3)]


def test_excluded_cells_are_left_out(read: Read) -> None:
    text = CHOICE + "exclude: [{model: small, method: sft}, {model: 'big*', method: lora}, {method: lora+dft}]\n"
    left = {(cell.model, cell.method) for cell in read(text).cells()}
    assert left == {
        ("small", "base"),
        ("small", "lora[r=8]"),
        ("small", "lora[r=32]"),
        ("big-1.5b", "base"),
        ("big-1.5b", "sft"),
    }


# --- mistakes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (HEAD + "methods: {}\n", "5: `methods` needs at least 1 item"),
        (HEAD + "methods: []\n", "5: `methods` needs at least 1 item"),
        (HEAD + "methods: sft\n", '5: `methods` should be a mapping or a list, not "sft"'),
        (HEAD + "methods: {sft: 5}\n", "5: `methods.sft` should be a mapping or a list or nothing, not 5"),
        (HEAD + "methods:\n- sft\n- 5\n", "7: `methods.1` should be text or a list or a mapping, not 5"),
        (HEAD + "methods: {a/b: }\n", "5: `methods.a/b`: a name may hold letters, digits"),
        (HEAD + "methods: [a b]\n", "5: `methods.0`: a name may hold letters, digits"),
        (HEAD + "methods:\n  sft:\n  sft:\n", "7: key `sft` is given twice\n  why: it stands on line 6 already"),
        (HEAD + "methods:\n- sft\n- [lora]\n- sft\n", "8: method `sft` is given twice\n  why: it stands at 6 already"),
        (
            HEAD + "methods:\n  sft: {stak: [lora]}\n",
            '6: unknown key `stak` in `methods.sft`\n  do:  did you mean "stack"',
        ),
        (HEAD + "methods:\n  sft: {stack: []}\n", "6: `methods.sft.stack` needs at least 1 item"),
        (HEAD + "methods:\n  sft: {stack: [lora, lora]}\n", "6: `lora` stands twice in the stack of `sft`"),
        (
            HEAD + "methods:\n  x:\n  - lora: {r: 1}\n    dft:\n",
            "7: a member of the stack of `x` names 2 methods, not one",
        ),
        (HEAD + "methods:\n  x: [{}]\n", "6: a member of the stack of `x` names 0 methods, not one"),
        (HEAD + "methods:\n  sft:\n    train:\n      lrr: 1\n", "8: unknown key `lrr` in `methods.sft.train`"),
        (HEAD + "methods:\n  sft:\n    train: {lr: -1}\n", "7: `methods.sft.train.lr` should be more than 0, not -1"),
        (HEAD + "methods:\n  sft: {data: e}\n", "6: there is no data `e`\n  do:  known: d"),
        (HEAD + "methods:\n  base: {data: d}\n", "6: `base` is the untouched model, so its `data` would do nothing"),
        (HEAD + "methods:\n  base: {train: {lr: 1}}\n", "6: `base` is the untouched model, so its `train` would"),
        (HEAD + "methods: [sft]\nbaseline: base\n", "6: the baseline `base` is no method here\n  do:  known: sft"),
        (HEAD + "methods: [sft]\nseeds: []\n", "6: `seeds` needs at least 1 item"),
        (HEAD + "methods: [sft]\nseeds: 0\n", "6: `seeds` should be more than 0, not 0"),
        (HEAD + "methods: [sft]\nseeds: [-1]\n", "6: `seeds.0` should be at least 0, not -1"),
        (HEAD + "methods: [sft]\nseeds:\n- 1\n- 1\n", "8: 1 stands twice in `seeds`"),
        (HEAD + "methods: [sft]\nseeds: true\n", "6: `seeds` should be a whole number or a list, not true"),
        (HEAD + "methods: [sft]\nversion: 2\n", "6: `version` should be 1, not 2"),
        (HEAD + "methods: [sft]\nname: a/b\n", "6: `name`: a name may hold letters"),
        (
            HEAD + "methods: [sft]\nkeep: adapter\n",
            '6: `keep` should be all, adapters or none, not "adapter"\n  do:  did',
        ),
        (HEAD + "methods: [sft]\nengine: {nam: hf}\n", '6: unknown key `nam` in `engine`\n  do:  did you mean "name"?'),
        (
            HEAD + "methods: [sft]\nexclude:\n- {method: lora}\n",
            "7: `exclude` of model `*`, method `lora` matches no cell",
        ),
        (
            HEAD + "methods: [sft]\nexclude: [{model: n}]\n",
            "6: `exclude` of model `n`, method `*` matches no cell\n  do:  k",
        ),
        (HEAD + "methods: [sft]\nexclude:\n- method: sft\n", "6: `exclude` leaves no cell"),
        ("models: {m: a}\nmethods: [base]\nsuites: []\n", "3: `suites` needs at least 1 item"),
        ("models: {m: a}\nmethods: [base]\nsuites: [x,\n  y, x]\n", "4: x stands twice in `suites`"),
        (
            "models: {m: a}\nmethods: [base]\nsuites: {x: {limit: 0}}\n",
            "3: `suites.x.limit` should be more than 0, not 0",
        ),
        ("models: {m: a}\nmethods: [base]\nsuites: {x: 5}\n", "3: `suites.x` should be a mapping or nothing, not 5"),
        ("models: {}\nmethods: [base]\nsuites: [x]\n", "1: `models` needs at least 1 item"),
        ("models: {m: }\nmethods: [base]\nsuites: [x]\n", "1: `models.m` should be text or a mapping, not nothing"),
        ("models: {m: {}}\nmethods: [base]\nsuites: [x]\n", "1: key `source` is missing in `models.m`"),
        ("models: {m: a}\nmethods: [base]\n", "1: key `suites` is missing"),
        ("models: {m: a}\nmethods: [sft]\nsuites: [x]\n", "2: there is no data to train `sft` on\n  do:  give"),
        (
            "models: {m: a}\ntrain: {data: d}\nmethods: [sft]\nsuites: [x]\n",
            "2: there is no data `d`\n  do:  add a block",
        ),
        (
            "models: {m: a}\nmethods: [base]\nsuites: [x]\ntrain:\n  budget: {tokens: 5, steps: 5}\n",
            "5: `train.budget`: give `tokens` or `steps`, not both",
        ),
        (
            "models: {m: a}\nmethods: [base]\nsuites: [x]\ntrain:\n  budget: {}\n",
            "5: `train.budget`: give `tokens` or `steps`, one of them",
        ),
        (
            "models: {a: x, a.b: x}\ndata: {d: 'make:x'}\ntrain: {data: d}\nmethods:\n  b.c:\n  c:\nsuites: [x]\n",
            "6: 2 cells are called `a.b.c.s0`\n  why: model `a` with method `b.c` and model `a.b` with method `c`",
        ),
    ],
)
def test_one_mistake_is_one_problem_with_its_line(problems: Callable[..., list[str]], text: str, problem: str) -> None:
    [found] = problems(text)
    assert found.startswith(problem)


@pytest.mark.parametrize(
    ("grid", "problem"),
    [
        ("{lora.r: []}", "6: `methods.lora.grid.lora.r` needs at least 1 item"),
        ("{lora.r: 8}", "6: `methods.lora.grid.lora.r` should be a list, not 8"),
        ("{lora.r: [8, 8]}", "6: 8 stands twice on the axis `lora.r`"),
        ("{r: [8]}", "6: `r` is no axis of a grid\n  do:  write `train.SETTING` or `METHOD.PARAMETER`"),
        ("{loro.r: [8]}", '6: `loro` is not in the stack of `lora`\n  do:  did you mean "lora"?'),
        ("{train.lrr: [8]}", '6: unknown key `lrr` in `train`\n  do:  did you mean "lr"?'),
        ("{train.lr: [1, x]}", '6: `train.lr` should be a number, not "x"'),
        ("{lora.r: [{a: 1}]}", "6: this value of a grid cannot be part of a name"),
        ("{lora.r: [a/b]}", "6: this value of a grid cannot be part of a name"),
    ],
)
def test_a_wrong_grid_is_one_problem_with_its_line(problems: Callable[..., list[str]], grid: str, problem: str) -> None:
    [found] = problems(HEAD + f"methods:\n  lora: {{grid: {grid}}}\n")
    assert found.startswith(problem)


def test_mistakes_of_all_kinds_are_reported_together(problems: Callable[..., list[str]]) -> None:
    text = """\
        nmae: demo
        models: {m: some/model}
        data: {sums: {source: "make:sums", rows: "600"}}
        train: {data: suns, lr: fast}
        methods:
          base: {train: {lr: 1e-4}}
          lora: {stack: [lora, lora]}
          lora:
          dft: {stack: [dft], grid: {lora.r: [1], train.lr: [x, y]}}
        seeds: [1, 1]
        suites: [math, math]
        baseline: bas
        exclude: [{method: loro}]
    """
    assert [problem.splitlines()[0] for problem in problems(text, "keep=some", "train.warmup=2")] == [
        "1: unknown key `nmae`",
        '3: `data.sums.rows` should be a whole number, not "600"',
        '4: `train.lr` should be a number, not "fast"',
        "4: there is no data `suns`",
        "6: `base` is the untouched model, so its `train` would do nothing",
        "7: `lora` stands twice in the stack of `lora`",
        "8: key `lora` is given twice",
        "9: `lora` is not in the stack of `dft`",
        *(f'9: `train.lr` should be a number, not "{value}"' for value in "xy"),
        "10: 1 stands twice in `seeds`",
        "11: math stands twice in `suites`",
        "12: the baseline `bas` is no method here",
        "13: `exclude` of model `*`, method `loro` matches no cell",
        "--set train.warmup=2: `train.warmup` should be less than 1, not 2",
        '--set keep=some: `keep` should be all, adapters or none, not "some"',
    ]


def test_what_was_wrong_is_not_reported_as_missing_too(problems: Callable[..., list[str]]) -> None:
    text = """\
        models: {m: some/model}
        data: {d: "make:sums"}
        train: {data: 5}
        methods:
          x: {stack: 5, grid: {lora.r: [1]}}
        suites: [math]
    """
    assert problems(text) == [
        "3: `train.data` should be text, not 5\n  do:  put it in quotes",
        "5: `methods.x.stack` should be a list, not 5",
    ]


def test_overrides_name_themselves_when_they_break_something(problems: Callable[..., list[str]]) -> None:
    text = HEAD.replace("lr: 1e-5", "budget: {tokens: 5}") + "methods: [sft]\n"
    assert problems(text, "train.budget.steps=3") == [
        "--set train.budget.steps=3: `train.budget`: give `tokens` or `steps`, not both"
    ]
    assert problems(text, "train.data=e")[0].startswith("--set train.data=e: there is no data `e`")


def test_an_override_reaches_into_a_method(read: Read) -> None:
    matrix = read(
        HEAD + "methods: {lora: {stack: [{lora: {r: 8}}]}}\n", "methods.lora.stack.0.lora.r=4", "train.lr=1e-3"
    )
    [cell] = matrix.cells()
    assert (cell.stack, cell.train.lr) == ((("lora", {"r": 4}),), 1e-3)
    assert matrix.where("methods.lora.stack.0.lora.r") == "--set methods.lora.stack.0.lora.r=4"


# --- places -----------------------------------------------------------------------------------------------------

MAPPING_FORM = """\
models:
  m-0.5b: some/model
methods:
  base:
  x+y:
    data: d
    stack:
    - x: {r: 3}
    - y
  lora: {data: d, grid: {lora.r: [8]}}
data: {d: "file:x"}
suites:
  math:
"""
LIST_FORM = """\
models: {m-0.5b: some/model}
methods:
- base
- [x,
   y]
- lora: {grid: {lora.r: [8]}}
data: {d: "file:x"}
train: {data: d}
suites:
- code
- math
"""


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (
            MAPPING_FORM,
            {
                "models.m-0.5b": 2,
                "methods.base": 4,
                "methods.base.stack.0": 4,
                "methods.x+y": 5,
                "methods.x+y.stack.0": 8,
                "methods.x+y.stack.1": 9,
                "methods.lora[r=8]": 10,
                "methods.lora[r=8].stack.0": 10,
                "data.d": 11,
                "suites.math": 13,
            },
        ),
        (
            LIST_FORM,
            {
                "models.m-0.5b": 1,
                "methods.base": 3,
                "methods.base.stack.0": 3,
                "methods.x+y": 4,
                "methods.x+y.stack.0": 4,
                "methods.x+y.stack.1": 5,
                "methods.lora[r=8]": 6,
                "suites.code": 10,
                "suites.math": 11,
                "suites.math.limit": 11,
            },
        ),
    ],
)
def test_every_name_has_its_line_in_whatever_form_it_is_written(
    read: Read, path: Path, text: str, lines: dict[str, int]
) -> None:
    matrix = read(text)
    assert {name: matrix.where(name) for name in lines} == {name: f"{path}:{line}" for name, line in lines.items()}
    assert matrix.where(("methods", "x+y", "stack", 1)) == matrix.where("methods.x+y.stack.1")


# --- size and speed ---------------------------------------------------------------------------------------------


def test_ten_thousand_cells_are_made_in_half_a_second(path: Path) -> None:
    models = ", ".join(f"m{i}: some/model" for i in range(10))
    grid = f"{{lora.r: {list(range(1, 11))}, train.lr: [{', '.join(f'{i}e-5' for i in range(1, 11))}]}}"
    path.write_text(
        f"models: {{{models}}}\ndata: {{d: 'file:x'}}\ntrain: {{data: d}}\nmethods: {{lora: {{grid: {grid}}}}}\n"
        "seeds: 10\nsuites: [math]\n"
    )
    times = []
    for _ in range(3):
        started = time.perf_counter()
        assert len({cell.name for cell in load_matrix(path).cells()}) == 10_000
        times.append(time.perf_counter() - started)
    assert min(times) < 0.5


def test_reading_a_matrix_imports_nothing_heavy() -> None:
    code = (
        "import sys; from harness.matrix import load_matrix; from harness.packaged import packaged; "
        "load_matrix(packaged('matrix.yaml')).cells(); "
        "heavy = {'torch', 'transformers', 'numpy', 'pandas', 'lm_eval', 'datasets'}; "
        "print(sorted({m.partition('.')[0] for m in sys.modules} & heavy))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
