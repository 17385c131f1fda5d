"""`harness publish BOARD --check`: the ledger, its entries, and the files beside them, by the board's rules."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.boards.board import Board
from harness.boards.cell_checks import check_cell
from harness.boards.entries import SUFFIX, file_of
from harness.boards.findings import Finding
from harness.boards.ledger import ENTRIES, LEDGER, Line, read_ledger, states
from harness.boards.manifest import MANIFEST, Manifest, read_manifest
from harness.boards.opened import OpenedCell, opened
from harness.boards.protocol import Measured
from harness.boards.publishing import BESIDE
from harness.boards.rescoring import check_responses, prints
from harness.digest import file_digest
from harness.errors import HarnessError
from harness.results.frame import CellView
from harness.store.transfer import read_manifest as read_header


@dataclass
class Checker:
    """Checks entries of one board. said: digests of answers seen so far, with whose they are and where they stand."""

    folder: Path
    board: Board
    tasks: Mapping[str, Measured]
    said: dict[str, tuple[str, str]] = field(default_factory=dict)

    def everything(self) -> list[Finding]:
        """The whole board: what was published and is not withdrawn, and the files outside entries."""
        try:
            lines = read_ledger(self.folder)
        except HarnessError as error:
            return [Finding(f"{ENTRIES}/{LEDGER}", error.where.rpartition(":")[2], f"{error.what}; {error.why}")]
        found = list(self._places(lines))
        for name, state in states(lines).items():
            place = self.folder / ENTRIES / name
            if place.is_dir():
                found += self._entry_on_board(place, [line for line in lines if line.entry == name], state == "live")
        return [*found, *self.loose()]

    def entry(self, place: Path, manifest: Manifest) -> list[Finding]:
        """An entry by its rules; its files were just written, or their digests are checked already."""
        name = manifest.name
        if manifest.board != self.board.name:
            return [Finding(f"{name}/{MANIFEST}", "board", f"it was published on `{manifest.board}`")]
        rows: dict[str, set[int | None]] = {}
        found: list[Finding] = []
        for view in manifest.run.cells:
            file = file_of(view, place)
            if file.name not in manifest.files:
                found.append(Finding(f"{name}/{MANIFEST}", f"files.{file.name}", "a declared cell has no file"))
                continue
            found += self._cell(file, f"{name}/{file.name}", view, rows)
        return found + list(self._seeds(rows, f"{name}/{MANIFEST}"))

    def answers_on_board(self, besides: Sequence[str] = ()) -> dict[str, tuple[str, str]]:
        """Digests of the answers of live entries, so that a new one cannot hold them under other weights."""
        seen: dict[str, tuple[str, str]] = {}
        for name, state in states(read_ledger(self.folder)).items():
            if state != "live" or name in besides:
                continue
            place = self.folder / ENTRIES / name
            for view in read_manifest(place).run.cells:
                path = file_of(view, place)
                with opened(path, f"{name}/{path.name}", read_header(path), view) as cell:
                    for said, who, where in prints(cell, self.tasks):
                        seen.setdefault(said, (who, f"{cell.file}: {where}"))
        return seen

    def loose(self) -> list[Finding]:
        """Files of `harness export --entries` beside the published entries: one row a file, without a manifest."""
        files = sorted((self.folder / ENTRIES).glob(f"*{SUFFIX}"))
        rows: dict[str, set[int | None]] = {}
        found: list[Finding] = []
        for file in files:
            found += self._cell(file, f"{ENTRIES}/{file.name}", None, rows)
        return found + list(self._seeds(rows, ENTRIES))

    def _places(self, lines: list[Line]) -> Iterator[Finding]:
        """The folders that should be there, and no others."""
        entries, known = self.folder / ENTRIES, {line.entry for line in lines}
        there = {p.name for p in entries.iterdir() if p.is_dir()} if entries.is_dir() else set()
        for name in sorted(known - there):
            yield Finding(f"{ENTRIES}/{LEDGER}", name, "the entry was published, and its folder is gone")
        for name in sorted(there - known):
            if not name.startswith(BESIDE):
                yield Finding(f"{ENTRIES}/{name}", MANIFEST, "the ledger does not name it; publish it again")

    def _entry_on_board(self, place: Path, lines: list[Line], live: bool) -> list[Finding]:
        try:
            manifest = read_manifest(place)
        except HarnessError as error:
            return [Finding(f"{place.name}/{MANIFEST}", error.where.partition(": ")[2] or "-", error.what)]
        file = f"{place.name}/{MANIFEST}"
        digests = {line.digest for line in lines if line.action == "publish"}
        if manifest.digest not in digests or manifest.name != place.name:
            return [Finding(file, "digest", "it was changed after it was published: the ledger has another digest")]
        found = list(self._digests(place, manifest))
        return found or (self.entry(place, manifest) if live else [])

    def _digests(self, place: Path, manifest: Manifest) -> Iterator[Finding]:
        there = {p.name for p in place.iterdir()} - {MANIFEST}
        for name, stated in manifest.files.items():
            if name not in there:
                yield Finding(f"{place.name}/{MANIFEST}", f"files.{name}", "the file is gone")
            elif file_digest(place / name) != stated["sha256"]:
                yield Finding(f"{place.name}/{name}", f"{MANIFEST}: files.{name}.sha256", "the file was changed")
        for name in sorted(there - manifest.files.keys()):
            yield Finding(f"{place.name}/{name}", f"{MANIFEST}: files", "the manifest does not name it")

    def _cell(self, path: Path, file: str, view: CellView | None, rows: dict[str, set[int | None]]) -> list[Finding]:
        admission = self.board.admission
        try:
            with opened(path, file, read_header(path), view) as cell:
                if view is not None and cell.name != view.name:
                    return [Finding(file, "index.json: manifest.cell", f"it is of {cell.name}")]
                if cell.trained:
                    rows.setdefault(cell.row, set()).add(cell.seed)
                found = list(dict.fromkeys(check_cell(cell, self.tasks, admission)))
                if not found:  # what is said again from raw responses would only repeat it
                    found += check_responses(cell, self.tasks, admission.responses == "required")
                return found + list(self._copies(cell))
        except HarnessError as error:
            return [Finding(file, error.where if error.where != str(path) else "content", error.why or error.what)]

    def _copies(self, cell: OpenedCell) -> Iterator[Finding]:
        """The same answers from other weights were not given by them."""
        for said, who, place in prints(cell, self.tasks):
            first, where = self.said.setdefault(said, (who, f"{cell.file}: {place}"))
            if first != who:
                yield Finding(cell.file, place, f"the very responses of {where}, which come from other weights")

    def _seeds(self, rows: Mapping[str, set[int | None]], file: str) -> Iterator[Finding]:
        for row, seeds in rows.items():
            if len(seeds) < self.board.admission.seeds:
                what = f"{len(seeds)} seeds; the board asks for at least {self.board.admission.seeds}"
                yield Finding(file, f"{row}.seeds", what)
