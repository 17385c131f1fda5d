"""`harness doctor` and `harness init`: what this machine can do, and a matrix to begin with."""

from __future__ import annotations

import argparse


def doctor(args: argparse.Namespace) -> int:
    """1 if something is missing without which nothing runs."""
    from harness.doctor import examine, render

    checks = examine(store=args.store, mirror=args.mirror, full=args.full)
    print(render(checks, json_wanted=args.json))
    return 1 if any(c.level == "problem" for c in checks) else 0


def init(args: argparse.Namespace) -> int:
    """The demo matrix in a folder."""
    from harness.demo import write_demo

    file = write_demo(args.folder)
    print(f"wrote {file}\nnext: harness plan {file}, then harness run {file}")
    return 0
