"""Trackio: a run a cell, in its local database; `trackio show` opens it."""

from __future__ import annotations

from pathlib import Path

from harness.trackers import Report


def send(report: Report, folder: Path) -> None:
    """Log one cell as one run of the project."""
    import trackio

    # Its own load of the machine would be that of telling, not of training.
    quiet = {"auto_log_cpu": False, "auto_log_gpu": False, "embed": False}
    trackio.init(project=report.project, name=report.cell, config=dict(report.settings), **quiet)
    try:
        for step, values in report.curve:
            trackio.log({f"train/{name}": value for name, value in values.items()}, step=step)
        trackio.log({f"score/{name}": value for name, value in report.scores.items()})
    finally:
        trackio.finish()
