"""What a table costs. Run by hand: `python benchmarks/tables.py [--cells 1000] [--tasks 20] [--items 1000]`.

A store of made-up scores of 0 and 1 is written first: methods with five seeds each, on one model. Then `harness table`
runs in a process of its own; printed are its seconds and peak memory (target for the defaults: 20 s and 4 GiB), and
those with tiers and of `harness site`. No model is run.
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
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from harness.digest import digest, key_of  # noqa: E402 (after the path to the package)
from harness.results.frame import CellView, TaskView, items_identity  # noqa: E402
from harness.results.items import COLUMNS  # noqa: E402
from harness.runs import RunView, run_folder, write  # noqa: E402
from harness.store import Store  # noqa: E402

SEEDS, NAME, METRIC = 5, "made", "acc"


def views(cells: int, tasks: int, items: int) -> list[CellView]:
    """The cells of a run: a baseline and methods of five seeds."""
    made = []
    for number in range(cells):
        method, seed = f"m{number // SEEDS:04}", number % SEEDS
        name = f"model.{method}.s{seed}"
        scores = []
        for t in range(tasks):
            measured = {"task": f"task{t:02}"}
            scores.append(
                TaskView(
                    suite=f"suite{t // 4}",
                    task=f"task{t:02}",
                    primary=METRIC,
                    headline=True,
                    key=key_of("score", {"cell": name, "task": t}),
                    protocol=digest(measured)[:16],
                    measured=measured,
                    chance=0.0,
                    items=items,
                    of=items,
                    label=f"task{t:02}",
                )
            )
        made.append(CellView(name, "model", method, seed, (), (), tuple(scores)))
    return made


def fill(store: Store, cells: list[CellView], items: int) -> None:
    """The per-item scores of every cell, in the file that the items step leaves."""
    rng = np.random.default_rng(0)
    names = np.array(sorted(f"{i:016x}" for i in range(items)))
    hard = {t.task: rng.random(items) for t in cells[0].scores}
    for number, cell in enumerate(cells):
        skill = 0.5 + 0.1 * np.sin(number // SEEDS)
        tasks = sorted(cell.scores, key=lambda t: t.key)
        values = [(rng.random(items) < 0.5 * skill + 0.5 * hard[t.task]).astype(float) for t in tasks]
        identity = items_identity(t.key for t in tasks)
        with store.claim("items", key_of("items", identity), identity) as attempt:
            parquet.write_table(
                table_of(np.repeat([t.key for t in tasks], items), np.tile(names, len(tasks)), np.concatenate(values)),
                attempt.work / "items.parquet",
                compression="zstd",
            )
            facts = {
                t.key: {"metrics": {METRIC: {"value": float(v.mean()), "n": items}}, "truncated": 0.0, "too_long": 0}
                for t, v in zip(tasks, values, strict=True)
            }
            attempt.publish(extra={"tasks": facts})


def table_of(keys: Any, names: Any, scores: Any) -> pa.Table:
    """Columns as `harness.results.items` writes them."""
    n = len(keys)
    empty, none = pa.array([""] * n), pa.nulls(n, pa.string())
    by_name = {"task": pa.array(keys), "metric": pa.array([METRIC] * n), "item": pa.array(names)}
    by_name |= {"score": pa.array(scores), "gold": none, "predicted": none}
    return pa.table({name: by_name.get(name, empty) for name in COLUMNS})


def measure(store: Path, command: str, *more: str) -> tuple[float, float]:
    """Seconds and GiB of a command, the peak being the largest of all commands so far."""
    started = time.perf_counter()
    argv = [sys.executable, "-m", "harness", command, NAME, "--store", str(store), *more]
    subprocess.run(argv, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    took = time.perf_counter() - started
    return took, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=1000)
    parser.add_argument("--tasks", type=int, default=20)
    parser.add_argument("--items", type=int, default=1000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        store.create()
        cells = views(args.cells, args.tasks, args.items)
        fill(store, cells, args.items)
        run_folder(store, NAME).mkdir(parents=True)
        write(run_folder(store, NAME) / "run.json", json.dumps(RunView(NAME, "m0000", (), tuple(cells)).as_json()))
        size = sum(f.stat().st_size for f in Path(folder).rglob("*") if f.is_file())
        print(f"{args.cells} cells x {args.tasks} tasks x {args.items} samples, {size / 2**20:.0f} MiB on disk")
        to = ("--output", f"{folder}/table.md")
        for command in (("table", *to), ("table", *to, "--rank"), ("site", "--out", f"{folder}/pages")):
            took, peak = measure(Path(folder), *command)
            label = f"{command[0]} --rank" if "--rank" in command else command[0]
            print(f"harness {label:16} {took:6.1f} s  {peak:5.2f} GiB", flush=True)


if __name__ == "__main__":
    main()
