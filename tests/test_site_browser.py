"""The site of a board in a real browser: what a reader does with it, without a server and without a network."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from harness.boards.site import DATA, About, Point, _script, write_site
from harness.boards.site.payload import make_payload
from harness.results.frame import CellView, TaskView
from harness.results.table import make_table
from tests.boards_made import made_frame
from tests.browser import Visit, chromium

HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "</script><script>document.title='taken'</script>",
    "=cmd|' /C calc'!A0",
    "a\"b'c&amp;",
    "javascript:alert(1)",
)
VIEWS = (
    *("#/overview", "#/suite/math?delta=1", "#/cost", "#/differences", "#/differences?as=forest", "#/training"),
    *("#/samples", "#/trends", "#/reading"),
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


def texts(cell: str, task: TaskView) -> list[Mapping[str, Any]]:
    """Samples with all their words; the first cell is right on even items, every other on items that three divides."""
    lines = []
    for n in range(40):
        right = float(n % 2 == 0 if cell == "small.base" else n % 3 == 0)
        said = {
            "answer": f"said {n}",
            "target": str(n),
            "prompt": f"What is {n}?",
            "output": f"It is {n}, says {cell}.",
        }
        lines.append({"doc": n, "hash": f"{n:016x}", "scores": {task.primary: right}, "outcome": "", "why": "", **said})
    return lines


def curve(view: CellView) -> Iterator[tuple[int, Mapping[str, float]]]:
    """A loss that falls with a gap in it, over more steps than are drawn; one method is rewarded too."""
    for step in range(1, 1001):
        loss = {"loss": math.nan if step == 500 else 2 / step}
        yield step, loss | ({"reward": step / 1000} if view.method == "dft" else {})


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    frame = made_frame(["small", "large"], ["base", "sft", "lora", "dora", "dft"], seeds=2, tasks=5, items=60)
    history = tuple(Point(f"2026-01-{day:02}", "small", "sft", "task_0", 0.5, 0.4, 0.6) for day in range(1, 6))
    write_site(
        About("made", "A made board", reproduce="harness run", history=history), frame, out, read=texts, curves=curve
    )
    return out


@pytest.fixture
def visit(browser: Any, site: Path) -> Iterator[Visit]:
    found = Visit(browser, site)
    yield found
    found.close()


def numbers(texts: list[str]) -> list[float]:
    return [float(text.replace("−", "-").replace("+", "")) for text in texts]


def test_a_click_on_a_heading_sorts_and_a_second_one_turns_the_order_round(visit: Visit) -> None:
    visit.go("#/suite/math")
    heading = visit.page.get_by_role("button", name="task_0")
    heading.click()
    down = numbers(visit.column(5))
    heading.click()
    up = numbers(visit.column(5))
    assert down == sorted(down, reverse=True) and up == sorted(up) and len(up) == 10 and up != down
    assert visit.page.locator("th[aria-sort=ascending]").inner_text().startswith("task_0")


def test_search_and_filters_leave_the_rows_that_fit_and_say_how_many(visit: Visit) -> None:
    visit.page.get_by_role("searchbox").fill("dora small")
    assert visit.column(1) == ["dora (2 seeds)"] and visit.page.locator("#count").inner_text() == "1 of 10 rows"
    visit.page.get_by_role("searchbox").fill("")
    visit.page.get_by_label("Model").select_option("large")
    assert set(visit.column(2)) == {"large"}
    visit.page.get_by_label("Family").select_option("adapter")
    assert {name.split()[0] for name in visit.column(1)} == {"lora", "dora"}
    visit.page.get_by_label("each seed").check()
    assert len(visit.column(1)) == 6
    visit.page.get_by_role("searchbox").fill("nothing like it")
    assert visit.column(1) == ["No row matches these filters."]


def test_views_follow_the_links_the_address_and_the_back_button(visit: Visit) -> None:
    for name in ("math", "glue", "Cost", "Differences", "Training", "Samples", "Trends", "How to read"):
        visit.page.get_by_role("navigation", name="Views").get_by_role("link", name=name, exact=True).click()
        visit.shows("nav#views [aria-current=page]", name)
        visit.has("main h2", 1)
    visit.page.go_back()
    visit.shows("main h2", "Trends")


def test_filters_stay_when_the_view_changes(visit: Visit) -> None:
    visit.page.get_by_role("searchbox").fill("lora")
    visit.page.get_by_role("link", name="Cost", exact=True).click()
    visit.shows("nav#views [aria-current=page]", "Cost")
    assert visit.page.get_by_role("searchbox").input_value() == "lora"
    assert visit.column(1) == ["lora (2 seeds)", "lora (2 seeds)"]


def test_differences_to_the_baseline_show_their_sign_and_their_verdict(visit: Visit) -> None:
    visit.page.get_by_label("difference to base").check()
    shown = visit.page.locator("td.score").all_inner_texts()
    assert any("+" in text for text in shown) and "baseline" in shown
    assert visit.page.get_by_role("img", name="better").count() > 0


def test_the_map_greys_what_is_undecided_and_every_field_has_its_words(visit: Visit) -> None:
    visit.go("#/differences?map=m0")
    visit.has("table.map td.field", 4 * 6)  # methods x columns
    fields = visit.page.locator("table.map td.field")
    kinds = {name for kind in fields.evaluate_all("all => all.map(e => e.className)") for name in kind.split()}
    assert {"better", "undecided"} <= kinds
    grey, blue = (
        visit.page.locator(f"table.map td.{kind}").first.evaluate("e => getComputedStyle(e).backgroundColor")
        for kind in ("undecided", "better")
    )
    assert grey == "rgb(233, 235, 238)" and blue != grey


def test_the_forest_has_a_picture_a_column_and_a_line_a_row_best_first(visit: Visit) -> None:
    visit.go("#/differences?map=m0")
    visit.page.locator("select[name=as]").select_option("forest")
    visit.has("figure.forest", 6)  # columns
    first = visit.page.locator("figure.forest").first
    assert {text.split()[1] for text in first.locator(".effect text").all_text_contents()} == {
        *("sft", "lora", "dora", "dft")
    }
    told = first.locator(".effect title").all_text_contents()
    values = numbers([text.split(": ")[1].split()[0] for text in told])
    assert values == sorted(values, reverse=True)
    assert "better" in (first.locator("svg").get_attribute("aria-label") or "")
    visit.page.locator("select[name=map]").select_option(index=2)
    visit.has("figure.forest", 1)
    visit.has(".effect", 8)  # methods of both models


def test_training_has_a_picture_a_row_with_a_line_a_seed_and_names_rows_that_logged_nothing(visit: Visit) -> None:
    visit.go("#/training")
    visit.has("figure.panel", 8)
    visit.has(".curve path", 16)
    label = visit.page.locator("figure.panel svg").first.get_attribute("aria-label") or ""
    assert "seed 1 from" in label and "to 0.002 in 1000 steps" in label
    visit.page.get_by_label("Logged value").select_option("reward")
    visit.has("figure.panel", 2)
    assert "lora (2 seeds) of small" in visit.page.locator("main .lead").last.inner_text()
    visit.page.get_by_role("searchbox").fill("lora")
    visit.shows("main div > p", "No row of these logged reward.")


def test_a_score_opens_its_samples_beside_those_of_the_baseline(visit: Visit) -> None:
    visit.go("#/suite/math?q=lora%20small")
    visit.page.locator("td.score a").first.click()
    visit.page.wait_for_selector(".item")
    assert visit.page.locator(".sides h4").all_inner_texts() == ["A: small.lora.s0", "B: small.base"]
    visit.page.get_by_role("button", name="only A right").click()
    visit.has(".list li", 7)  # divided by three, and odd: 3, 9, ..., 39
    visit.page.get_by_role("button", name="next").click()
    assert visit.page.locator(".item h3").inner_text() == f"Item {9:016x}"
    item = visit.page.locator(".item").inner_text()
    assert "What is 9?" in item and "It is 9, says small.lora.s0." in item and "It is 9, says small.base." in item
    assert visit.page.locator(".sides mark").all_inner_texts() == ["small.lora.s0.", "small.base."]
    assert visit.page.locator(".verdict").all_inner_texts() == ["✓ right · acc 1", "✗ wrong · acc 0"]
    visit.page.get_by_role("button", name="only B right").click()
    visit.has(".list li", 13)


@pytest.mark.parametrize(
    ("ours", "theirs", "wanted"),
    [
        ("a b c d e", "a b c d e", []),
        ("a b c d e", "a x c d e", ["b"]),
        ("a b c d e", "a c d e", ["b"]),
        ("a c d e", "a b c d e", []),
        ("one two\n three  four five", "one three four five six", ["two"]),
        ("a b b a c", "b a c", ["a b"]),
        ("nothing is alike here", "quite another text altogether", []),
        ("", "a", []),
        ("same " * 3000 + "mine", "same " * 3000 + "theirs", ["mine"]),
    ],
)
def test_words_that_only_one_of_two_answers_has_are_marked(
    visit: Visit, ours: str, theirs: str, wanted: list[str]
) -> None:
    script = """([ours, theirs]) => {
        const pre = document.createElement("pre");
        pre.append(...[Harness.marked(ours, theirs)].flat());
        return [pre.textContent, [...pre.querySelectorAll("mark")].map((mark) => mark.textContent)];
    }"""
    text, marks = visit.page.evaluate(script, [ours, theirs])
    assert (text, marks) == (ours, wanted)


def test_scores_stand_against_costs_and_a_row_without_a_cost_is_named(visit: Visit) -> None:
    visit.go("#/cost")
    visit.has("svg .spot", 8)
    assert "base of small" in visit.page.locator("figcaption").inner_text()
    visit.page.locator("select[name=x]").select_option("trainable_parameters")
    assert visit.page.locator("svg text.name").first.text_content() == "trainable"


def test_trends_have_a_point_a_day(visit: Visit) -> None:
    visit.go("#/trends")
    visit.has("svg .spot", 5)
    assert len(visit.column(1)) == 5


def test_the_keyboard_alone_sorts_searches_and_opens_a_sample(visit: Visit) -> None:
    press = visit.page.keyboard.press
    press("Tab")
    assert visit.page.evaluate("document.activeElement.textContent") == "Skip to the results"
    press("Enter")
    press("Tab")  # the table, which scrolls by the arrow keys
    assert visit.page.evaluate("document.activeElement.getAttribute('role')") == "region"
    press("Tab")
    press("Enter")
    assert visit.page.locator("th[aria-sort]").inner_text().startswith("method")
    visit.go("#/suite/glue")
    visit.page.locator("td.score a").first.focus()
    press("Enter")
    visit.page.wait_for_selector(".item")
    visit.shows("main h2", "Samples")


def test_a_narrow_screen_scrolls_tables_but_never_the_page(browser: Any, site: Path) -> None:
    for view in VIEWS:
        visit = Visit(browser, site, view, viewport={"width": 360, "height": 740})
        wide = visit.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide == 0, view
        visit.close()


def test_printing_shows_every_row_and_none_of_the_controls(visit: Visit) -> None:
    visit.page.emulate_media(media="print")
    assert not visit.page.locator("#filters").is_visible() and not visit.page.locator("nav#views").is_visible()
    assert len(visit.column(1)) == 10 and len(visit.page.pdf()) > 5000


def test_even_a_script_of_the_page_could_not_call_out(browser: Any, site: Path) -> None:
    visit = Visit(browser, site)
    calls = """async () => {
        const blocked = [];
        addEventListener("securitypolicyviolation", (event) => blocked.push(event.effectiveDirective));
        await fetch("https://example.org/").catch(() => null);
        new Image().src = "https://example.org/x.png";
        const script = document.createElement("script");
        script.src = "https://example.org/x.js";
        document.head.append(script);
        await new Promise((resolve) => setTimeout(resolve, 200));
        return blocked;
    }"""
    assert sorted(visit.page.evaluate(calls)) == ["connect-src", "img-src", "script-src-elem"]
    visit.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_names_and_contrast_are_as_axe_asks(browser: Any, site: Path, scheme: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    for view in VIEWS:
        visit = Visit(browser, site, view, color_scheme=scheme)
        found = Axe().run(visit.page, options={"preload": False})  # it would fetch the style sheet, which we forbid
        assert found.violations_count == 0, f"{view}\n{found.generate_report()}"
        visit.close()


def test_hostile_names_are_shown_letter_by_letter_and_nothing_of_them_runs(browser: Any, tmp_path: Path) -> None:
    frame = made_frame(HOSTILE[:2], ["base", *HOSTILE], tasks=2, items=30)
    write_site(About(HOSTILE[0], HOSTILE[1], notes=HOSTILE, reproduce=HOSTILE[1]), frame, tmp_path, curves=curve)
    for view in VIEWS:
        visit = Visit(browser, tmp_path, view)
        visit.page.on("dialog", lambda said: pytest.fail(f"a name ran: {said.message}"))
        assert visit.page.title() == HOSTILE[1] == visit.page.locator("h1").inner_text()
        visit.has("img, iframe, main script", 0)
        if view == "#/overview":
            assert set(HOSTILE) <= set(visit.column(1)) and set(HOSTILE[:2]) == set(visit.column(2))
        visit.close()


@pytest.mark.slow
def test_the_pages_of_a_real_run_show_its_rows_and_what_its_model_was_asked_and_said(
    browser: Any, site_of_a_run: Path
) -> None:
    visit = Visit(browser, site_of_a_run)
    assert set(visit.column(1)) == {"base", "sft"} and visit.page.locator("h1").inner_text() == "Mine"
    visit.page.get_by_role("link", name="math", exact=True).click()
    visit.shows("nav#views [aria-current=page]", "math")
    visit.page.locator("td.score a").first.click()
    visit.page.wait_for_selector(".item")
    words = visit.page.locator(".item .name").all_inner_texts()
    assert {"Prompt as sent", "Expected", "Answer as read by the scorer", "Output"} <= set(words)
    visit.has(".list li", 12)
    visit.close()


def test_five_hundred_cells_by_twenty_tasks_open_within_two_seconds_and_stay_quick(
    browser: Any, tmp_path: Path
) -> None:
    """The browser's share alone: rows of a small board, each many times over under names of their own."""
    frame = made_frame(["m"], ["base", "sft", "lora", "dora", "dft"], tasks=20, items=30)
    about = About("large", "A large board")
    write_site(about, frame, tmp_path)
    body = make_payload(about, frame, make_table(frame)) | {"sampled": {}, "logged": [], "nights": 0}
    body["rows"] = [
        {**body["rows"][n % 5], "label": f"method {n}", "method": f"method {n}" if n else "base"} for n in range(500)
    ]
    for column in body["columns"]:
        column["suite"] = "math"
    body |= {"suites": ["math"], "places": {"math": {"reason": "made"}, "": {"reason": "made"}}}
    _script(tmp_path / DATA / "board.js", ["board"], body)
    began = time.monotonic()
    visit = Visit(browser, tmp_path, "#/suite/math")
    opened = time.monotonic() - began
    visit.page.locator("tbody tr").nth(499).wait_for()
    assert len(body["columns"]) >= 20 and opened < 2
    sort = """() => {
        const began = performance.now();
        document.querySelectorAll("thead button")[2].click();
        document.body.offsetHeight;
        return performance.now() - began;
    }"""
    assert visit.page.evaluate(sort) < 1000
    visit.page.get_by_role("searchbox").fill("method 49")
    assert len(visit.column(1)) == 15
    visit.close()
