"""Where rows come from, and what pins them: each source carries a digest of its content, which goes into keys.

    hub:<id>[:<config>]     a data set of the Hugging Face hub, or its copy in the mirror
    file:<path>             .jsonl, .json (a list of objects) or .csv, each also with .gz
    mirror:<path>           a file of the mirror folder, for sets without a hub id
    package:<name>          data inside an installed package, found without importing it
    make:<generator>        made on the spot, see `harness.data.made`

Pinning reads bytes and imports no data library. Turning rows into conversations is `chat`'s business.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from harness.data.chat import shape_of
from harness.data.files import count_and_digest, read
from harness.data.made import GENERATORS, SPLITS
from harness.data.mirror import open_mirror
from harness.data.packages import PACKAGES
from harness.digest import digest
from harness.errors import HarnessError, MissingExtra, nearest
from harness.matrix.schema import DataEntry

KINDS = ("hub", "file", "mirror", "package", "make")
READING = {"format": "auto", "prompt": None, "answer": None}  # how rows become conversations, unless an entry says more


@dataclass(frozen=True)
class Source:
    """A pinned source.

    digest: of the content, of which rows are taken and of how they are to be read (64 hex characters); "" while the
    source is not at hand.
    count: how many rows `rows` gives, None if only reading can tell.  needs: what to do to have it at hand.
    files, how, where: to read it again; not in any key, since the digest covers them.
    """

    spec: str
    split: str = ""
    digest: str = ""
    count: int | None = None
    at_hand: bool = True
    needs: str = ""
    files: tuple[Path, ...] = ()
    how: Mapping[str, Any] = field(default_factory=dict)
    where: Mapping[str, Any] = field(default_factory=dict)
    sample: tuple[int, int] | None = None  # rows, seed
    group: tuple[str, str | int | bool] | None = None  # of the rows chosen, those with this value in this column

    @property
    def label(self) -> str:
        """`hub:openai/gsm8k:main (test)`."""
        return f"{self.spec} ({self.split})" if self.split else self.spec


def pin(wanted: DataEntry | str, *, mirror: Path | None = None, offline: bool = True) -> Source:
    """Find a source and digest its content.

    wanted: a source with its split (default "train"), its number of rows and so on, or only the source.
    mirror: a mirror folder; None means the one named by HARNESS_MIRROR, if any.
    HarnessError for a source that cannot be right; one that is only not at hand says so in `needs`.
    """
    entry = DataEntry(source=wanted) if isinstance(wanted, str) else wanted
    kind, _, name = entry.source.partition(":")
    if kind not in KINDS or not name:
        todo = nearest(kind, KINDS) if name else f"begin it with {', '.join(f'{k}:' for k in KINDS)}"
        raise HarnessError(f"`{entry.source}` is not a data source", todo=todo)
    takers = {"split": ("hub", "make"), "params": ("make",), "where": ("hub", "file", "mirror", "package")}
    for given, takes in takers.items():
        if getattr(entry, given) and kind not in takes:
            raise HarnessError(f"`{entry.source}` takes no `{given}`")
    shape_of(entry)  # a wrong format is found now, not when the data step runs
    if kind == "make":
        source = _pin_made(entry, name)
    else:
        source = _sampled(_selected(_pin_stored(kind, name, entry, mirror, offline), entry), entry)
    reading = {key: given for key in ("format", "prompt", "answer") if (given := getattr(entry, key)) != READING[key]}
    return replace(source, digest=digest([source.digest, reading])) if source.at_hand and reading else source


def rows(source: Source) -> list[dict[str, Any]]:
    """The rows of a pinned source, in its order. HarnessError naming file and line for one that is no JSON object."""
    if not source.at_hand:
        raise HarnessError(f"the data of `{source.label}` is not at hand", todo=source.needs)
    kind, _, name = source.spec.partition(":")
    if kind == "make":
        module = importlib.import_module(GENERATORS[name].module)
        found: list[dict[str, Any]] = module.make(source.split, **source.how)
    elif kind == "package":
        found = PACKAGES[name].join(*[list(read(file)) for file in source.files])
    elif source.files:
        found = list(read(source.files[0]))
    else:
        found = _fetch(name, source)
    found = [row for row in found if all(row.get(name) == value for name, value in source.where.items())]
    if not found:
        raise HarnessError("the data set is empty", where=str(source.files[0]) if source.files else source.label)
    if source.sample and source.sample[0] < len(found):
        number, seed = source.sample
        found = [found[i] for i in sorted(random.Random(seed).sample(range(len(found)), number))]
    if source.group:
        column, value = source.group
        found = [row for row in found if _same(row.get(column), value)]
    return found


def of_group(source: Source, column: str, value: str | int | bool) -> Source:
    """Of the rows that a source gives, those of one group, so that groups share out what one training would see."""
    chosen = digest([source.digest, {"group": [column, value]}])
    return replace(source, digest=chosen, count=None, group=(column, value))


def _same(found: Any, value: str | int | bool) -> bool:
    """Whether a row's value is that of a group; 1 is not `true`."""
    return type(found) is type(value) and bool(found == value)


def _selected(source: Source, entry: DataEntry) -> Source:
    """Only the rows that have the values of `where`; files at hand are counted."""
    if not source.at_hand or not entry.where:
        return source
    chosen = replace(source, digest=digest([source.digest, entry.where]), count=None, where=entry.where)
    return replace(chosen, count=len(rows(chosen))) if chosen.files else chosen


def _sampled(source: Source, entry: DataEntry) -> Source:
    if not source.at_hand or not entry.rows or (source.count and source.count <= entry.rows):
        return source
    chosen = (entry.rows, entry.seed)
    return replace(source, digest=digest([source.digest, *chosen]), count=source.count and entry.rows, sample=chosen)


def _pin_stored(kind: str, name: str, entry: DataEntry, mirror: Path | None, offline: bool) -> Source:
    if kind == "file":
        return _pin_file(entry.source, Path(name).expanduser())
    if kind == "package":
        return _pin_package(entry.source, name)
    opened = open_mirror(mirror)
    split = entry.split or "train" if kind == "hub" else ""
    if opened is None:
        if kind == "hub":
            return _pin_hub(entry.source, name, split, entry.revision, offline)
        return Source(entry.source, at_hand=False, needs="give --mirror DIR, a mirror folder with this file")
    try:
        path = opened.file(name, split) if kind == "hub" else opened.path(name)
    except HarnessError as missing:
        return Source(entry.source, split, at_hand=False, needs=f"{missing.what}; {missing.todo}".rstrip("; "))
    return _pin_file(entry.source, path, split)


def _pin_hub(spec: str, name: str, split: str, revision: str | None, offline: bool) -> Source:
    if offline or os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        return Source(spec, split, at_hand=False, needs="give --mirror DIR, or let the hub be asked (no --offline)")
    from huggingface_hub import HfApi

    try:
        revision = revision or HfApi().dataset_info(name.partition(":")[0]).sha
    except Exception as error:  # the hub library raises many unrelated types for "not reachable" and "no such set"
        return Source(
            spec, split, at_hand=False, needs=f"the hub did not answer ({type(error).__name__}): give --mirror DIR"
        )
    return Source(spec, split, digest([name, split, revision]), how={"revision": revision})


def _fetch(name: str, source: Source) -> list[dict[str, Any]]:
    """Rows from the hub at the pinned revision, through `datasets` and its cache."""
    from datasets import load_dataset

    identifier, _, config = name.partition(":")
    try:
        return [dict(r) for r in load_dataset(identifier, config or None, split=source.split, **source.how)]
    except Exception as error:  # the hub library raises many unrelated types
        why = f"{type(error).__name__}: {error}"
        raise HarnessError(
            f"cannot fetch `{source.label}`", why=why, todo="check the network, or use --mirror"
        ) from error


def _pin_made(entry: DataEntry, name: str) -> Source:
    if name not in GENERATORS:
        raise HarnessError(f"no generator `{name}`", todo=nearest(name, GENERATORS))
    split = entry.split or "train"
    if split not in SPLITS:
        raise HarnessError(f"`{entry.source}` has no split `{split}`", todo=f"it has: {', '.join(SPLITS)}")
    generator = GENERATORS[name]
    for wrong in entry.params.keys() - generator.parameters.keys():
        raise HarnessError(f"`{entry.source}` has no parameter `{wrong}`", todo=nearest(wrong, generator.parameters))
    how = {**generator.parameters, **entry.params, "n": entry.rows or generator.rows[split], "seed": entry.seed}
    version = importlib.metadata.version(generator.package) if generator.package else ""
    pinned = digest([name, generator.version, generator.package, version, split, how])
    return Source(entry.source, split, pinned, how["n"], how=how)


def _pin_package(spec: str, name: str) -> Source:
    if name not in PACKAGES:
        raise HarnessError(f"no data is known inside a package `{name}`", todo=nearest(name, PACKAGES))
    wanted = PACKAGES[name]
    try:
        distribution = importlib.metadata.distribution(wanted.distribution)
    except importlib.metadata.PackageNotFoundError:
        raise MissingExtra(wanted.distribution, f"`{spec}`", f"pip install {wanted.distribution}") from None
    files = tuple(Path(str(distribution.locate_file(f))) for f in wanted.files)
    pinned = [count_and_digest(file) for file in files]
    return Source(spec, "", digest([d for _, d in pinned]), pinned[0][0], files=files)


def _pin_file(spec: str, path: Path, split: str = "") -> Source:
    count, pinned = count_and_digest(path)
    if count == 0:
        raise HarnessError("the data set is empty", where=str(path))
    return Source(spec, split, pinned, count, files=(path,))
