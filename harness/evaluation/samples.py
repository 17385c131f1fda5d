"""From what lm-eval returns to our per-document scores: one mapping a document, all its filters and metrics together.

    {"doc": number, "hash": of the document, "scores": {metric: float or [gold, predicted]},
     "answer": text, "target": text, "outcome": word, "why": sentence,
     "finish": "length" where the token limit cut an answer, else "stop", "" where nothing was generated,
     "cluster": what the task's items belong together by, only where it says so}

A metric is named as lm-eval names it, `metric` or `metric,filter`. No aggregation happens here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.evaluation.task import Task

Sample = dict[str, Any]
WORDS = ("outcome", "why")  # metrics by which a scorer says what happened: a name and a sentence


def gather(
    logged: Sequence[Mapping[str, Any]], results: Mapping[str, Any], task: Task
) -> tuple[dict[str, dict[str, Any]], list[Sample]]:
    """(metrics, samples) of one task. logged: lm-eval's samples, one a document and filter; results: its aggregates."""
    samples: dict[int, Sample] = {}
    for entry in logged:
        sample = samples.setdefault(entry["doc_id"], _sample(entry, task))
        primary = _name("", entry["filter"]) in ("", task.primary[task.primary.find(",") :])
        for metric in entry["metrics"]:
            if metric not in WORDS:
                sample["scores"][_name(metric, entry["filter"])] = _value(entry[metric])
            elif primary:
                sample[metric] = entry[metric]
        if primary:
            sample["answer"] = _answer(entry, task)
    for sample in samples.values():
        sample["outcome"] = sample["outcome"] or _outcome(sample["scores"].get(task.primary))
    metrics = {}
    for key, value in results.items():
        metric, comma, kind = key.partition(",")
        if comma and not metric.endswith("_stderr") and metric not in WORDS and isinstance(value, (int, float)):
            name = _name(metric, kind)
            scored = sum(name in sample["scores"] for sample in samples.values())
            metrics[name] = {"value": float(value), "n": scored}
    return metrics, [samples[doc] for doc in sorted(samples)]


def _sample(entry: Mapping[str, Any], task: Task) -> Sample:
    target = entry["target"]
    if task.kind == "multiple_choice" and isinstance(target, int) and 0 <= target < len(entry["arguments"]):
        target = entry["arguments"][target][1].strip()
    cluster = {"cluster": str(entry["doc"].get(task.form.cluster, ""))} if task.form.cluster else {}
    return {
        "doc": entry["doc_id"],
        "hash": entry["doc_hash"][:16],
        "scores": {},
        "answer": _answer(entry, task),
        "target": str(target),
        "outcome": "",
        "why": "",
        **cluster,
    }


def _answer(entry: Mapping[str, Any], task: Task) -> str:
    """What was scored: the filtered text, or the likeliest choice."""
    answers = entry["filtered_resps"]
    if task.kind == "generate_until":
        return str(answers[0][0] if isinstance(answers[0], list) else answers[0])
    best = max(range(len(answers)), key=lambda i: answers[i][0])
    return str(entry["arguments"][best][1]).strip()


def _name(metric: str, kind: str) -> str:
    return metric if kind == "none" else f"{metric},{kind}"


def _value(value: Any) -> float | list[Any]:
    """A number for metrics that are means; [gold, predicted] for corpus metrics.

    A list of yes and no (the instructions of one prompt, in lm-eval's own IFEval) stays a list, since their aggregate
    weighs each of them the same.
    """
    if isinstance(value, tuple):
        return [each.tolist() if hasattr(each, "tolist") else each for each in value]  # numpy has no place in JSON
    if isinstance(value, list):
        return [float(each) for each in value]
    return float(value)


def _outcome(score: float | list[Any] | None) -> str:
    if isinstance(score, list):
        return "right" if score[0] == score[1] else "wrong"
    return {1.0: "right", 0.0: "wrong"}.get(score, "") if score is not None else ""
