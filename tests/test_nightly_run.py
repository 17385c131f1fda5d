"""`harness nightly` and `harness accept` as typed, on the fake engine: whole runs, a kill, a changed package."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.runs import environment, harness, wait_until

ROOT = Path(__file__).resolve().parents[1]
SCORER = """
import zlib


def score(doc, results):
    return {{"acc": float(zlib.crc32(results[0].encode()) % 10 < {threshold})}}
"""
SUITE = """
name: mine
about: one task
tasks:
  words:
    version: 1
    file: words.yaml
    data: [{source: "file:rows.jsonl"}]
    regime: made-for-tests
    chat: true
    sampling: {temperature: 0.0, max_tokens: 12, stop: []}
    metric: acc
    chance: 0.0
    licence: none needed
"""
TASK = """
task: words
output_type: generate_until
test_split: test
doc_to_text: q
doc_to_target: a
process_results: !function nightscorer.score
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
"""
MATRIX = """
version: 1
name: small
models: {{tiny: {model}}}
data: {{sums: {{source: "make:word_problems", rows: 40}}}}
train: {{data: sums, budget: {{steps: 2}}, batch_size: 2, lr: 1e-3}}
methods: {{base: {{}}, lora: {{}}}}
seeds: 3
suites: {{./mine.yaml: {{}}}}
engine: {{name: fake, max_model_len: 4096}}
"""


def make_wheel(folder: Path, version: str, threshold: int) -> Path:
    """A package with one scorer in it, as `pip` installs it and as it lies on a path."""
    info = f"nightscorer-{version}.dist-info"
    files = {
        "nightscorer.py": SCORER.format(threshold=threshold),
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: nightscorer\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    digests = {n: base64.urlsafe_b64encode(hashlib.sha256(t.encode()).digest()).rstrip(b"=") for n, t in files.items()}
    record = "".join(f"{n},sha256={digests[n].decode()},{len(t.encode())}\n" for n, t in files.items())
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n"
    (folder / "wheels").mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / "wheels" / f"nightscorer-{version}-py3-none-any.whl", "w") as wheel:
        for name, text in files.items():
            wheel.writestr(name, text)
    wheel_path = folder / f"v{version}"
    with zipfile.ZipFile(folder / "wheels" / f"nightscorer-{version}-py3-none-any.whl") as wheel:
        wheel.extractall(wheel_path)
    return wheel_path


def start(folder: Path, version: str, *args: str) -> subprocess.Popen[str]:
    """`harness ARGS` with one version of the scorer installed."""
    env = {**environment(folder), "PYTHONPATH": f"{folder / f'v{version}'}{os.pathsep}{ROOT}"}
    env |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder / "wheels"), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    argv, pipe = [sys.executable, "-m", "harness", *args], subprocess.PIPE
    return subprocess.Popen(argv, cwd=folder, env=env, stdout=pipe, stderr=pipe, text=True, start_new_session=True)


def run(folder: Path, version: str, *args: str, code: int) -> str:
    process = start(folder, version, *args)
    out, err = process.communicate()
    assert process.returncode == code, f"exit {process.returncode}\n{out}\n{err}"
    return out


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A folder with a matrix, two versions of its scorer, and a first night."""
    folder = tmp_path_factory.mktemp("nights")
    rows = "".join(json.dumps({"q": f"Item {i}?", "a": "-"}) + "\n" for i in range(40))
    for name, text in (("rows.jsonl", rows), ("mine.yaml", SUITE), ("words.yaml", TASK)):
        (folder / name).write_text(text)
    (folder / "small.yaml").write_text(MATRIX.format(model=tiny_model))
    make_wheel(folder, "1.0", 7)
    make_wheel(folder, "2.0", 6)
    out = run(folder, "1.0", "nightly", "small.yaml", code=5)
    assert out.startswith("UNDECIDED: no baseline yet")
    assert "- words: 0 of 320" in out
    return folder


def night_names(study: Path) -> list[str]:
    return sorted(file.parent.name for file in (study / "nights" / "small").glob("*/night.json"))


@pytest.mark.slow
def test_nights_of_a_real_run_with_a_kill_and_a_changed_package(study: Path) -> None:
    out = run(study, "1.0", "accept", "last", "--why", "the first", "--who", "tester", code=0)
    assert "later nights are compared with" in out
    pointer = json.loads((study / "nights" / "small" / "baseline.json").read_text())
    assert (pointer["who"], pointer["why"]) == ("tester", "the first")

    killed = start(study, "1.0", "nightly", "small.yaml")
    folder = study / "nights" / "small"
    assert wait_until(lambda: list(folder.glob("*/stores/frozen/generate")), 120)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert len(night_names(study)) == 2

    out = run(study, "1.0", "nightly", "small.yaml", "--report", "report", code=0)
    assert out.startswith("PASS")
    assert len(night_names(study)) == 2  # the same night went on
    assert {file.name for file in (study / "report").iterdir()} == {"report.md", "report.json", "junit.xml"}

    out = run(study, "2.0", "nightly", "small.yaml", "--gate", "a", "--bisect", "--json", code=3)
    body = json.loads(out)
    assert body["software"] == {"nightscorer": ["1.0", "2.0"]}
    assert {(f["gate"], f["status"]) for f in body["findings"]} == {("replay", "confirmed")}
    assert all(f["up"] == 0 and f["down"] > 0 for f in body["findings"])
    assert body["findings"][0]["examples"][0]["answer_was"] == body["findings"][0]["examples"][0]["answer_now"] != ""
    assert body["cause"] == "nightscorer 1.0 -> 2.0 moved the numbers: with 1.0 they return"

    out = run(study, "2.0", "accept", "last", "--why", "the new scorer is right", "--json", code=0)
    assert json.loads(out)["since"] == night_names(study)[-1]
    assert run(study, "2.0", "nightly", "small.yaml", "--gate", "a", code=0).startswith("PASS")

    out = run(study, "2.0", "site", "nights/small", "--out", "pages", code=0)
    assert "cells of 4 nights; open it in a browser" in out
    told = (study / "pages" / "data" / "history.js").read_text()
    for note in ("nightscorer 1.0 -> 2.0", "accepted: the new scorer is right", "confirmed worse"):
        assert note in told
    assert any('"answer"' in file.read_text() for file in (study / "pages" / "data" / "samples").rglob("*.js"))
    run(study, "2.0", "site", "nights/small", "--out", "pages", "--outputs", code=2)


def test_mistakes_in_the_command_are_told_before_anything_runs(study: Path) -> None:
    _, err = harness(study, "nightly", "small.yaml", "--margin", "math=1", code=2)
    assert "the matrix has no suite `math`" in err
    assert "no points" in harness(study, "nightly", "small.yaml", "--margin", "./mine.yaml=x", code=2)[1]
    assert "3 seeds at least" in harness(study, "nightly", "small.yaml", "--seeds", "2", code=2)[1]
    assert "there is no night `2020-01-01`" in harness(study, "accept", "2020-01-01", "--why", "x", code=2)[1]
    assert "needs a reason" in harness(study, "accept", "last", "--why", " ", code=2)[1]
    assert "no nights of `other`" in harness(study, "accept", "last", "--why", "x", "--board", "other", code=2)[1]
    assert "run `harness nightly` first" in harness(study / "wheels", "accept", "last", "--why", "x", code=2)[1]
    help_text = harness(study, "nightly", "--help")[0]
    assert "example: harness nightly" in help_text
    assert "3 a confirmed regression" in " ".join(help_text.split())
