"""Which source of ours is at work: version, commit, and whether the tree has changes of its own.

Recorded with every step, so that a board can ask for results of a clean tree. It tells; it is in no key.
"""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path
from typing import Any

OURS = ("harness", "suites", "pyproject.toml")  # what moves numbers; notes and results beside it do not


@cache
def source_state() -> dict[str, Any]:
    """{"version", "commit", "clean"}; commit and clean are None outside a git checkout, as in an installed wheel."""
    from harness import __version__

    root = Path(__file__).resolve().parents[1]
    commit = _git(root, "rev-parse", "HEAD") if (root / ".git").exists() else None
    changed = _git(root, "status", "--porcelain", "--", *OURS) if commit else None
    return {"version": __version__, "commit": commit, "clean": None if changed is None else changed == ""}


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
