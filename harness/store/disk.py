"""Small files written whole or not at all, and what a full disk says to the user.

It does not know what a store is; it knows paths, `rename`, `link` and `fsync`.
"""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from harness.errors import HarnessError

_FULL = (errno.ENOSPC, errno.EDQUOT)
_FULL_TEXTS = ("No space left on device", "Disk quota exceeded", "os error 28")
_NOTHING_LEFT = 1 << 20  # bytes


class DiskFull(HarnessError):
    """A write found no space, or a quota or a file-size limit in its way."""


def write_whole(path: Path, data: bytes, *, durable: bool = False) -> None:
    """Replace a file in one step. Readers see the old content or the new; `durable` survives a power cut."""
    with _written_beside(path, data, durable=durable) as beside:
        beside.replace(path)
    if durable:
        flush(path.parent)


def create_whole(path: Path, data: bytes) -> None:
    """Make a file that must not exist yet, content included, in one step. FileExistsError if another was first."""
    with _written_beside(path, data) as beside:
        os.link(beside, path)  # unlike an exclusive open, nobody can ever see the file empty


@contextmanager
def _written_beside(path: Path, data: bytes, *, durable: bool = False) -> Iterator[Path]:
    beside = path.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        with beside.open("xb") as f:
            f.write(data)
            if durable:
                f.flush()
                os.fsync(f.fileno())
        yield beside
    finally:
        with suppress(OSError):
            beside.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """fsync a file or a folder."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def tree_bytes(path: Path) -> int:
    """Bytes of a file, or of all files under a folder; 0 if it is gone, even while this looks."""
    total = 0
    for file in [path, *path.rglob("*")]:
        with suppress(OSError):
            total += 0 if file.is_dir() else file.lstat().st_size
    return total


@contextmanager
def guard(path: Path) -> Iterator[None]:
    """Turn any OSError inside into a HarnessError that names the file, the space left and what to do."""
    try:
        yield
    except OSError as error:
        raise explain(error, path) from error


def explain(error: BaseException, path: Path) -> HarnessError:
    """What to tell the user about a failed read or write at or under `path`."""
    where = str(getattr(error, "filename", None) or path)
    left = f"{_free(path) / 2**20:,.1f} MiB are left on the file system of {path}"
    if is_full(error) or nothing_left(path):
        return DiskFull(
            "the disk is full",
            where=where,
            why=f"{error}; {left}",
            todo="free some space (`harness gc` shows what can go), then run the same command again: "
            "finished steps are kept",
        )
    if isinstance(error, OSError) and error.errno == errno.EFBIG:
        return DiskFull("a file grew past the size limit of this process", where=where, why=f"{error}; see `ulimit -f`")
    return HarnessError(
        "cannot read or write here", where=where, why=str(error), todo="check the path and its permissions"
    )


def is_full(error: BaseException) -> bool:
    """Whether an exception, or one that led to it, says that the disk is full; libraries often wrap the OSError."""
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, DiskFull) or (isinstance(link, OSError) and link.errno in _FULL):
            return True
        if any(text in str(link) for text in _FULL_TEXTS):
            return True
        link = link.__cause__ or link.__context__
    return False


def nothing_left(path: Path) -> bool:
    """Whether the file system of `path` has practically no space left (under 1 MiB)."""
    return _free(path) < _NOTHING_LEFT


def _free(path: Path) -> int:
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free
