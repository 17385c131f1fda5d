"""The file of one cell, unpacked into a store of its own, where every digest in it has been checked."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.results.frame import CellView
from harness.store import Record, Store
from harness.store.transfer import import_


@dataclass(frozen=True)
class OpenedCell:
    """file: relative to the board.  keys: of the score steps by task.  view: None for a file outside an entry."""

    file: str
    name: str
    store: Store
    keys: Mapping[str, str]
    view: CellView | None

    def record(self, kind: str, key: str) -> Record | None:
        """A step of the file."""
        return self.store.find(kind, key)

    def records(self, kind: str) -> list[Record]:
        """All steps of a kind."""
        return [r for key in self.store.keys(kind) if (r := self.store.find(kind, key))]

    def generated(self, score: Record) -> Record | None:
        """The step whose answers a score is of."""
        return self.store.find("generate", str(score.identity.get("generate")))

    @cached_property
    def trained(self) -> tuple[str, ...]:
        """Keys of the train steps behind the answers, by what the records say of each other; () for a model as is."""
        if self.view is not None:
            return self.view.train
        return tuple(record.key for record in self.records("train"))

    @property
    def diverged(self) -> bool:
        """Whether training diverged, so that nothing was asked."""
        return any(r.status == "diverged" for key in self.trained if (r := self.record("train", key)))

    @property
    def row(self) -> str:
        """Which row of the table it is in; its seeds are counted together."""
        if self.view is not None:
            return f"{self.view.model} {self.view.method}"
        return self.name.rpartition(".s")[0] if self.trained else self.name

    @property
    def seed(self) -> int | None:
        """What its training was begun with."""
        found = [r.identity.get("seed") for key in self.trained if (r := self.record("train", key))]
        return found[-1] if found else None

    @property
    def tuned(self) -> bool:
        """Whether its parameters were searched."""
        return any("tune" in r.identity for r in self.records("train"))


@contextmanager
def opened(path: Path, file: str, manifest: Mapping[str, Any], view: CellView | None) -> Iterator[OpenedCell]:
    """Unpack a cell's file into a folder that goes again. HarnessError if anything in it is damaged.

    manifest: what the exporter wrote about it.
    """
    with tempfile.TemporaryDirectory(prefix="entry-") as folder:
        store = Store(Path(folder))
        import_(store, path)
        try:
            name, keys = str(manifest["cell"]), {str(t): str(k) for t, k in manifest["keys"].items()}
        except (KeyError, AttributeError) as error:
            raise HarnessError("it does not say which cell it is of", where=file, why=repr(error)) from None
        yield OpenedCell(file, name, store, keys, view)
