"""`--bisect`: which package moved a result. Gate A again, with one package at a time as it was on the accepted night.

Each changed package is installed in its old version, alone and without its dependencies, into a folder of its own that
comes first on the path of a process that measures; nothing of the environment itself is touched. A package explains a
finding if its old version makes it go away. What two packages did together, it does not find, and says so.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from harness.nightly import gate_a
from harness.nightly.environment import OURS
from harness.nightly.flips import Noise
from harness.nightly.measure import Part, Setting, from_json, measure, setting_as_json
from harness.nightly.nights import Line, Measured, Night

NOT_SWAPPED = ("python", OURS)
TAIL = 300  # characters of what pip says


@dataclass(frozen=True)
class Attempt:
    """One package in its old version. explains: None where that could not be tried, and `text` says why."""

    package: str
    old: str | None
    new: str | None
    explains: bool | None
    text: str


def bisect(
    software: Mapping[str, tuple[str | None, str | None]],
    install: Callable[[str, str], str],
    gone: Callable[[str], bool],
) -> list[Attempt]:
    """Try every changed package until one explains it. install: (name, version) -> "" or why not.  gone: by name."""
    attempts = []
    for name, (old, new) in software.items():
        attempt = _try(name, old, new, install, gone)
        attempts.append(attempt)
        if attempt.explains:
            break
    return attempts


def _try(
    name: str, old: str | None, new: str | None, install: Callable[[str, str], str], gone: Callable[[str], bool]
) -> Attempt:
    if name in NOT_SWAPPED:
        return Attempt(name, old, new, None, "no package that an overlay can swap: compare by hand")
    if old is None:
        return Attempt(name, old, new, None, "it is new, and an overlay cannot take it away")
    if problem := install(name, old):
        return Attempt(name, old, new, None, f"could not be installed: {problem}")
    try:
        explained = gone(name)
    except RuntimeError as error:
        return Attempt(name, old, new, None, f"nothing could be measured with it: {error}")
    word = "explains it" if explained else "does not explain it"
    return Attempt(name, old, new, explained, f"{name} {old} instead of {new} {word}")


def summary(attempts: Sequence[Attempt]) -> str:
    """One sentence: what moved the numbers, as far as that is known."""
    if not attempts:
        return "no package differs from the accepted night: the cause is not in the software"
    for attempt in attempts:
        if attempt.explains:
            return f"{attempt.package} {attempt.old} -> {attempt.new} moved the numbers: with {attempt.old} they return"
    untried = ", ".join(a.package for a in attempts if a.explains is None)
    return "no single package explains it" + (f"; not tried: {untried}" if untried else "")


class Overlays:
    """Folders with one old package each, and measurements under them."""

    def __init__(self, night: Night, setting: Setting, part: Part, then: Sequence[Measured], replay: bool) -> None:
        self.night, self.setting, self.part, self.replay = night, setting, part, replay
        self.then = [m for m in then if set(m.line.names) & set(part.cells)]
        self.root = night.folder / "overlays"

    def install(self, name: str, version: str) -> str:
        """`pip install --no-deps` into a folder of its own; "" if it is there, else the end of what pip said."""
        target = self.root / name
        shutil.rmtree(target, ignore_errors=True)
        argv = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target)]
        done = subprocess.run([*argv, f"{name}=={version}"], capture_output=True, text=True)
        return "" if done.returncode == 0 else (done.stderr.strip()[-TAIL:] or f"pip ended with {done.returncode}")

    def gone(self, name: str, flagged: Sequence[tuple[str, str, str]], noise: Mapping[str, Noise]) -> bool:
        """Whether what was flagged is as on the accepted night with this package's old version. RuntimeError if not
        everything could be measured."""
        now = [m for m in self._measured(name) if m.line.what in flagged]
        if missing := [m.line.reason for m in now if m.line.value is None]:
            raise RuntimeError(missing[0])
        compared = gate_a.compare(self.then, now)
        if len(compared) < len(flagged) or any(c.flips is None for c in compared):
            raise RuntimeError("not every result that was flagged came out comparable")
        if self.replay:
            return not list(gate_a.replayed(compared))
        return not gate_a.gate_a(compared, noise)

    def _measured(self, name: str) -> list[Measured]:
        part = Part(f"bisect-{name}", self.part.seeds, self.part.cells, self.part.weights, self.part.answers)
        job, out = self.root / f"{name}.json", self.root / f"{name}.lines"
        job.write_text(setting_as_json(self.setting, part))
        path = os.pathsep.join(filter(None, [str(self.root / name), os.environ.get("PYTHONPATH", "")]))
        argv = [sys.executable, "-m", "harness.nightly.attribution", str(job), str(out)]
        done = subprocess.run(argv, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True)
        shutil.rmtree(self.night.folder / "stores" / part.name, ignore_errors=True)
        if done.returncode:
            raise RuntimeError((done.stderr.strip().splitlines() or ["it ended without a word"])[-1])
        lines = [Line.from_json(json.loads(text)) for text in out.read_text().splitlines()]
        return self.night.with_samples(lines)


def main(job: str, out: str) -> int:
    """Measure a part in this process's environment and write its lines."""
    setting, part = from_json(Path(job).read_text())
    lines, _ = measure(setting, part)
    Path(out).write_text("".join(json.dumps(asdict(line)) + "\n" for line in lines))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
