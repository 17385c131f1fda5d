"""The tune step: trainings with other parameters of one method, compared by their loss on held-out training rows.

Each trial trains in a process of its own, as every stage of a cell does, by the same adapter, and its weights are
removed when it has been scored. No test set is read here. What a killed step has finished is taken over; only the trial
in progress is lost, and that one goes on from its checkpoint.
"""

from __future__ import annotations

import json
import math
import shutil
import sys
import time
import traceback
from collections.abc import Sequence
from functools import cached_property
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from harness.data.chat import to_rows
from harness.data.models import harness_cache, materialise
from harness.data.sources import rows as source_rows
from harness.data.split import hold_out
from harness.errors import StepFailed
from harness.planning import tuning
from harness.planning.planned import PlannedCell, Step
from harness.planning.sampling import Search
from harness.steps.bench import Bench, write_lines
from harness.store import Attempt, Record
from harness.store.attempt import failure_kind

TRIALS = "trials.jsonl"
Trial = dict[str, Any]  # {"number", "parameters", "outcome", "reason", "loss", "seconds", "trained_tokens", ...}


def run_tune(bench: Bench, cell: PlannedCell) -> None:
    """Leaves `trials.jsonl`, a line a trial, and `held_out.jsonl`, the ids of the rows; the best parameters stand in
    the record. Nothing if the cell is not tuned."""
    if cell.tune is None:
        return
    held = bench.hold(cell.tune)
    if not isinstance(held, Record):
        with held as attempt:
            _Tuning(bench, cell, cell.tune, attempt).run()


class _Tuning:
    def __init__(self, bench: Bench, cell: PlannedCell, step: Step, attempt: Attempt) -> None:
        self.bench, self.cell, self.step, self.attempt = bench, cell, step, attempt
        self.settings: dict[str, Any] = step.identity["search"]
        self.count = int(self.settings["trials"])

    @cached_property
    def rows(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """What trials train on, and what they are compared on."""
        label, plan = self.cell.cell.data, self.bench.plan
        rows = to_rows(source_rows(plan.sources[label]), plan.matrix.data[label])
        share, most, seed = (self.settings[name] for name in ("holdout", "rows", "seed"))
        return hold_out(rows, share=share, most=most, seed=seed)

    def run(self) -> None:
        """All trials, then the record."""
        write_lines(self.attempt.work / "held_out.jsonl", ({"id": row["id"]} for row in self.rows[1]))
        space = tuning.dimensions(self.settings["space"])
        search = Search(space, self.settings["sampler"]["name"], self.settings["seed"], self.count)
        known, trials = _known(self.attempt.earlier), list[Trial]()
        with (self.attempt.work / TRIALS).open("w", encoding="utf-8", buffering=1) as lines:
            for number in range(self.count):
                point = search.ask()
                past = known.get(number)
                trial = past if past and past["parameters"] == point else self._trial(number, point)
                search.tell(trial["outcome"], trial["loss"])
                trials.append(trial)
                lines.write(json.dumps(trial) + "\n")
        self.attempt.publish(cost=_cost(trials), extra=_summary(trials, held_out=len(self.rows[1])))

    def _trial(self, number: int, point: dict[str, tuning.Value]) -> Trial:
        """One trial in a process of its own. StepFailed if it is the default that fails, and for what no parameter can
        have caused."""
        folder = self.attempt.work / f"trial-{number}"
        folder.mkdir()
        started = time.monotonic()
        self._report(number, 0.0, 0.0, "opening the model")
        child = get_context("fork").Process(target=self._child, args=(number, point, folder))
        child.start()
        try:
            child.join()
        except BaseException:
            child.terminate()
            child.join()
            raise
        took = round(time.monotonic() - started, 3)
        found = _outcome(folder, child.exitcode or 0, took)
        if found["outcome"] == "failed" and (number == 0 or found["kind"] in ("disk", "interrupted")):
            which = "the trial with the default parameters" if number == 0 else f"trial {number + 1}"
            raise StepFailed(f"{which} failed: {found['reason']}", kind=found["kind"])
        shutil.rmtree(folder)
        return {"number": number, "parameters": point, "wall_seconds": took, **found}

    def _child(self, number: int, point: dict[str, tuning.Value], folder: Path) -> None:
        """In the trial's process: whatever comes of it is written to a file."""
        found = dict(_NOTHING)
        try:
            self._train_and_score(number, point, folder, found)
        except BaseException as error:
            traceback.print_exc(file=sys.stderr)
            text = (str(error) or type(error).__name__).splitlines()[0]
            found |= {"outcome": "failed", "loss": None, "reason": text, "kind": failure_kind(error)}
        beside = folder / "outcome.part"
        beside.write_text(json.dumps(found))
        beside.rename(folder / "outcome.json")

    def _train_and_score(self, number: int, point: dict[str, tuning.Value], folder: Path, found: Trial) -> None:
        from harness.training.adapters import TrainTask, make
        from harness.training.curation import curate
        from harness.training.held_out import held_out_loss

        cell = tuning.with_parameters(self.cell.cell, point)
        stack, stages = tuning.rebuilt(cell, self.cell.stages)
        model, seed = materialise(self.cell.model, harness_cache()), self.settings["seed"]
        sets, _ = curate(stack, self.rows[0], seed=seed, model=model)
        for name, members in sets.items():
            write_lines(folder / "rows" / f"{name}.jsonl", members)
        files = {name: folder / "rows" / f"{name}.jsonl" for name in sets}
        done: dict[str, Path] = {}
        for place, stage in enumerate(stages):
            work = folder / f"stage-{place}"
            work.mkdir()
            task = TrainTask(model, cell.stack, files, cell.train, seed, place, done=dict(done))
            result = make(cell.trainer).train(
                task,
                work,
                [past / folder.name / work.name for past in self.attempt.earlier],
                lambda now, total, note: self._report(number, now, total, note),
            )
            _bill(found, result.cost)
            if result.status == "diverged":
                found |= {"outcome": "diverged", "reason": str(result.summary.get("diverged", ""))}
                return
            done[stage.name] = work / "artifact"
        self._report(number, 1.0, 1.0, "scoring")
        scored = held_out_loss(model, done[stages[-1].name], stack, self.rows[1], cell.train)
        found["seconds"] = round(found["seconds"] + scored.seconds, 3)
        found["scored_tokens"] = scored.tokens
        if math.isfinite(scored.loss):
            found |= {"outcome": "ok", "loss": scored.loss}
        else:
            found |= {"outcome": "diverged", "reason": "the held-out loss is not finite"}

    def _report(self, number: int, now: float, total: float, note: str) -> None:
        share = min(1.0, now / total) if total else 0.0
        text = f"{self.cell.name}, trial {number + 1} of {self.count}, {note}"
        self.bench.report(self.step.key, number + share, self.count, text)


_NOTHING: Trial = {
    "outcome": "failed",
    "reason": "",
    "kind": "",
    "loss": None,
    "seconds": 0.0,
    "trained_tokens": 0,
    "scored_tokens": 0,
}


def _outcome(folder: Path, code: int, took: float) -> Trial:
    """What a trial's process has written; of one that was killed, that it failed and how long it took."""
    file = folder / "outcome.json"
    if file.exists():
        found: Trial = json.loads(file.read_text())
        return found
    reason = f"its process was ended by signal {-code}" if code < 0 else f"its process ended with {code}"
    return {**_NOTHING, "reason": reason, "kind": "killed", "seconds": took}


def _bill(found: Trial, cost: Any) -> None:
    found["seconds"] = round(found["seconds"] + sum(cost.get("seconds", {}).values()), 3)
    found["trained_tokens"] += cost.get("trained_tokens", 0)


def _known(earlier: Sequence[Path]) -> dict[int, Trial]:
    """Trials that earlier attempts have finished, by number. A last line that a kill cut short is left out."""
    known: dict[int, Trial] = {}
    for folder in earlier:
        if (folder / TRIALS).exists():
            for line in (folder / TRIALS).read_text(encoding="utf-8").split("\n")[:-1]:
                trial: Trial = json.loads(line)
                known.setdefault(trial["number"], trial)
    return known


def _cost(trials: Sequence[Trial]) -> dict[str, Any]:
    """What all trials cost together, those that came to nothing included."""
    totals = {name: sum(t[name] for t in trials) for name in ("seconds", "trained_tokens", "scored_tokens")}
    return {"trials": len(trials), **totals}


def _summary(trials: Sequence[Trial], held_out: int) -> dict[str, Any]:
    """The best trial, the first of several; the default where none came to a loss."""
    scored = [t for t in trials if t["outcome"] == "ok"]
    best = min(scored, key=lambda t: (t["loss"], t["number"]), default=trials[0])
    return {
        "best": best["number"],
        "parameters": best["parameters"],
        "loss": best["loss"],
        "default": trials[0]["parameters"],
        "default_loss": trials[0]["loss"],
        "diverged": sum(t["outcome"] == "diverged" for t in trials),
        "failed": sum(t["outcome"] == "failed" for t in trials),
        "held_out": held_out,
    }
