"""The software and the machine of a night: every installed package, our own source, and the class of the machine.

It names what differs between two nights; whose fault a difference is, is for `attribution.py`.
"""

from __future__ import annotations

import importlib.metadata
import platform
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

from harness.digest import digest
from harness.machine import cores, gpus

OURS = "harness"


def packages() -> dict[str, str]:
    """Version by name of every package that this process would import, as `pip` spells names; Python too.

    Of two copies the one that comes first on the path counts, as it does for imports. Our own version has the commit
    of a checkout in it, and a digest of what is not committed.
    """
    found = {"python": platform.python_version()}
    for distribution in importlib.metadata.distributions():
        if name := distribution.metadata["Name"]:
            found.setdefault(canonical_name(name), distribution.version)
    found[OURS] = _ours(found.get(OURS, "0"))
    return dict(sorted(found.items()))


def canonical_name(name: str) -> str:
    """`lm_eval` and `LM-Eval` are one package: `lm-eval`."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _ours(version: str) -> str:
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return version
    commit, changed = _git(root, "rev-parse", "--short=12", "HEAD"), _git(root, "diff", "HEAD", "--", OURS, "suites")
    local = "+".join(filter(None, [commit, f"changed.{digest(changed)[:8]}" if changed else ""]))
    return f"{version}+{local}" if local else version


def _git(root: Path, *args: str) -> str:
    try:
        asked = subprocess.run(["git", "-C", str(root), *args], capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return asked.stdout.strip()


def environment_digest(found: Mapping[str, str]) -> str:
    """16 hex characters of all versions."""
    return digest(dict(found))[:16]


def changes(then: Mapping[str, str], now: Mapping[str, str]) -> dict[str, tuple[str | None, str | None]]:
    """{package: (version then, version now)} of those that differ; None where it was not installed."""
    names = sorted(then.keys() | now.keys())
    return {name: (then.get(name), now.get(name)) for name in names if then.get(name) != now.get(name)}


def machine_class() -> str:
    """What must be equal for times to be comparable: GPUs by name, or the CPU's model, with their number."""
    if found := gpus():
        return f"{len(found)} x {found[0].name}"
    return f"{cores():g} x {_processor()}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()
