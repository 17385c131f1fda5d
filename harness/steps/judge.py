"""The judge steps of a model's cells: a judge reads stored answers, and its replies are stored, one a line.

A judge is tested first, once for each way of asking, and one that fails is asked nothing more. What its replies are
worth is the score step's business.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from typing import Any

from harness.engines.base import Request, Response
from harness.errors import HarnessError
from harness.evaluation.judge.calibration import Calibration, assess, calibration_requests
from harness.evaluation.judge.cases import all_asked, cases
from harness.evaluation.judge.judges import JudgeSpec, OpenJudge, open_judge
from harness.evaluation.suite_file import Judge
from harness.planning.planned import PlannedCell, PlannedTask, Step
from harness.steps.bench import Bench
from harness.steps.responses import Answering, read_responses
from harness.steps.score import scored_answers
from harness.store import Busy, Done, Record
from harness.store.attempt import failure_kind


def run_judge(bench: Bench, cells: Sequence[PlannedCell]) -> int:
    """Judge what is unjudged. Returns the worst exit code."""
    todo = [(cell, t) for cell in cells for t in cell.tasks if t.judge and _waits(bench, t)]
    if not todo or bench.plan.judge is None:
        return 0
    judging = _Judging(bench, bench.plan.judge)
    code = 0
    for cell, planned in todo:
        try:
            judging.judge(cell, planned)
        except HarnessError as error:
            code = max(code, error.exit_code)
            print(f"{cell.name}, {planned.task.name}: {error}", file=sys.stderr, flush=True)
    return code


def _waits(bench: Bench, planned: PlannedTask) -> bool:
    """Whether its answers are there, and not judged."""
    assert planned.judge is not None
    answered = bench.store.find("generate", planned.generate.key, whole=True)
    return answered is not None and bench.store.find("judge", planned.judge.key) is None


class _Judging:
    """One judge at work, opened when it is first asked something. Once it fails, every step left fails with it."""

    def __init__(self, bench: Bench, spec: JudgeSpec) -> None:
        self.bench, self.spec = bench, spec
        self._judge: OpenJudge | None = None
        self._broken: HarnessError | None = None

    def judge(self, cell: PlannedCell, planned: PlannedTask) -> None:
        """Leaves `responses.jsonl`; without a line, and with the reason, if the judge failed its test."""
        form = planned.task.form.judge
        assert form is not None and planned.judge is not None and planned.calibration is not None
        try:
            if self._broken:
                raise self._broken
            calibration = self._calibrated(planned, planned.calibration, form)
        except Exception as error:
            self._blame(planned.judge, error)
            raise
        held = self.bench.hold(planned.judge)
        if isinstance(held, Record):
            return
        with held as attempt:
            if not calibration.passed:
                (attempt.work / "responses.jsonl").touch()
                attempt.publish(extra={"withheld": calibration.reason})
                return
            from harness.evaluation.lm import chosen_rows

            scored = scored_answers(self.bench, cell, planned)
            requests = all_asked(form, cases(form, chosen_rows(planned.task), scored.samples))
            answering = Answering(planned, attempt, (), requests)
            self._answer(planned.judge, answering, f"{cell.name}, {planned.task.name}")

    def _calibrated(self, planned: PlannedTask, step: Step, form: Judge) -> Calibration:
        """How the judge did in its test, which it takes now if it has not yet."""
        held = self.bench.hold(step)
        if not isinstance(held, Record):
            with held as attempt:
                self._answer(step, Answering(planned, attempt, (), calibration_requests(form)), "testing the judge")
            held = self.bench.finished("judge", step.key)
        return assess(form, {r.key: r for r in read_responses(held.path / "responses.jsonl")})

    def _answer(self, step: Step, answering: Answering, note: str) -> None:
        started = time.monotonic()
        with closing(answering.file):
            facts = self._ask(step, answering, note)
        answering.seconds = time.monotonic() - started
        answering.publish({"judge": self.spec.label, **facts})

    def _ask(self, step: Step, answering: Answering, note: str) -> dict[str, Any]:
        """Put what is missing to the judge. What it says of itself is returned, to be recorded."""
        try:
            if self._judge is None:
                self.bench.report(step.key, 0, 0, "opening the judge")
                self._judge = open_judge(self.spec)
            judge, fitting = self._judge, list[Request]()
            for key, request in answering.missing.items():
                if judge.fits(request):
                    fitting.append(request)
                else:
                    answering.add(key, Response(key, finish="too_long"))
            for reply in judge.answer(fitting):
                answering.add(reply.key, reply)
                self.bench.report(step.key, len(answering.responses), len(answering.sent), note)
            return judge.facts()
        except HarnessError as error:
            self._broken = error
            raise

    def _blame(self, step: Step, error: Exception) -> None:
        """Nothing claimed this step yet; without this the tables could not say why there is no score."""
        with suppress(Busy, Done):
            claimed = self.bench.store.claim("judge", step.key, step.identity)
            claimed.fail(failure_kind(error), str(error) or type(error).__name__)
