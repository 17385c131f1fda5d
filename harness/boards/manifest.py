"""A published entry as a folder: `entry.json`, which says what it is and names every file by digest, and a file a cell.

The files are those of `harness export --entries`, with responses. An entry is named after its run and its content, so
that the same results always have the same name, and changed ones never do.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.boards.entries import file_of, keys_of
from harness.digest import canonical, digest, file_digest
from harness.errors import HarnessError
from harness.runs import RunView
from harness.store import Store
from harness.store.disk import write_whole
from harness.store.transfer import export

MANIFEST = "entry.json"
SCHEMA, VERSION = "harness-entry", 1
LEFT_BEHIND = {"train": "artifact/*", "data": "*"}  # outputs, by kind of step


@dataclass(frozen=True)
class Manifest:
    """What entry.json says. files: size and digest by name."""

    board: str
    run: RunView
    replaces: tuple[str, ...]
    files: Mapping[str, Mapping[str, Any]]
    digest: str

    @property
    def name(self) -> str:
        """Of the entry's folder."""
        return f"{self.run.name}-{self.digest[:12]}"


def write_entry(store: Store, run: RunView, board: str, replaces: Sequence[str], folder: Path) -> Manifest:
    """Write the finished steps of a run and the manifest into a new folder."""
    folder.mkdir(parents=True)
    for cell in run.cells:
        alone = RunView(run.name, run.baseline, run.notes, (cell,))
        manifest = {"cell": cell.name, "keys": keys_of(cell)}
        export(store, alone.keys(), file_of(cell, folder), manifest=manifest, without=LEFT_BEHIND)
    files = {
        file.name: {"bytes": file.stat().st_size, "sha256": file_digest(file)} for file in sorted(folder.iterdir())
    }
    body = {"schema": SCHEMA, "version": VERSION, "board": board, "replaces": list(replaces), "files": files}
    write_whole(folder / MANIFEST, canonical({**body, "run": run.as_json()}).encode(), durable=True)
    return read_manifest(folder)


def read_manifest(entry: Path) -> Manifest:
    """The manifest of an entry. HarnessError naming file and field where it is not one."""
    file = entry / MANIFEST
    try:
        body = json.loads(file.read_bytes())
        for name, wanted in (("schema", SCHEMA), ("version", VERSION)):
            if body.get(name) != wanted:
                raise HarnessError(f"it is {body.get(name)!r} where {wanted!r} is read", where=f"{file}: {name}")
        files = {str(name): {"bytes": f["bytes"], "sha256": f["sha256"]} for name, f in body["files"].items()}
        run = RunView.from_json(body["run"])
        return Manifest(str(body["board"]), run, tuple(body["replaces"]), files, digest(body))
    except FileNotFoundError:
        raise HarnessError("it is missing", where=f"{file}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        why = f"{type(error).__name__}: {error}"
        raise HarnessError("this is no manifest of an entry", where=str(file), why=why) from None
