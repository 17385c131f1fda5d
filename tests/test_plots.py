"""What the figures hold: colours by verdict, words for what has no number, names as they are, files that repeat."""

from __future__ import annotations

import json
import random
from array import array
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness import cli
from harness.digest import key_of
from harness.errors import HarnessError
from harness.results.frame import CellResult, CellView, Cost, Frame, Result, State, TaskView
from harness.results.items import Samples
from harness.results.plots import curves, forest, heatmap, pareto, style
from harness.results.plots.curves import Curve
from harness.results.table import Table, make_table
from harness.runs import RunView, run_folder
from harness.store import Store
from tests.test_results_table import World, shares

N = 200
ITEMS = tuple(f"i{n}" for n in range(N))
HOSTILE = [r"$\frac{", "a_b^c$x$", "<script>&amp;", "line\nbreak\x00", "漢字🙂", "x" * 300, "", "%s {0} \\"]


def cell(
    method: str, share: float, *, seed: int | None = 0, state: State = "ok", model: str = "m", suites: int = 1
) -> CellResult:
    """One cell whose share of right items is near `share` in every suite."""
    trained, results, views = method != "base", [], []
    for suite in range(suites):
        task = TaskView(f"s{suite}", f"t{suite}", "acc", True, f"{model}{method}{seed}{suite}", f"p{suite}", items=N)
        draw = random.Random(f"{suite}{seed}")
        values = array("d", (float(draw.random() < share) for _ in ITEMS))
        mean = sum(values) / N
        ok = Result(task, "ok", "", mean, N, Samples(ITEMS, values), seed=seed, settled=not trained)
        results.append(ok if state == "ok" else Result(task, state, "for a reason", seed=seed))
        views.append(task)
    train = (f"{model}.{method}.{seed}",) if trained else ()
    view = CellView(f"{model}.{method}.s{seed}", model, method, seed if trained else None, (), train, tuple(views))
    cost = Cost(train_seconds=10.0 + 100 * share) if trained and state == "ok" else Cost()
    return CellResult(view, state, "" if state == "ok" else "for a reason", tuple(results), cost)


def table_of(cells: Sequence[CellResult], baseline: str | None = "base") -> Table:
    return make_table(Frame(tuple(cells)), baseline=baseline, rows="methods")


def seeds(method: str, share: float, **how: Any) -> list[CellResult]:
    return [cell(method, share, seed=s, **how) for s in range(3)]


@pytest.fixture
def mixed() -> Table:
    """A clear gain, a clear loss, nothing to tell, one seed, a divergence and a cell that is not done."""
    rows = [cell("base", 0.5, seed=None), *seeds("up", 0.9), *seeds("down", 0.1), *seeds("same", 0.5)]
    return table_of([*rows, cell("lone", 0.9), cell("broke", 0, state="diverged"), cell("later", 0, state="missing")])


def words(figure: Any) -> list[str]:
    from matplotlib.text import Text

    return [t.get_text() for t in figure.findobj(Text) if t.get_text()]


def write(plots: Sequence[style.Plot], folder: Path) -> list[Path]:
    return [path for plot in plots for path in style.save(plot, folder)]


def faces(figure: Any) -> dict[str, list[Any]]:
    """Of the heat map's cells the colours, by verdict."""
    from matplotlib.patches import Rectangle

    found: dict[str, list[Any]] = {}
    for patch in figure.findobj(Rectangle):
        if patch.get_gid():
            found.setdefault(patch.get_gid(), []).append(patch.get_facecolor()[:3])
    return found


def test_only_findings_of_the_heat_map_are_coloured(mixed: Table) -> None:
    from matplotlib.colors import to_rgb

    (plot,) = heatmap.draw(mixed)
    found = faces(plot.figure)
    assert {k: len(v) for k, v in found.items()} == {"better": 1, "worse": 1, "undecided": 1, "items only": 1}
    assert found["undecided"] == [to_rgb(style.FAINT)]
    assert found["items only"] == [to_rgb("white")]
    assert found["better"][0][2] > found["better"][0][0] and found["worse"][0][0] > found["worse"][0][2]


def test_every_cell_of_the_heat_map_has_its_number_or_a_word(mixed: Table) -> None:
    (plot,) = heatmap.draw(mixed)
    rows = {r.method: r.entries[0] for r in mixed.rows}
    shown = words(plot.figure)
    for method in ("up", "down", "same"):
        difference = rows[method].difference
        assert difference is not None and difference.value is not None
        assert style.signed(difference.value, 100) in shown
    lone = rows["lone"].difference
    assert lone is not None and lone.value is not None and f"({style.signed(lone.value, 100)})" in shown
    assert "diverged" in shown and "missing" in shown
    assert "base" not in shown  # its difference to itself is no cell


def test_models_stand_beside_each_other_and_what_was_not_asked_says_so() -> None:
    cells = [cell("base", 0.5, seed=None, model="a"), cell("base", 0.5, seed=None, model="b")]
    (plot,) = heatmap.draw(table_of([*cells, *seeds("up", 0.9, model="a"), *seeds("down", 0.1, model="b")]))
    assert words(plot.figure).count("not asked") == 2
    assert {"a", "b"} <= set(words(plot.figure))


def test_a_model_without_the_baseline_has_words_instead_of_numbers() -> None:
    cells = [cell("base", 0.5, seed=None, model="a"), *seeds("up", 0.9, model="a"), *seeds("up", 0.9, model="b")]
    (plot,) = heatmap.draw(table_of(cells))
    assert "no baseline" in words(plot.figure)


def points(figure: Any) -> dict[str, list[Any]]:
    """Of the forest's dots the fill, by verdict."""
    from matplotlib.lines import Line2D

    found: dict[str, list[Any]] = {}
    for line in figure.findobj(Line2D):
        if line.get_gid() in ("better", "worse", "undecided", "items only"):
            found.setdefault(line.get_gid(), []).append(line.get_markerfacecolor())
    return found


def test_the_forest_fills_findings_and_leaves_one_seed_hollow(mixed: Table) -> None:
    (plot,) = forest.draw(mixed)
    assert points(plot.figure) == {
        "better": [style.BETTER],
        "worse": [style.WORSE],
        "undecided": [style.GREY],
        "items only": ["white"],
    }
    assert {"diverged", "missing", "points"} <= set(words(plot.figure))
    assert any("(n = 200)" in w for w in words(plot.figure)) and any("95 % intervals" in w for w in words(plot.figure))
    assert "1 to 3 seeds a trained method" in " ".join(words(plot.figure)).replace("\n", " ")


def test_the_intervals_of_the_forest_are_those_of_the_table(mixed: Table) -> None:
    from matplotlib.lines import Line2D

    (plot,) = forest.draw(mixed)
    drawn = [tuple(map(float, line.get_xdata())) for line in plot.figure.findobj(Line2D) if len(line.get_xdata()) == 2]
    found = [r.entries[0].difference for r in mixed.rows]
    wanted = [(100 * d.low, 100 * d.high) for d in found if d and d.low is not None and d.high is not None]
    assert len(wanted) == 4 and set(wanted) <= set(drawn)


def test_many_tasks_and_few_methods_turn_the_forest_into_a_panel_a_method() -> None:
    cells = [cell("base", 0.5, seed=None, suites=8), *seeds("up", 0.9, suites=8)]
    (plot,) = forest.draw(table_of(cells))
    assert len(plot.figure.axes) == 1
    assert len(points(plot.figure)["better"]) == 8


def test_many_panels_are_several_files() -> None:
    cells = [cell("base", 0.5, seed=None, suites=8), *(cell(f"x{n}", 0.6, suites=8) for n in range(9))]
    assert [p.name for p in forest.draw(table_of(cells))] == ["forest-1", "forest-2"]


def test_the_front_is_marked_and_what_has_no_point_is_named_in_the_key(mixed: Table) -> None:
    from matplotlib.lines import Line2D

    (plot,) = pareto.draw(mixed)
    (line,) = [x for x in plot.figure.findobj(Line2D) if x.get_gid() == "front"]
    ups = [r for r in mixed.rows if r.method in ("base", "up")]
    best = {r.method: r.entries[0].estimate for r in mixed.rows}
    top = max((e.value or 0) for e in best.values() if e is not None)
    assert line.get_ydata()[-1] == pytest.approx(100 * top)
    assert line.get_xdata()[0] == 0 and len(ups) == 2
    key = " ".join(words(plot.figure))
    assert "broke: diverged" in key and "later: missing" in key and "seconds of training" in key


def test_curves_have_a_panel_a_method_and_a_line_a_seed_and_say_what_is_amiss() -> None:
    fine = tuple((n, 1.0 / n) for n in range(1, 30))
    bad = (*fine[:5], (6, float("nan")), (7, float("inf")))
    (plot,) = curves.draw(
        [
            Curve("m", "sft", 0, "ok", fine),
            Curve("m", "sft", 1, "ok", fine),
            Curve("m", "wild", 0, "diverged", bad),
            Curve("m", "wild", 1, "missing", ()),
            Curve("m", "later", 0, "missing", ()),
        ]
    )
    panels = {a.get_title(loc="left"): a for a in plot.figure.axes}
    assert list(panels) == ["sft", "wild", "later"]
    assert [len(a.lines) for a in panels.values()] == [2, 1, 0]
    shown = words(plot.figure)
    assert [len(a.texts) for a in panels.values()] == [0, 1, 1]
    assert "diverged: 0; missing: 1" in shown and "missing" in shown
    assert {"seed 0", "seed 1"} <= {t.get_text() for t in plot.figure.legends[0].get_texts()}


@pytest.mark.parametrize("kind", [pareto, heatmap, forest])
@pytest.mark.parametrize("names", [HOSTILE, ["one"], [f"method-{n}" for n in range(40)]], ids=["hostile", "1", "40"])
def test_any_names_and_any_number_of_rows_draw_without_a_warning(kind: Any, names: list[str], tmp_path: Path) -> None:
    cells = [cell("base", 0.5, seed=None, model=HOSTILE[0]), *(cell(n, 0.6, model=HOSTILE[0]) for n in names)]
    plots = kind.draw(table_of(cells))
    for path in write(plots, tmp_path):
        assert path.stat().st_size > 1000
    for plot in plots:
        assert max(plot.figure.get_size_inches()) < 30
        assert any("$" in w for w in words(plot.figure))  # shown as it is, no formula


def test_curves_of_any_names_and_forty_methods(tmp_path: Path) -> None:
    named = [*HOSTILE, *(f"method-{n}" for n in range(40))]
    write(curves.draw([Curve(HOSTILE[4], n, s, "ok", ((1, 2.0), (2, 1.0))) for n in named for s in range(9)]), tmp_path)


def test_the_same_figure_is_the_same_svg_without_a_date_and_without_the_users_settings(
    mixed: Table, tmp_path: Path
) -> None:
    import matplotlib

    first = write([*pareto.draw(mixed), *heatmap.draw(mixed), *forest.draw(mixed)], tmp_path / "a")
    with matplotlib.rc_context({"font.size": 30, "svg.hashsalt": "other", "axes.facecolor": "black"}):
        second = write([*pareto.draw(mixed), *heatmap.draw(mixed), *forest.draw(mixed)], tmp_path / "b")
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]
    assert b"<dc:date>" not in next(p for p in first if p.suffix == ".svg").read_bytes()


def test_models_of_one_plain_name_do_not_share_a_file() -> None:
    names = style.file_names("forest", ["a/b", "a:b", "../..", "c"])
    assert len({n.lower() for n in names.values()}) == 4
    assert all("/" not in n and ".." not in n for n in names.values())
    assert style.file_names("forest", ["../x"]) == {"../x": "forest"}


@pytest.mark.parametrize("kind", [heatmap, forest])
def test_without_differences_there_is_a_reason(kind: Any) -> None:
    with pytest.raises(HarnessError, match="no baseline in the table"):
        kind.draw(table_of([cell("up", 0.6)]))
    with pytest.raises(HarnessError, match="no method was measured beside the baseline"):
        kind.draw(table_of([cell("base", 0.6, seed=None)]))


def test_without_costs_or_curves_there_is_a_reason() -> None:
    with pytest.raises(HarnessError, match="no trained method has both"):
        pareto.draw(table_of([cell("base", 0.6, seed=None), cell("x", 0, state="missing")]))
    with pytest.raises(HarnessError, match="nothing here is trained"):
        curves.draw([])
    with pytest.raises(HarnessError, match="its trainer logged no loss"):
        curves.draw([Curve("m", "x", 0, "ok", ())])


def test_curves_are_read_from_the_train_steps_and_count_on_over_stages(tmp_path: Path) -> None:
    store, keys = Store(tmp_path / "store"), []
    for stage, losses in enumerate(((2.0, 1.0), (0.5, float("nan")))):
        identity = {"train": stage}
        keys.append(key_of("train", identity))
        with store.claim("train", keys[-1], identity) as attempt:
            lines = [json.dumps({"step": n, "loss": loss, "lr": 0.1}) for n, loss in enumerate(losses, 1)]
            (attempt.work / "curve.jsonl").write_text("\n".join(lines) + "\n")
            attempt.publish()
    made = cell("sft", 0.5)
    trained = replace(made, view=replace(made.view, train=tuple(keys)))
    (curve,) = curves.read(Frame((trained, cell("base", 0.5, seed=None))), store)
    assert [step for step, _ in curve.points] == [1, 2, 3, 4]
    assert [loss for _, loss in curve.points][:3] == [2.0, 1.0, 0.5]


@pytest.fixture
def run(tmp_path: Path) -> list[str]:
    """The arguments that plot a finished run of two methods into a folder."""
    made = World(tmp_path)
    made.cell("base", shares(0.1))
    made.cell("sft", shares(0.6))
    folder = run_folder(made.store, "demo")
    folder.mkdir(parents=True)
    view = RunView("demo", "base", (), tuple(made.cells))
    (folder / "run.json").write_text(json.dumps(view.as_json()))
    return ["plot", "demo", str(tmp_path / "out"), "--store", str(tmp_path / "store")]


def test_the_command_writes_what_it_can_and_says_why_not_the_rest(
    run: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(run) == 0
    out, err = capsys.readouterr()
    names = {Path(line).name for line in out.splitlines()}
    assert names == {f"{k}.{s}" for k in ("pareto", "heatmap", "forest") for s in ("png", "svg")}
    assert names == {p.name for p in (tmp_path / "out").iterdir()}
    assert "note: no loss curves" in err


def test_one_kind_alone_and_another_baseline(run: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*run, "--kind", "forest", "--baseline", "sft"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
    assert cli.main([*run, "--kind", "curves"]) == 2
    assert "no loss curves" in capsys.readouterr().err
    assert cli.main([*run, "--baseline", "bsae"]) == 2
    assert "there is no method `bsae`" in capsys.readouterr().err


def test_without_matplotlib_the_command_says_what_to_install(
    run: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert cli.main(run) == 2
    assert "pip install matplotlib" in capsys.readouterr().err


def test_the_command_refuses_what_cannot_be_plotted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = [str(tmp_path / "no.yaml"), str(tmp_path / "out"), "--store", str(tmp_path / "store")]
    assert cli.main(["plot", *run]) == 2
    (tmp_path / "file").write_text("")
    assert cli.main(["plot", "any", str(tmp_path / "file"), "--store", str(tmp_path / "store")]) == 2
    assert "is a file" in capsys.readouterr().err
