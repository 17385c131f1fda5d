"""The mirror folder: hub ids become local files, and nothing else is asked."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from harness.data.mirror import open_mirror
from harness.data.sources import pin, rows
from harness.errors import HarnessError
from harness.matrix.schema import DataEntry


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "math").mkdir()
    (tmp_path / "math" / "test.jsonl").write_text('{"q": 1}\n{"q": 2}\n')
    (tmp_path / "mirror.yaml").write_text(
        "someone/sums:main: &sums {test: math/test.jsonl}\nsums:main: *sums\nsomeone/one: {test: math/gone.jsonl}\n"
    )
    return tmp_path


def test_a_hub_id_becomes_its_file(folder: Path) -> None:
    source = pin(DataEntry(source="hub:someone/sums:main", split="test"), mirror=folder)
    assert rows(source) == [{"q": 1}, {"q": 2}]
    assert source.digest == pin("mirror:math/test.jsonl", mirror=folder).digest


def test_the_environment_names_a_mirror(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_MIRROR", str(folder))
    assert pin(DataEntry(source="hub:sums:main", split="test")).count == 2


@pytest.mark.parametrize(
    ("spec", "split", "words"),
    [
        ("hub:someone/sum:main", "test", "no data set `someone/sum:main`.*someone/sums:main"),
        ("hub:someone/sums:main", "train", "no split `train`.*test"),
        ("hub:someone/one", "test", "no file `math/gone.jsonl`"),
        ("mirror:math/tests.jsonl", None, "no file.*math/test.jsonl"),
        ("mirror:../secret.jsonl", None, "outside"),
    ],
)
def test_what_the_mirror_lacks_is_not_at_hand_with_the_nearest_name(
    folder: Path, spec: str, split: str | None, words: str
) -> None:
    source = pin(DataEntry(source=spec, split=split), mirror=folder, offline=False)
    assert not source.at_hand
    assert re.search(words, source.needs), source.needs


def test_a_folder_without_an_index_is_no_mirror(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match=r"no mirror\.yaml"):
        open_mirror(tmp_path)
    with pytest.raises(HarnessError, match="does not exist"):
        open_mirror(tmp_path / "nowhere")


def test_an_index_that_is_not_a_mapping_of_splits_is_refused_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "mirror.yaml").write_text("a/b: {test: x.jsonl}\nc/d: x.jsonl\n")
    with pytest.raises(HarnessError, match="should map splits") as error:
        open_mirror(tmp_path)
    assert error.value.where.endswith("mirror.yaml:2")


def test_every_file_of_the_real_mirror_is_there(mirror: Path) -> None:
    opened = open_mirror(mirror)
    assert opened is not None
    for name, splits in opened.sets.items():
        for split in splits:
            assert opened.file(name, split).is_file()
