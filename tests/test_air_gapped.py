"""With a mirror nothing is fetched: every task is asked and scored in a process that has no sockets."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from harness.evaluation.suite import suite_names

PROGRAM = """
import socket, sys
from pathlib import Path

def refuse(*args, **kwargs):
    raise AssertionError("a socket was opened")

allowed = socket.socket
class NoNetwork(allowed):
    def __init__(self, family=-1, *args, **kwargs):
        if family in (socket.AF_INET, socket.AF_INET6, -1):
            refuse()
        super().__init__(family, *args, **kwargs)
socket.socket, socket.getaddrinfo, socket.create_connection = NoNetwork, refuse, refuse

from harness.engines.base import Response
from harness.errors import HarnessError
from harness.evaluation.lm import build_requests, score
from harness.evaluation.suite import choose_tasks, load_suite

suite, mirror = load_suite(sys.argv[1]), Path(sys.argv[2])
for name in suite.wanted("all"):
    try:
        ((task,), _) = choose_tasks(suite, only=[name], limit=2, mirror=mirror)
    except HarnessError:
        continue
    if task.form.judge:
        continue
    answers = {}
    for request in build_requests(task):
        n = len(request.choices)
        answers[request.key] = Response(
            request.key, text="" if n else "The answer is 4.", finish="" if n else "stop",
            logprobs=tuple(-1.0 - i for i in range(n)), greedy=(True,) + (False,) * (n - 1) if n else (),
        )
    assert score(task, answers).metrics, name
    print(name)
"""


@pytest.mark.parametrize("suite", suite_names())
def test_asking_and_scoring_open_no_socket(suite: str, mirror: Path, tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, suite, str(mirror)], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert len(ran.stdout.split()) >= 1
