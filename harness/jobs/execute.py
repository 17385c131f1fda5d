"""`harness run`, once the plan is made: what is pending becomes jobs, and the jobs are driven to their end."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.jobs.driver import Driver, Planned, device_slots, file_name, make_jobs, shed
from harness.jobs.progress import make_progress
from harness.jobs.worker import JobFile
from harness.matrix.schema import Limit
from harness.planning.pending import pending
from harness.planning.plan import Plan
from harness.runners.profile import Profile, load_profile, make_runner
from harness.runs import run_folder, write
from harness.steps.items import run_items
from harness.store import Store


@dataclass(frozen=True)
class Asked:
    """What the command line said, as far as workers need it to make the same plan."""

    matrix: Path
    overrides: Sequence[str]
    seeds: int | None
    limit: Limit | None
    runner: str
    jobs: int | None
    verbose: bool = False


def execute(plan: Plan, store: Store, asked: Asked) -> bool:
    """Do everything that is pending; True when every job ended well."""
    folder = run_folder(store, plan.matrix.name)
    profile = load_profile(asked.runner)
    todo = pending(plan, store, thorough=True)
    shed(plan, store)  # an earlier run may have ended before it could
    for note in plan.notes:
        print(f"note: {note}", file=sys.stderr)
    jobs = make_jobs(plan, todo)
    good = not jobs or _drive(plan, store, asked, folder, profile, jobs)
    run_items(store, plan.cells)
    return good


def _drive(plan: Plan, store: Store, asked: Asked, folder: Path, profile: Profile, jobs: Sequence[Planned]) -> bool:
    # An edit of the matrix, or another run, while this one runs must not change what runs.
    snapshot = folder / "jobs" / f"{file_name('matrix')}.yaml"
    snapshot.parent.mkdir(parents=True, exist_ok=True)
    write(snapshot, asked.matrix.read_text(encoding="utf-8"))
    template = JobFile(
        task="",
        cells=(),
        steps=(),
        store=str(store.root),
        matrix=str(snapshot),
        overrides=tuple(asked.overrides),
        mirror=str(plan.where.mirror.expanduser().resolve()) if plan.where.mirror else None,
        offline=plan.where.offline,
        seeds=asked.seeds,
        limit=asked.limit,
    )
    runner = make_runner(profile)
    driver = Driver(
        plan,
        store,
        runner,
        make_progress(),
        template,
        folder,
        device_slots(asked.jobs or profile.jobs),
        verbose=asked.verbose,
    )
    try:
        return driver.drive(jobs)
    finally:
        runner.close()
