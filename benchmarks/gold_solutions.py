"""The code suite's own reference solutions through its scorers: all must pass, but for the known-bad ones.

    python benchmarks/gold_solutions.py [--mirror ../shared/data] [--workers 2] [--only mbpp ...]

Prints one line a set: how many pass, which do not and why, and the seconds taken. All splits of a set are taken.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from harness.evaluation.code import score_humaneval
from harness.evaluation.cruxeval import score_input, score_output
from harness.evaluation.mbpp import score_mbpp
from harness.evaluation.mbpp_plus import score_mbpp_plus
from harness.evaluation.sandbox import describe
from harness.evaluation.verdict import Verdict

Row = dict[str, Any]


def humaneval(row: Row) -> Verdict:
    return score_humaneval(row["prompt"], row["canonical_solution"], row["test"], row["entry_point"])


def mbpp(row: Row) -> Verdict:
    return score_mbpp(row, row["code"])


def mbpp_plus(row: Row, which: int = 1) -> Verdict:
    return score_mbpp_plus(row, row["canonical_solution"])[which]


def cruxeval_output(row: Row) -> Verdict:
    return score_output(row["output"], f"assert f({row['input']}) == {row['output']}")


def cruxeval_input(row: Row) -> Verdict:
    return score_input(row["code"], row["output"], f"assert f({row['input']}) == {row['output']}")


SETS: dict[str, tuple[str, Callable[[Row], Verdict]]] = {
    "humaneval": ("humaneval", humaneval),
    "mbpp": ("mbpp", mbpp),
    "mbpp_sanitized": ("mbpp_sanitized", mbpp),
    "mbpp_plus_base": ("mbpp_plus", partial(mbpp_plus, which=0)),
    "mbpp_plus": ("mbpp_plus", mbpp_plus),
    "cruxeval_output": ("cruxeval", cruxeval_output),
    "cruxeval_input": ("cruxeval", cruxeval_input),
}


def rows(folder: Path) -> Iterator[Row]:
    for path in sorted(folder.glob("*.jsonl")):
        with path.open(encoding="utf-8") as lines:
            yield from map(json.loads, lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mirror", type=Path, default=Path("../shared/data"))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", nargs="*", choices=SETS, default=list(SETS))
    given = parser.parse_args()
    print(describe())
    for name in given.only:
        folder, score = SETS[name]
        questions = list(rows(given.mirror / "code" / folder))
        began = time.perf_counter()
        with ThreadPoolExecutor(given.workers) as pool:
            verdicts = list(pool.map(score, questions))
        seconds = time.perf_counter() - began
        passed = sum(verdict.passed for verdict in verdicts)
        print(f"{name}: {passed} of {len(verdicts)} pass; {seconds:.1f} s with {given.workers} workers")
        for row, verdict in zip(questions, verdicts, strict=True):
            if not verdict.passed:
                print(f"  {row.get('task_id') or row['id']}: {verdict.outcome}: {verdict.detail[:120]}")


if __name__ == "__main__":
    main()
