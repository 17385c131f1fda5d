"""Finished results as other tools read them: model-card metadata (model-index), and files shaped as lm-eval's.

What a run's records do not hold is left empty, never made up: lm-eval's samples have the scored answer and the hash of
the document, but not its text. Only finished tasks are written.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from harness.results import stats
from harness.results.frame import CellResult, CellView, Result, collect, read_samples
from harness.store.disk import write_whole

if TYPE_CHECKING:
    from harness.store import Record, Store

CHOICE = "text-classification"  # of the Hub's own names for kinds of tasks


def write_model_index(cells: Sequence[CellView], store: Store, folder: Path) -> list[Path]:
    """`CELL.yaml` a cell: the block that goes between the `---` of a model card."""
    from huggingface_hub import ModelCardData

    written = []
    for cell in collect(cells, store).cells:
        results = [_eval_result(r) for r in cell.results if r.state == "ok"]
        if results:
            card = ModelCardData(model_name=cell.view.name, eval_results=results)
            written.append(_write(folder / f"{_safe(cell.view.name)}.yaml", card.to_yaml() + "\n"))
    return written


def _eval_result(result: Result) -> Any:
    from huggingface_hub import EvalResult

    task, estimate = result.task, stats.mean([result])
    asked = task.measured.get("task", {})
    interval = {"low": estimate.low, "high": estimate.high} if estimate.low is not None else {}
    how = {"protocol": task.protocol, "regime": asked.get("regime"), "shots": (asked.get("shots") or [None])[0]}
    metric, _, kind = task.primary.partition(",")
    return EvalResult(
        task_type="text-generation" if asked.get("sampling") else CHOICE,
        task_name=task.suite,
        dataset_type=task.task,
        dataset_name=task.task,
        dataset_args={**how, "limit": asked.get("limit"), "items": result.n},
        metric_type=metric,
        metric_name=task.primary if kind else metric,
        metric_value=result.value,
        metric_args=interval or None,
    )


def write_lm_eval(cells: Sequence[CellView], store: Store, folder: Path) -> list[Path]:
    """A folder a cell with `results_TIME.json` and `samples_TASK_TIME.jsonl`; TIME is when it was last scored."""
    written: list[Path] = []
    for cell in collect(cells, store).cells:
        scored = {r.task.task: r.task for r in cell.results if r.state == "ok"}
        records = {name: record for name, t in scored.items() if (record := store.find("score", t.key))}
        if not records:
            continue
        time = max(str(r.provenance.get("ended", "")) for r in records.values()).replace(":", "-")
        place = folder / _safe(cell.view.name)
        body = _aggregated(cell, records)
        written.append(_write(place / f"results_{time}.json", json.dumps(body, indent=2, ensure_ascii=False) + "\n"))
        for name, record in records.items():
            lines = (json.dumps(line, ensure_ascii=False) + "\n" for line in _samples(record))
            written.append(_write(place / f"samples_{_safe(name)}_{time}.jsonl", "".join(lines)))
    return written


def _aggregated(cell: CellResult, records: Mapping[str, Record]) -> dict[str, Any]:
    views = {t.task: t for t in cell.view.scores}
    asked = {name: views[name].measured.get("task", {}) for name in records}
    counts = {name: _metrics(record)[1] for name, record in records.items()}
    engine: Mapping[str, Any] = next((v.measured["engine"] for v in views.values() if "engine" in v.measured), {})
    return {
        "results": {name: {"alias": name, **_metrics(record)[0]} for name, record in records.items()},
        "group_subtasks": {name: [] for name in records},
        "configs": {name: {"task": name, "num_fewshot": (asked[name].get("shots") or [None])[0]} for name in records},
        "versions": {name: asked[name].get("version") for name in records},
        "n-shot": {name: (asked[name].get("shots") or [None])[0] for name in records},
        "n-samples": {name: {"original": views[name].of, "effective": counts[name]} for name in records},
        "config": {"model": engine.get("name"), "model_args": engine, "limit": None, "bootstrap_iters": 0},
        "model_name": cell.view.name,
        "model_name_sanitized": _safe(cell.view.name),
        "lm_eval_version": next((a["lm_eval"] for a in asked.values() if "lm_eval" in a), None),
        "task_hashes": {},
    }


def _metrics(record: Record) -> tuple[dict[str, Any], int]:
    """Values and standard errors as lm-eval names them (`acc,none`, `acc_stderr,none`), and the number of samples."""
    samples = list(read_samples(record.file("samples.jsonl")))
    found: dict[str, Any] = {}
    for name, stated in sorted(json.loads(record.file("metrics.json").read_text()).items()):
        metric, _, kind = name.partition(",")
        found[f"{metric},{kind or 'none'}"] = stated["value"]
        scores = [s["scores"][name] for s in samples if name in s["scores"]]
        found[f"{metric}_stderr,{kind or 'none'}"] = _standard_error(scores)
    return found, len(samples)


def _standard_error(scores: Sequence[Any]) -> float | str:
    if len(scores) < 2 or not all(isinstance(s, bool | int | float) for s in scores):
        return "N/A"
    mean = sum(scores) / len(scores)
    return math.sqrt(sum((s - mean) ** 2 for s in scores) / (len(scores) - 1) / len(scores))


def _samples(record: Record) -> Iterable[dict[str, Any]]:
    """A line a document and filter."""
    for sample in read_samples(record.file("samples.jsonl")):
        by_filter: dict[str, dict[str, Any]] = {}
        for name, score in sample["scores"].items():
            metric, _, kind = name.partition(",")
            by_filter.setdefault(kind or "none", {})[metric] = score
        for kind, scores in by_filter.items():
            yield {
                "doc_id": sample["doc"],
                "doc": {},
                "target": sample["target"],
                "arguments": {},
                "resps": [],
                "filtered_resps": [sample["answer"]],
                "filter": kind,
                "metrics": list(scores),
                "doc_hash": sample["hash"],
                **scores,
            }


def _safe(name: str) -> str:
    """A cell's name may hold what a file name may not."""
    return quote(name, safe="[]=,+")


def _write(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, text.encode())
    return file


WRITERS: dict[str, Callable[[Sequence[CellView], Store, Path], list[Path]]] = {
    "model-index": write_model_index,
    "lm-eval": write_lm_eval,
}
