"""Running the `harness` command in tests: a small matrix on a tiny model, and what it left."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

MATRIX = """
version: 1
name: small
models: {{tiny: {model}}}
data: {{sums: {{source: "make:word_problems", rows: 40}}}}
train: {{data: sums, budget: {{steps: {steps}}}, batch_size: 2, lr: 1e-3, checkpoint_seconds: 0.2}}
methods:
  base: {{}}
  sft: {{}}
  lora+dft: {{}}
seeds: 1
suites:
  math: {{limit: 12, tasks: [made_word_problems]}}
  tool_use: {{limit: 6, tasks: [simple_python]}}
  glue: {{limit: 10, tasks: [made_sentiment]}}
engine: {{name: {engine}, max_model_len: {context}}}
"""


def write_matrix(folder: Path, model: Path, *, engine: str = "fake", steps: int = 3, context: int = 4096) -> Path:
    """A matrix of three cells and three tasks."""
    file = folder / "small.yaml"
    file.write_text(MATRIX.format(model=model, engine=engine, steps=steps, context=context))
    return file


def environment(folder: Path) -> dict[str, str]:
    """An empty home and a cache of its own; no mirror, no hub."""
    kept = {k: v for k, v in os.environ.items() if k not in ("HARNESS_MIRROR", "HARNESS_STORE", "HARNESS_CACHE")}
    (folder / "home").mkdir(exist_ok=True)
    extra = {"HOME": str(folder / "home"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    return {**kept, **extra, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}


def start(folder: Path, *args: str | Path) -> subprocess.Popen[str]:
    """`harness ARGS` in a folder, without waiting."""
    argv = [sys.executable, "-m", "harness", *map(str, args)]
    pipe = subprocess.PIPE
    return subprocess.Popen(argv, cwd=folder, env=environment(folder), stdout=pipe, stderr=pipe, text=True)


def harness(folder: Path, *args: str | Path, code: int | None = 0) -> tuple[str, str]:
    """`harness ARGS` in a folder; (stdout, stderr). code: what it must exit with, None for anything."""
    process = start(folder, *args)
    out, err = process.communicate()
    assert code is None or process.returncode == code, f"exit {process.returncode}\n{out}\n{err}"
    return out, err


def scores(table: str) -> str:
    """The part of a Markdown table that does not tell how long things took."""
    return table.split("Cost")[0]


def alive(marker: str, command: str = "") -> list[int]:
    """Processes whose command line or environment names `marker`, and whose command line names `command`."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            line = (entry / "cmdline").read_bytes()
            text = line + (entry / "environ").read_bytes()
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if marker.encode() in text and command.encode() in line and state != "Z":
            found.append(int(entry.name))
    return found


def wait_until(condition: object, seconds: float) -> bool:
    """Poll a callable until it is true; whether it became true in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():  # type: ignore[operator]
            return True
        time.sleep(0.05)
    return False
