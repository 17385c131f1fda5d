"""Weights & Biases: a run a cell. Whom it belongs to and whether it goes online is wandb's own configuration."""

from __future__ import annotations

from pathlib import Path

from harness.trackers import Report


def send(report: Report, folder: Path) -> None:
    """Log one cell as one run of the project."""
    import wandb

    with wandb.init(
        project=report.project,
        name=report.cell,
        config=dict(report.settings),
        dir=str(folder),
        reinit="finish_previous",
    ) as run:
        for step, values in report.curve:
            run.log({f"train/{name}": value for name, value in values.items()}, step=step)
        run.summary.update({f"score/{name}": value for name, value in report.scores.items()})
