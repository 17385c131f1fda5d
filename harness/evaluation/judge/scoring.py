"""From the replies of a judge to the metrics and samples of a task; no judge is needed, only what it said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from harness.engines.base import Response
from harness.errors import HarnessError
from harness.evaluation.judge import grading, pairwise
from harness.evaluation.judge.cases import Case, all_asked
from harness.evaluation.samples import Sample
from harness.evaluation.suite_file import Judge

if TYPE_CHECKING:
    from harness.evaluation.lm import Scored


def with_replies(form: Judge, found: Sequence[Case], scored: Scored, replies: Mapping[str, Response]) -> Scored:
    """What the judge made of the answers, added to what was scored without it.

    found: the case of each sample of `scored`.  replies: by request key. HarnessError saying how many are missing.
    """
    asked = all_asked(form, found)
    missing = sum(request.key not in replies for request in asked)
    if missing:
        raise HarnessError(f"{missing} of {len(asked)} replies of the judge are missing")
    if form.form == "pairwise":
        pairs = [pairwise.judge_pair(form, case, replies) for case in found]
        metrics = pairwise.metrics_of(found, pairs)
        verdicts = [(pairwise.scores_of(p), p.outcome, p.why) for p in pairs]
    else:
        items = [grading.judge_grade(form, case, replies) for case in found]
        metrics = grading.metrics_of(items)
        verdicts = [(grading.scores_of(i), i.outcome, i.why) for i in items]
    samples = [_with(s, *verdict) for s, verdict in zip(scored.samples, verdicts, strict=True)]
    return type(scored)({**scored.metrics, **metrics}, samples)


def withheld(form: Judge, scored: Scored, reason: str) -> Scored:
    """The same with the reason in place of every number of the judge's."""
    names = pairwise.METRICS
    if form.form == "grade":
        names = ("grade", "unparsable", *(name for group in form.aspects.values() for name in group))
    metrics = {name: {"value": None, "n": 0, "withheld": reason} for name in names}
    return type(scored)({**scored.metrics, **metrics}, [_with(s, {}, "withheld", reason) for s in scored.samples])


def _with(sample: Sample, scores: Mapping[str, Any], outcome: str, why: str) -> Sample:
    return {**sample, "scores": {**sample["scores"], **scores}, "outcome": outcome, "why": why}
