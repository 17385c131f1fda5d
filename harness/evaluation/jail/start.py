"""Start of a sandboxed process: read the job from standard input, isolate, become candidate or checker."""

from __future__ import annotations

import os

from . import candidate, checker, isolate, wire


def main() -> None:
    """Do the job, or say on standard error, in one line, why it cannot start."""
    try:
        _start()
    except Exception as error:
        os.write(2, f"{type(error).__name__}: {error}".encode())
        os._exit(1)


def _start() -> None:
    """Job: {"settings": see `isolate.run`, "role": "candidate" | "checker", the role's own fields and descriptors}."""
    job = wire.decode(wire.receive(0))
    role, channel = job["role"], job["channel"]
    if role == "candidate":
        isolate.run(job["settings"], (channel,), lambda: candidate.serve(channel, job["program"]))
    verdict = job["verdict"]
    isolate.run(
        job["settings"],
        (channel, verdict),
        lambda: checker.judge(channel, verdict, job["names"], job["preamble"], job["test"]),
    )
