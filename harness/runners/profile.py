"""A runner profile: where jobs run and how many at once. It is placement, so nothing in it is part of any key."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Literal

from pydantic import Field

from harness import config
from harness.errors import HarnessError, nearest
from harness.matrix import Strict
from harness.packaged import packaged
from harness.runners.base import Runner

OURS = {"local": "harness.runners.local:LocalRunner"}


class Profile(Strict):
    """kind: the runner.  jobs: how many run at once on a machine without a GPU; None is one."""

    version: Literal[1]
    kind: str
    jobs: int | None = Field(default=None, gt=0)


def load_profile(name: str) -> Profile:
    """A profile by the name of one that ships, or by path. HarnessError with the names there are."""
    file = Path(name)
    if file.suffix not in (".yaml", ".yml"):
        shipped = {p.stem: p for p in packaged("runners").glob("*.yaml")}
        if name not in shipped:
            raise HarnessError(f"there is no runner profile `{name}`", todo=nearest(name, shipped))
        file = shipped[name]
    return config.load(file, Profile).value


def make_runner(profile: Profile) -> Runner:
    """The runner of a profile; other packages offer theirs through the entry point group `harness.runners`."""
    known = {p.name: p for p in entry_points(group="harness.runners")} | {
        name: EntryPoint(name=name, value=value, group="harness.runners") for name, value in OURS.items()
    }
    if profile.kind not in known:
        raise HarnessError(f"there is no runner of kind `{profile.kind}`", todo=nearest(profile.kind, known))
    runner: Runner = known[profile.kind].load()()
    return runner
