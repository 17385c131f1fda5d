"""The demo matrix, written where a person wants to start: what `harness init` does."""

from __future__ import annotations

from pathlib import Path

from harness.errors import HarnessError
from harness.packaged import packaged


def write_demo(folder: Path) -> Path:
    """Write the demo as `folder/matrix.yaml`, making the folder if need be. HarnessError if there is such a file."""
    target = folder / "matrix.yaml"
    text = packaged("matrix.yaml").read_text(encoding="utf-8")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with target.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        todo = "name another folder, or remove it first"
        raise HarnessError("this file is there already", where=str(error.filename), todo=todo) from None
    except OSError as error:
        raise HarnessError("cannot be written", where=str(target), why=str(error.strerror or error)) from None
    return target
