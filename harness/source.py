"""Which source of ours is at work: version, commit, and whether the tree has changes of its own.

Recorded with every step, so that a board can ask for results of a clean tree. It tells; it is in no key.
"""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

OURS = ("harness", "suites", "pyproject.toml")  # what moves numbers; notes and results beside it do not


@cache
def source_state() -> dict[str, Any]:
    """{"version", "commit", "clean"}.

    commit and clean are None where nothing tells them: outside a git checkout, unless pip took the package straight
    from a repository. Then pip noted the commit, and clean says whether every file still has its recorded digest.
    """
    from harness import __version__

    root = Path(__file__).resolve().parents[1]
    commit = _git(root, "rev-parse", "HEAD") if (root / ".git").exists() else None
    changed = _git(root, "status", "--porcelain", "--", *OURS) if commit else None
    clean = None if changed is None else changed == ""
    if commit is None:
        commit, clean = _installed(root)
    return {"version": __version__, "commit": commit, "clean": clean}


def _installed(root: Path) -> tuple[str | None, bool | None]:
    try:
        package = metadata.distribution("harness")
    except metadata.PackageNotFoundError:
        return None, None
    noted = json.loads(package.read_text("direct_url.json") or "{}")
    commit = noted.get("vcs_info", {}).get("commit_id")
    if commit is None or Path(str(package.locate_file(""))).resolve() != root:
        return None, None
    return commit, all(_unchanged(file) for file in package.files or ())


def _unchanged(file: metadata.PackagePath) -> bool:
    """Files without a digest (the list itself, byte code) cannot change a number."""
    if file.hash is None:
        return True
    try:
        digest = hashlib.new(file.hash.mode, Path(str(file.locate())).read_bytes()).digest()
    except OSError:
        return False
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode() == file.hash.value


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
