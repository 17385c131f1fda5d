"""TensorBoard: event files under `tensorboard/` in the run's folder, for `tensorboard --logdir`."""

from __future__ import annotations

import shutil
from pathlib import Path

from harness.trackers import Report


def send(report: Report, folder: Path) -> None:
    """Write the events of one cell, in place of those of an earlier try."""
    from torch.utils.tensorboard import SummaryWriter

    place = folder / "tensorboard" / report.cell
    shutil.rmtree(place, ignore_errors=True)
    with SummaryWriter(str(place)) as writer:
        for step, values in report.curve:
            for name, value in values.items():
                writer.add_scalar(f"train/{name}", value, step)
        for name, value in report.scores.items():
            writer.add_scalar(f"score/{name}", value)
        writer.add_text("settings", "\n".join(f"    {name}: {value}" for name, value in report.settings.items()))
