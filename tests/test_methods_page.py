"""The table of docs/methods.md is the one that the registry and the boards give, and what `harness methods` shows."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from harness import methods
from harness.commands.methods import page, type_of
from harness.results.relative import Spent, relative_costs
from tests.runs import harness

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "methods.md"
BEGIN, END = "<!-- made by `harness methods --markdown` -->\n", "<!-- end -->"


def test_the_table_of_methods_is_up_to_date() -> None:
    table = PAGE.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]
    made = page(sorted(methods.OURS), relative_costs(ROOT / "leaderboards"))
    assert table.strip() == made, f"put what `harness methods --markdown` prints between the two marks of {PAGE.name}"


@pytest.mark.parametrize("name", sorted(methods.OURS))
def test_every_method_says_what_it_is_and_what_its_tests_compare_it_with(name: str) -> None:
    cls = methods.load(name)
    assert cls.__doc__ and cls.verified
    assert set(cls.knobs) <= set(cls.Params.model_fields)


def entry(folder: Path, cell: str, *trains: dict[str, Any]) -> None:
    """An entry as a board has it: a tar of records, of which those of training are read."""
    folder.mkdir(parents=True, exist_ok=True)
    bodies = {"index.json": {}, "score/1/record.json": {"cost": {"seconds": 5}, "status": "ok"}}
    bodies |= {f"train/{i}/record.json": body for i, body in enumerate(trains)}
    with tarfile.open(folder / f"{cell}.tar.gz", "w:gz") as tar:
        for name, body in bodies.items():
            data = json.dumps(body).encode()
            about = tarfile.TarInfo(name)
            about.size = len(data)
            tar.addfile(about, io.BytesIO(data))


def trained(
    *stack: str, tokens: int = 100, extra: int = 0, seconds: float = 10.0, peak: int = 1000, **changes: Any
) -> dict[str, Any]:
    settings = {"budget": {"tokens": 100}, "batch_size": 4, "precision": "bf16", "lr": tokens / 7}
    return {
        "status": "ok",
        "identity": {
            "stack": [[name, 1, {}] for name in stack],
            "trainer": ["native", 1],
            "model": "m",
            "seed": 0,
            "settings": settings,
            **changes,
        },
        "cost": {
            "trained_tokens": tokens,
            "extra_forward_tokens": {"base": extra} if extra else {},
            "seconds": {"open": 50.0, "forward": seconds / 2, "backward": seconds / 4, "data": seconds / 4},
            "peak_bytes": {"open": 10, "forward": peak},
        },
    }


def test_costs_are_multiples_of_what_sft_spent_in_the_same_way(tmp_path: Path) -> None:
    folder = tmp_path / "small" / "entries"
    entry(folder, "sft,0", trained("sft", seconds=9))
    entry(folder, "sft,1", trained("sft", seconds=11, seed=1))
    entry(folder, "sft,2", trained("sft", seconds=70, seed=2))
    entry(folder, "dpo,0", trained("dpo", extra=100, seconds=20, peak=1500))
    entry(folder, "dpo,1", trained("dpo", extra=100, seconds=40, peak=1500, seed=1))
    entry(folder, "dpo,3", trained("dpo", seconds=70, seed=3))
    entry(folder, "dft,3", trained("dft", seed=3))
    entry(
        folder, "two,0", trained("two", tokens=40, seconds=5), trained("two", tokens=60, extra=50, seconds=13, peak=900)
    )
    entry(folder, "lora+dft,0", trained("lora", "dft"))
    entry(folder, "sft>dpo,0", trained("sft", seconds=70), trained("dpo", seconds=70))
    entry(folder, "theirs,0", trained("sft", seconds=99, trainer=["trl", 1]))
    entry(folder, "base,0")
    entry(tmp_path / "other" / "entries", "lora,0", trained("lora", seconds=18))
    entry(tmp_path / "other" / "entries", "dora,0", trained("dora", model="another"))
    assert relative_costs(tmp_path) == {
        "sft": Spent(1.0, 1.0, 1.0, 1.0),
        "dpo": Spent(2.0, 1.0, 3.0, 1.5),
        "two": Spent(1.5, 1.0, 2.0, 1.0),
        "lora": Spent(1.0, 1.0, 2.0, 1.0),
    }
    assert relative_costs(tmp_path / "nowhere") == {}
    assert page(["dpo"], relative_costs(tmp_path)).endswith("| 2.00 | 1.00 | 3.00 | 1.50 |")


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "number", "exclusiveMinimum": 0, "maximum": 1}, "number > 0 and <= 1"),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, "whole number or nothing"),
        ({"enum": ["a", "b"]}, '"a" or "b"'),
        ({"const": "a"}, '"a"'),
        ({"type": "array", "items": {"type": "string"}}, "list of text"),
        ({"type": "array", "prefixItems": [{"type": "integer"}]}, "list of whole number"),
        ({"$ref": "#/$defs/Upstream"}, "Upstream"),
        ({}, "any"),
    ],
)
def test_types_are_said_in_words(schema: dict[str, Any], words: str) -> None:
    assert type_of(schema) == words


def test_the_list_and_one_method_are_shown_in_full(tmp_path: Path) -> None:
    head, *rows = harness(tmp_path, "methods")[0].splitlines()
    assert head.split("  ")[0] == "METHOD" and len(rows) >= len(methods.OURS)
    for title in ("FAMILY", "SERVED AS", "HOOKS", "PARAMETERS", "PAPER"):
        assert title in head
    lora = next(row for row in rows if row.startswith("lora "))
    assert all(part in lora for part in ("adapter", "wrap, unwrap", "r, alpha", "arXiv 2106.09685"))
    shown = harness(tmp_path, "methods", "lora")[0]
    for part in (
        "number >= 0 and < 1",
        "4 to 128",
        '"all-linear"',
        "served as: adapter",
        "alpha: the update is scaled",
    ):
        assert part in shown
    assert harness(tmp_path, "methods", "--markdown")[0].count("\n| `") == len(methods.OURS)
