"""Where the files that ship with the product lie: suites/, runners/, leaderboards/ and matrix.yaml.

A wheel carries them inside the package, as `harness/_data`; a source checkout has them at its top. Nothing else in the
product knows about the two places. This file only finds; it reads and checks nothing.
"""

from __future__ import annotations

from pathlib import Path

from harness.errors import HarnessError


def packaged(name: str) -> Path:
    """The file or folder that ships under a name, such as `suites` or `suites/math.yaml`.

    HarnessError if the installation lacks it.
    """
    package = Path(__file__).resolve().parent
    inside_wheel = package / "_data"
    path = (inside_wheel if inside_wheel.is_dir() else package.parent) / name
    if not path.exists():
        raise HarnessError(
            f"`{name}`, which ships with harness, is not there",
            where=str(path),
            why="the installation is incomplete",
            todo="reinstall harness",
        )
    return path
