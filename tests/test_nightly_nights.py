"""What nights leave on disk: lines that are only added, a pointer that only `accept` moves, and what may be deleted."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from harness.errors import HarnessError, Refused
from harness.nightly.attribution import Attempt, bisect, summary
from harness.nightly.baseline import accept, read_baseline
from harness.nightly.closing import let_go
from harness.nightly.environment import canonical_name, changes, environment_digest, machine_class, packages
from harness.nightly.findings import Example, Finding
from harness.nightly.nights import Line, Night, Nights
from harness.nightly.procedure import fresh
from harness.nightly.report import junit, markdown

FACTS = {
    "environment": "e", "machine": "m", "started": "2026-01-31T00:00:00+00:00", "only": [], "packages": {},
    "matrix": "", "overrides": [], "limit": None, "seeds": [0, 1],
}  # fmt: skip
REPORT = {"verdict": "", "findings": [], "accepted": None, "costs": {}}


def line(cell: str = "m.x", value: float | None = 0.5) -> Line:
    return Line(
        "frozen", cell, "s", "t", "acc", True, "ok", "", value, 10, (0, 1), (value, value), ("a", "b"), ("k", "l"),
        ("f", "g"), "p", "t", "e", "m", "stores/frozen",
    )  # fmt: skip


def make(nights: Nights, date: str, *, code: int | None = 0, cells: tuple[str, ...] = ("m.x",), **facts: Any) -> Night:
    night = nights.new(date)
    night.begin({**FACTS, **facts})
    night.add("frozen", [line(cell) for cell in cells])
    if code is not None:
        (night.folder / "report.json").write_text(json.dumps({**REPORT, "code": code}))
    return night


def test_a_part_is_read_back_as_it_was_added(tmp_path: Path) -> None:
    night = make(Nights(tmp_path, "b"), "2026-01-31")
    night.add("empty", [], {"costs": {"m.x": {}}})
    parts = night.parts()
    assert parts["frozen"][0] == [line()]
    assert parts["empty"] == ([], {"end": "empty", "lines": 0, "costs": {"m.x": {}}})
    assert night.torn == []


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("night.json", "{}", "it lacks started, packages"),
        ("night.json", "[1", "cannot be read"),
        ("report.json", '{"code": 0}', "it lacks verdict"),
        ("results.jsonl", '{"part": "frozen"}\n', "missing"),
        ("results.jsonl", "7\n", "int"),
    ],
)
def test_a_damaged_file_of_a_night_is_named_with_what_to_do(tmp_path: Path, file: str, text: str, said: str) -> None:
    night = make(Nights(tmp_path, "b"), "2026-01-31")
    (night.folder / file).write_text(text)
    with pytest.raises(HarnessError) as told:
        _ = night.facts(), night.report(), night.parts()
    assert str(night.folder / file) in str(told.value) and said in str(told.value)
    assert "do:" in str(told.value)


def test_a_folder_of_another_name_is_no_night(tmp_path: Path) -> None:
    nights = Nights(tmp_path, "b")
    night = make(nights, "2026-01-31")
    shutil.copytree(night.folder, nights.folder / "x.y")
    shutil.copytree(night.folder, nights.folder / "2026-01-31 copy")
    assert [n.name for n in nights.all()] == ["2026-01-31"]


def test_that_no_night_is_finished_is_said(tmp_path: Path) -> None:
    nights = Nights(tmp_path, "b")
    make(nights, "2026-01-31", code=None)
    with pytest.raises(HarnessError, match="no night is finished yet"):
        nights.named("last")


def test_a_baseline_without_its_history_is_told(tmp_path: Path) -> None:
    nights = Nights(tmp_path, "b")
    night = make(nights, "2026-01-31")
    accept(nights, night, who="A", why="first", when="now")
    file = nights.folder / "baseline.json"
    file.write_text(json.dumps({k: v for k, v in json.loads(file.read_text()).items() if k != "history"}))
    with pytest.raises(HarnessError, match="the baseline cannot be read"):
        accept(nights, night, who="A", why="again", when="now")


@pytest.mark.parametrize("seeds", [(0, 1, 2), (0, 500, 1000), (7, 5000, 12)])
def test_no_night_and_no_confirmation_share_a_seed(seeds: tuple[int, ...]) -> None:
    used = [s + 2 * fresh(seeds) * night + more for night in range(5) for more in (0, fresh(seeds)) for s in seeds]
    assert len(set(used)) == len(used)
    assert fresh((0, 1, 2)) == 500, "nights that are accepted already keep theirs"


def test_a_torn_line_is_told_and_what_was_not_whole_is_not_read(tmp_path: Path) -> None:
    night = make(Nights(tmp_path, "b"), "2026-01-31")
    file = night.folder / "results.jsonl"
    before = file.read_text()
    with file.open("a") as out:
        out.write(json.dumps(asdict(line("m.lost"))) + "\n" + json.dumps(asdict(line("m.torn")))[:40])
    assert set(night.parts()) == {"frozen"}
    assert "a line was cut off" in night.torn[0]
    night.add("retrained", [])
    assert set(night.parts()) == {"frozen", "retrained"}
    assert file.read_text().startswith(before)  # nothing is ever taken back
    assert len(night.torn) == 1


def test_a_part_that_was_begun_twice_counts_once(tmp_path: Path) -> None:
    night = make(Nights(tmp_path, "b"), "2026-01-31")
    with (night.folder / "results.jsonl").open("a") as out:
        out.write("".join(json.dumps({**asdict(line()), "part": "again"}) + "\n" for _ in range(2)))
    night.add("again", [replace(line("m.y"), part="again")])
    assert [each.cell for each in night.parts()["again"][0]] == ["m.y"]


def test_nights_are_in_order_and_those_that_are_missing_are_not_there(tmp_path: Path) -> None:
    nights = Nights(tmp_path, "b")
    for date in ("2026-01-31", "2026-01-31", "2026-01-02", *["2026-02-03"] * 11):
        make(nights, date)
    names = [night.name for night in nights.all()]
    assert names[:3] == ["2026-01-02", "2026-01-31", "2026-01-31.2"]
    assert names[-1] == "2026-02-03.11"
    assert nights.named("last").name == names[-1]
    with pytest.raises(HarnessError, match="no night `2026-01-03`"):
        nights.named("2026-01-03")


def test_accept_notes_who_and_why_and_keeps_what_was_before(tmp_path: Path) -> None:
    nights = Nights(tmp_path, "b")
    first, second, third = (make(nights, f"2026-01-0{n}", code=code) for n, code in ((1, 5), (2, 0), (3, 3)))
    for night in (first, second, third):
        accept(nights, night, who="ada", why=f"reason {night.name}", when="now")
    body = json.loads((tmp_path / "b" / "baseline.json").read_text())
    assert [(h["night"], h["since"]) for h in body["history"]] == [
        ("2026-01-01", "2026-01-01"),
        ("2026-01-02", "2026-01-01"),
        ("2026-01-03", "2026-01-03"),
    ]
    found = read_baseline(nights)
    assert found is not None
    assert (found.who, found.why) == ("ada", "reason 2026-01-03")
    assert not found.covers("2026-01-02.9")
    assert found.covers("2026-01-03.2")


def test_what_cannot_be_accepted(tmp_path: Path) -> None:
    nights = Nights(tmp_path, "b")
    for night, words in (
        (make(nights, "2026-01-01", code=None), "not finished"),
        (make(nights, "2026-01-02", cells=()), "no result"),
        (make(nights, "2026-01-03", only=["m.x*"]), "is a part of the matrix"),
    ):
        with pytest.raises(Refused, match=words):
            accept(nights, night, who="a", why="b", when="c")
    assert read_baseline(nights) is None
    (tmp_path / "b" / "baseline.json").write_text("{")
    with pytest.raises(HarnessError, match="cannot be read"):
        read_baseline(nights)


def test_old_stores_go_and_results_stay(tmp_path: Path) -> None:
    nights = Nights(tmp_path, "b")
    made = [make(nights, f"2026-01-0{n}") for n in range(1, 7)]
    for night in made:
        (night.folder / "stores" / "frozen").mkdir(parents=True)
    let_go(nights, made[0].name, kept=2)
    assert [(n.folder / "stores").exists() for n in made] == [True, False, False, False, True, True]
    assert all(n.parts()["frozen"][0] for n in made)


def test_the_environment_names_every_package_once() -> None:
    found = packages()
    assert found["python"].startswith("3.")
    assert {"lm-eval", "transformers", "harness"} <= found.keys()
    assert all(name == canonical_name(name) for name in found)
    assert environment_digest(found) != environment_digest({**found, "transformers": "0"})
    assert changes({"a": "1", "b": "1", "c": "1"}, {"a": "1", "b": "2", "d": "1"}) == {
        "b": ("1", "2"),
        "c": ("1", None),
        "d": (None, "1"),
    }
    assert re.match(r"[\d.]+ x ", machine_class())


def test_one_package_at_a_time_until_one_explains_it() -> None:
    software: dict[str, tuple[str | None, str | None]] = {
        "added": (None, "1"),
        "broken": ("1", "2"),
        "guilty": ("1", "2"),
        "harness": ("1", "2"),
        "innocent": ("1", "2"),
        "later": ("1", "2"),
    }
    asked: list[str] = []

    def gone(name: str) -> bool:
        asked.append(name)
        return name == "innocent"

    attempts = bisect(software, lambda name, version: "no such file" if name == "broken" else "", gone)
    assert asked == ["guilty", "innocent"]
    assert [(a.package, a.explains) for a in attempts] == [
        ("added", None),
        ("broken", None),
        ("guilty", False),
        ("harness", None),
        ("innocent", True),
    ]
    assert "innocent 1 -> 2 moved the numbers" in summary(attempts)
    assert summary(attempts[:-1]) == "no single package explains it; not tried: added, broken, harness"
    assert "no package differs" in summary([])


def test_a_package_that_cannot_be_measured_with_is_no_answer() -> None:
    def gone(name: str) -> bool:
        raise RuntimeError("it does not import")

    (attempt,) = bisect({"x": ("1", None)}, lambda name, version: "", gone)
    assert attempt == Attempt("x", "1", None, None, "nothing could be measured with it: it does not import")


def test_nothing_that_a_model_wrote_is_rendered() -> None:
    evil = "<script>`|`**x**\x1b[31m\u202e"
    example = Example(evil, 0, "1", "0", evil, evil)
    finding = Finding("A", "confirmed", evil, evil, evil, evil, 0.1, examples=(example,))
    body = {
        "verdict": "V", "night": "n", "machine": evil, "accepted": "o", "code": 3, "codes": [3], "cause": evil,
        "findings": [asdict(finding)], "software": {}, "bisect": [], "noise": {evil: [1, 2]}, "notes": [evil],
    }  # fmt: skip
    text = markdown(body)
    assert "<script>" not in re.sub(r"`[^`]*`", "", text)
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert ElementTree.fromstring(junit(body)).attrib["failures"] == "1"
