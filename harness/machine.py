"""What this machine has: cores and memory that a container leaves us, and GPUs. Facts only, no advice.

Linux control groups (versions 1 and 2) are honoured. torch is not imported.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")
NVIDIA = Path("/proc/driver/nvidia/gpus")


@dataclass(frozen=True)
class Gpu:
    """One NVIDIA GPU. memory: bytes, None if the driver's tool does not answer."""

    name: str
    memory: int | None = None


@dataclass(frozen=True)
class Memory:
    """Bytes: what there is for us, and what of it is free now."""

    total: int
    free: int


def cores(membership: Path = MEMBERSHIP, root: Path = CGROUPS) -> float:
    """Cores that this process may use: those it may run on, or the quota of its control group if that is less."""
    allowed = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    for folder in _groups("cpu", membership, root):
        quota = _read(folder / "cpu.max").split() or [
            _read(folder / "cpu.cfs_quota_us"),
            _read(folder / "cpu.cfs_period_us"),
        ]
        if len(quota) == 2 and all(part.isdigit() for part in quota) and int(quota[1]):
            allowed = min(allowed, int(quota[0]) / int(quota[1]))
    return allowed


def memory(membership: Path = MEMBERSHIP, root: Path = CGROUPS) -> Memory:
    """The machine's memory, or what its control group leaves if that is less."""
    import psutil

    machine = psutil.virtual_memory()
    total, free = int(machine.total), int(machine.available)
    for folder in _groups("memory", membership, root):
        limit = _read(folder / "memory.max") or _read(folder / "memory.limit_in_bytes")
        used = _read(folder / "memory.current") or _read(folder / "memory.usage_in_bytes")
        if limit.isdigit():
            total = min(total, int(limit))
            free = min(free, int(limit) - (int(used) if used.isdigit() else 0) + _cache(folder))
    return Memory(total, min(free, total))


def gpus() -> tuple[Gpu, ...]:
    """The NVIDIA GPUs that the driver knows, whatever CUDA_VISIBLE_DEVICES says."""
    asked = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(asked, capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return tuple(Gpu(_model(card)) for card in sorted(NVIDIA.glob("*/information")))
    return tuple(_gpu(*line.rsplit(",", 1)) for line in answer.splitlines() if "," in line)


def _gpu(name: str, mebibytes: str) -> Gpu:
    size = mebibytes.strip()
    return Gpu(name.strip(), int(size) * 2**20 if size.isdigit() else None)


def _model(information: Path) -> str:
    lines = (line.partition(":") for line in _read(information).splitlines())
    return next((value.strip() for name, _, value in lines if name.strip() == "Model"), "NVIDIA GPU")


def _groups(controller: str, membership: Path, root: Path) -> Iterator[Path]:
    """The folders that may limit this process: its own group and those above it, of either version."""
    for line in _read(membership).splitlines():
        _, names, inside = line.split(":", 2)
        if names == "":
            top = root if (root / "cgroup.controllers").exists() else root / "unified"
        elif controller in names.split(","):
            top = root / names if (root / names).is_dir() else root / controller
        else:
            continue
        group = top / inside.strip("/")
        yield from (folder for folder in (group, *group.parents) if folder.is_relative_to(top))


def _cache(group: Path) -> int:
    """Bytes of the group's file cache that the system gives up first when memory is short."""
    pairs = (line.split() for line in _read(group / "memory.stat").splitlines())
    found = {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}
    return found.get("total_inactive_file", found.get("inactive_file", 0))


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
