"""The air-gapped mirror: a folder with data files and a `mirror.yaml` that says which file stands for which hub set.

    "<data set id>" or "<data set id>:<config>": {<split>: <file, relative to the folder>, ...}

Only names are resolved here; the files are read by `sources`.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.errors import HarnessError, nearest

VARIABLE = "HARNESS_MIRROR"


@dataclass(frozen=True)
class Mirror:
    """A mirror folder. sets: "<id>" or "<id>:<config>" -> split -> file."""

    folder: Path
    sets: Mapping[str, Mapping[str, str]]

    def file(self, name: str, split: str) -> Path:
        """The file of one split of a hub set, named as in `mirror.yaml`. HarnessError if it is not in the mirror."""
        where = str(self.folder / "mirror.yaml")
        if name not in self.sets:
            name = name.removesuffix(":default")  # the hub's name for the only config of a set
        if name not in self.sets:
            raise HarnessError(
                f"the mirror has no data set `{name}`",
                where=where,
                todo=nearest(name, self.sets) or "add it to the mirror",
            )
        splits = self.sets[name]
        if split not in splits:
            raise HarnessError(
                f"the mirror has no split `{split}` of `{name}`", where=where, todo=f"it has: {', '.join(splits)}"
            )
        return self.path(splits[split])

    def path(self, inside: str) -> Path:
        """A file of the mirror folder. HarnessError if it is not there or lies outside."""
        path = (self.folder / inside).resolve()
        if not path.is_relative_to(self.folder.resolve()):
            raise HarnessError(f"`{inside}` lies outside of the mirror", where=str(self.folder))
        if not path.is_file():
            known = [str(p.relative_to(self.folder)) for p in self.folder.rglob("*.jsonl*")]
            raise HarnessError(f"no file `{inside}` in the mirror", where=str(self.folder), todo=nearest(inside, known))
        return path


def open_mirror(folder: Path | None = None) -> Mirror | None:
    """The mirror at `folder`, or the one named by HARNESS_MIRROR, or None. HarnessError if it cannot be used."""
    if folder is None:
        named = os.environ.get(VARIABLE)
        if not named:
            return None
        folder = Path(named)
    index = folder.expanduser() / "mirror.yaml"
    if not index.is_file():
        raise HarnessError(
            "this is no mirror: it has no mirror.yaml" if folder.is_dir() else "the mirror folder does not exist",
            where=str(folder),
            todo="name a folder with a mirror.yaml, or leave --mirror and HARNESS_MIRROR out",
        )
    return Mirror(index.parent, _read(index, index.stat().st_mtime_ns))


@functools.lru_cache(maxsize=8)
def _read(index: Path, changed: int) -> dict[str, dict[str, str]]:
    """changed is there for the cache: a changed file is read again."""
    from harness.config.yaml_reader import parse

    tree = parse(index.read_text(encoding="utf-8"), lambda line: f"{index}:{line}")
    if tree.problems:
        raise tree.problems[0]
    sets = tree.data or {}
    for name, splits in sets.items() if isinstance(sets, dict) else [("", None)]:
        if not isinstance(splits, dict) or not all(isinstance(f, str) for f in splits.values()):
            raise HarnessError(
                f"`{name}` should map splits to files",
                where=tree.places.get(name, str(index)),
                todo="{test: folder/test.jsonl}",
            )
    return dict(sets)
