"""What a run was planned from, kept in its folder, so that a command that names only the run can plan it again.

`runs/NAME/matrix.yaml` is the matrix as it stood, `runs/NAME/planned.json` what the command line said. Planning again
means by today's code: a scorer that has changed since gives another key, and that is the point.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from harness.errors import HarnessError
from harness.jobs.execute import Asked
from harness.jobs.worker import JobFile
from harness.matrix import load_matrix
from harness.planning.plan import Plan, Where, make_plan
from harness.runs import load_run, run_folder, write
from harness.store import Store

MATRIX, PLANNED = "matrix.yaml", "planned.json"


def keep(store: Store, plan: Plan, asked: Asked) -> None:
    """Note in the run's folder what it was planned from."""
    folder = run_folder(store, plan.matrix.name)
    job = JobFile(
        task="",
        cells=(),
        steps=(),
        store="",
        matrix=MATRIX,
        overrides=(*asked.overrides, f"name={json.dumps(plan.matrix.name)}"),
        mirror=str(plan.where.mirror.expanduser().resolve()) if plan.where.mirror else None,
        offline=plan.where.offline,
        seeds=asked.seeds,
        limit=asked.limit,
    )
    write(folder / MATRIX, asked.matrix.read_text(encoding="utf-8"))
    write(folder / PLANNED, json.dumps(asdict(job)))


def plan_again(store: Store, name: str, *, only: Sequence[str] = (), mirror: Path | None = None) -> Plan:
    """The plan of a run by name. mirror: where the one that it was planned with is not there any more.

    HarnessError for an unknown name, and for a run that came from another store, which has brought no matrix.
    """
    load_run(store, name)
    folder = run_folder(store, name)
    if not (folder / PLANNED).exists():
        why = "it was imported, or made by an earlier version"
        raise HarnessError(f"run `{name}` does not say what it was planned from", why=why, todo="name its matrix file")
    job = JobFile.read(folder / PLANNED)
    known = Path(job.mirror) if job.mirror else None
    where = Where(known if known and known.is_dir() else mirror, job.offline)
    matrix = load_matrix(folder / job.matrix, overrides=job.overrides)
    return make_plan(matrix, where, only=only, seeds=job.seeds, limit=job.limit)
