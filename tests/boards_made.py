"""Frames of made-up boards for the tests of pages: any number of models, methods, seeds and tasks, all seeded."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from harness.results.frame import CellResult, CellView, Cost, Frame, Result, TaskView
from harness.results.items import Samples

SUITES = ("math", "code", "tool_use", "glue")


def task_views(count: int, items: int) -> list[TaskView]:
    """So many tasks, spread over the suites in turn."""
    return [
        TaskView(
            SUITES[n % len(SUITES)],
            f"task_{n}",
            "acc",
            True,
            "",
            f"protocol{n}",
            measured={"task": f"task_{n}", "engine": {"name": "fake"}},
            items=items,
            of=items,
            label=f"task_{n}",
        )
        for n in range(count)
    ]


def made_frame(
    models: Sequence[str], methods: Sequence[str], *, seeds: int = 1, tasks: int = 4, items: int = 100
) -> Frame:
    """The first method is the baseline, untrained; each further one is better than it by what its place says."""
    rng = np.random.default_rng(7)
    views = task_views(tasks, items)
    names = tuple(sorted(f"{key:016x}" for key in rng.integers(1 << 60, size=items)))
    hard = rng.random((tasks, items))
    cells = []
    for model in models:
        for place, method in enumerate(methods):
            for seed in range(seeds if place else 1):
                skill = 0.4 + 0.3 * place / len(methods) + rng.normal(0, 0.005)
                noise = rng.normal(0, 0.15, (tasks, items))
                right = (hard + noise < skill).astype(float)
                cells.append(_cell(model, method, seed if place else None, views, names, right))
    return Frame(tuple(cells))


def _cell(
    model: str, method: str, seed: int | None, views: Sequence[TaskView], names: tuple[str, ...], right: np.ndarray
) -> CellResult:
    name = f"{model}.{method}" + ("" if seed is None else f".s{seed}")
    results = tuple(
        Result(
            replace(task, key=f"{name}.{task.task}"),
            "ok",
            value=float(scores.mean()),
            n=len(names),
            samples=Samples(names, values=array("d", scores)),
            seed=seed,
            settled=seed is None,
        )
        for task, scores in zip(views, right, strict=True)
    )
    trained = () if seed is None else (f"{name}.train",)
    view = CellView(name, model, method, seed, (), trained, tuple(r.task for r in results))
    length = 1 + sum(map(ord, name)) % 97
    cost = Cost(trained_tokens=20_000, train_seconds=30.0 * length, trainable_parameters=1_000_000 * length)
    return CellResult(view, "ok", "", results, cost if trained else Cost())
