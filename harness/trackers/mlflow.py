"""MLflow: a run a cell, in the experiment of the matrix's name, on the server that MLFLOW_TRACKING_URI names."""

from __future__ import annotations

import re
from pathlib import Path

from harness.trackers import Report

_BATCH = 1000  # metrics a request, the most that MLflow's REST interface takes
_OTHER = re.compile(r"[^\w./ -]")  # what MLflow does not take in a metric's name


def send(report: Report, folder: Path) -> None:
    """Log one cell as one run."""
    import mlflow
    from mlflow.entities import Metric

    client = mlflow.MlflowClient()
    found = client.get_experiment_by_name(report.project)
    experiment = found.experiment_id if found else client.create_experiment(report.project)
    run = client.create_run(experiment, run_name=report.cell).info.run_id
    for name, value in report.settings.items():
        client.log_param(run, name, value)
    metrics = [
        Metric(_name(f"train/{name}"), value, 0, step)
        for step, values in report.curve
        for name, value in values.items()
    ]
    metrics += [Metric(_name(f"score/{name}"), value, 0, 0) for name, value in report.scores.items()]
    for start in range(0, len(metrics), _BATCH):
        client.log_batch(run, metrics=metrics[start : start + _BATCH])
    client.set_terminated(run)


def _name(text: str) -> str:
    return _OTHER.sub("_", text)
