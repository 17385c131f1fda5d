"""The process behind `symbolic`: reads pairs of answers, has each compared by math-verify in a fork of its own.

One JSON line in, `{"gold": ..., "answer": ...}`, gives one out, `{"outcome": ..., "detail": ...}`. A fork starts from
the same warmed-up state every time, so that no verdict depends on the answers before it, and it may be stopped without
losing anything. Run as a file, imports nothing of harness, and ends with its input.

Only math-verify's LaTeX reading is used: its other one hands text to Python's evaluator.
"""

from __future__ import annotations

import json
import logging
import os
import resource
import select
import signal
import sys

CPU_SECONDS = 3
WALL_SECONDS = 10.0
MEMORY_BYTES = 1 << 30  # address space of a comparison
WARM_UP = (
    (r"\frac{1}{2}", "0.5"),
    (r"(3, \frac{\pi}{2})", r"\left( 3, \frac{\pi}{2} \right)"),
    (r"x^2 - \sqrt{2} y", r"-\sqrt{2}y + x^{2}"),
    (r"[1, 2) \cup (3, \infty)", "x < 3"),
    (r"\{1, 2\}", "1, 2"),
    (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}"),
    (r"2 \cos(3t) e^{-i t}", r"\text{east}"),
)
EQUAL, DIFFERENT, UNREAD, MEMORY = 0, 1, 2, 3
SAID = {
    EQUAL: ("pass", ""),
    DIFFERENT: ("wrong", "not equal to the gold answer"),
    UNREAD: ("unread", "math-verify cannot read the answer"),
    MEMORY: ("memory", "comparing takes too much memory"),
}


def compare(gold: str, answer: str) -> int:
    """One of the codes above. Both are LaTeX without delimiters."""
    from math_verify import parse, verify
    from math_verify.parser import LatexExtractionConfig

    reading = [LatexExtractionConfig()]
    try:
        read = parse(rf"\boxed{{{answer}}}", reading, parsing_timeout=0)
        if not read:
            return UNREAD
        wanted = parse(rf"\boxed{{{gold}}}", reading, parsing_timeout=0)
        return EQUAL if verify(wanted, read, timeout_seconds=0) else DIFFERENT
    except MemoryError:
        return MEMORY


def judged(gold: str, answer: str) -> tuple[str, str]:
    """(outcome, detail), from a fork that has limits."""
    pid = os.fork()
    if pid == 0:
        code = UNREAD
        try:
            resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 1))
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            code = compare(gold, answer)
        finally:
            os._exit(code)
    return _ended(pid)


def _ended(pid: int) -> tuple[str, str]:
    handle = os.pidfd_open(pid)
    try:
        if not select.select([handle], [], [], WALL_SECONDS)[0]:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return "timeout", f"comparing takes more than {WALL_SECONDS:.0f} s"
    finally:
        os.close(handle)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status in SAID:
        return SAID[status]
    if -status in (signal.SIGXCPU, signal.SIGKILL):
        return "timeout", f"comparing takes more than {CPU_SECONDS} s of CPU"
    return "crash", f"comparing ends the process ({status})"


def main() -> None:
    logging.disable(logging.CRITICAL)
    for gold, answer in WARM_UP:
        compare(gold, answer)
    for line in sys.stdin:
        pair = json.loads(line)
        outcome, detail = judged(pair["gold"], pair["answer"])
        print(json.dumps({"outcome": outcome, "detail": detail}), flush=True)


if __name__ == "__main__":
    main()
