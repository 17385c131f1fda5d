"""Whether an answer equals the gold answer as mathematics: math-verify's verdict, with limits that hold.

math-verify reads whatever a model wrote, and its own time limits are signals, which do not interrupt one long
operation such as a power tower. So it runs in `symbolic_child`, a process that compares each pair in a fork with limits
on CPU time and memory. Finding the answer in a text is `math_answers`' business.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import select
import subprocess
import sys
from pathlib import Path

from harness.errors import StepFailed
from harness.evaluation.verdict import Verdict

CHILD = Path(__file__).with_name("symbolic_child.py")
LONGEST = 1_000  # characters of an answer that is looked at; the longest gold answer of the shipped tasks has 210
PATIENCE = 30.0  # seconds for one line, more than the child's own limits
_ENVIRONMENT = {
    "PYTHONHASHSEED": "0",  # sympy orders terms by hash
    "PYTHONUTF8": "1",
    "PYTHONPATH": os.environ.get("PYTHONPATH", ""),  # the packages that this process has, none older or newer
}


@functools.lru_cache(maxsize=16_384)
def compare(gold: str, answer: str) -> Verdict:
    """Whether two answers in LaTeX, without delimiters, are equal.

    Outcomes: pass, wrong, unread (not mathematics), timeout, memory, crash.  Not symmetric: an equation is read as its
    right side where the gold answer is not one.  StepFailed if math-verify does not start.
    """
    if not answer.strip():
        return Verdict("unread", "there is no answer")
    if len(answer) > LONGEST:
        return Verdict("unread", f"the answer has {len(answer):,} characters")
    return _child(os.getpid()).compare(gold, answer)


class _Child:
    """The process, started with the first pair and again after it had to be ended."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        atexit.register(self.end)

    def compare(self, gold: str, answer: str) -> Verdict:
        process = self.process = self.process or self._start()
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(json.dumps({"gold": gold, "answer": answer}).encode() + b"\n")
            process.stdin.flush()
            there = select.select([process.stdout], [], [], PATIENCE)[0]
            line = process.stdout.readline() if there else b""
        except BrokenPipeError:
            line = b""
        if not line:
            self.end()
            return Verdict("crash", "the comparing process ended")
        return Verdict(**json.loads(line))

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-P", "-s", "-W", "ignore", str(CHILD)]
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, env=_ENVIRONMENT, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL)
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(b'{"gold": "1", "answer": "1"}\n')
        process.stdin.flush()
        if json.loads(process.stdout.readline() or b"{}").get("outcome") != "pass":
            process.kill()
            process.communicate()
            raise StepFailed("math-verify does not start", kind="user", todo="pip install math-verify==0.9.0")
        return process

    def end(self) -> None:
        """Ends the process, if there is one."""
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None


@functools.cache
def _child(pid: int) -> _Child:
    """One a process of ours: a fork of it must not read the answers of the others."""
    return _Child()
