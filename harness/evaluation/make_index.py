"""Writes the index of lm-eval's tasks: `python -m harness.evaluation.make_index`, after lm-eval's pin has moved.

Reads the task files of the installed lm-eval without running their code. What a task needs is found in the text of
its files: a metric that is not lm-eval's own, code that fetches something, code that runs the answers.
"""

from __future__ import annotations

import functools
import gzip
import importlib.metadata
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.evaluation.index import COLUMNS, FILE

CODE = "runs the answers as code in lm-eval's own process"
PYTHON = "is a Python class that loads its data itself"
METRIC = "fetches the code of a metric from the hub"
DATA = "names data files of its own instead of a data set"
FETCHES = {
    r"evaluate\.load\(|hf_evaluate": METRIC,
    r"nltk\.(download|data\.load|word_tokenize|sent_tokenize)\(": "needs data that NLTK fetches",
    r"load_dataset\(|hf_hub_download|snapshot_download": "fetches more data in its own code",
    r"from_pretrained\(": "fetches a model to score with",
    r"(?m)^\s*(import|from) (requests|openai)\b|urllib\.request|googleapiclient": "asks a web service",
}
PROVIDED = (
    "/tasks/ifeval/instructions_util.py",
    "/tasks/ifeval/instructions.py",
)  # the sentence data come from a package here (`harness.evaluation.instructions`)


def make_index() -> dict[str, Any]:
    """The body of the index file. About 15 seconds."""
    from lm_eval.tasks import TaskManager

    manager = TaskManager()
    root = Path(str(importlib.metadata.distribution("lm_eval").locate_file("lm_eval/tasks")))
    rows = {name: _row(manager.task_index[name], root) for name in manager.all_subtasks}
    shared = {c: _distinct(row[c] for row in rows.values()) for c in COLUMNS if c != "shots"}
    numbers = {c: {json.dumps(v): i for i, v in enumerate(values)} for c, values in shared.items()}
    return {
        "lm_eval": importlib.metadata.version("lm_eval"),
        "shared": shared,
        "tasks": {
            name: [numbers[c][json.dumps(row[c])] if c in shared else row[c] for c in COLUMNS]
            for name, row in rows.items()
        },
        "groups": sorted({*manager.all_groups, *manager.all_tags} - set(rows)),
    }


def _row(entry: Any, root: Path) -> dict[str, Any]:
    config = entry.cfg
    shots = config.get("num_fewshot") or 0
    fewshot = config.get("fewshot_config") or {}
    version = (config.get("metadata") or {}).get("version", "") if isinstance(config.get("metadata"), dict) else ""
    metrics = [m["metric"] for m in config.get("metric_list") or [] if isinstance(m, dict)]
    return {
        "file": str(entry.yaml_path.relative_to(root)),
        "kind": config.get("output_type") or "generate_until",
        "dataset": config.get("dataset_path") or "",
        "config": config.get("dataset_name") or "",
        "split": config.get("test_split") or config.get("validation_split") or "",
        "shots": shots,
        "shot_split": (config.get("fewshot_split") or fewshot.get("split") or config.get("training_split") or "")
        if shots and not fewshot.get("samples")
        else "",
        "version": str(version),
        "metrics": [m if "/" not in m else m.rpartition(".")[2] for m in metrics],
        "needs": sorted(_needs(config, metrics, entry.yaml_path.parent)),
    }


def _needs(config: dict[str, Any], metrics: list[str], folder: Path) -> set[str]:
    if "class" in config:
        return {PYTHON}
    needs = {CODE} if config.get("unsafe_code") else set()
    if (config.get("dataset_kwargs") or {}).get("data_files") or config.get("custom_dataset"):
        needs.add(DATA)
    own = config.get("process_results")
    if not own and any("/" not in m and not _known(m) for m in metrics):
        needs.add(METRIC)
    if any(m.get("hf_evaluate") for m in config.get("metric_list") or [] if isinstance(m, dict)):
        needs.add(METRIC)
    for file in {f for text in _functions(config) for f in _files(text)}:
        needs |= _fetches(file)
    return needs


def _known(metric: str) -> bool:
    from lm_eval.api.registry import METRIC_REGISTRY

    return metric in METRIC_REGISTRY


def _functions(value: Any) -> Iterator[str]:
    """Every `!function` of a configuration, which an unresolved reading leaves as an absolute `file.function`."""
    if isinstance(value, dict):
        for inner in value.values():
            yield from _functions(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _functions(inner)
    elif isinstance(value, str) and value.startswith("/") and "\n" not in value:
        yield value


def _files(function: str) -> set[Path]:
    """The file of a function and all that it imports from lm_eval.tasks or from beside it."""
    found: set[Path] = set()
    waiting = [Path(function.rpartition(".")[0].replace(".py", "") + ".py")]
    while waiting:
        path = waiting.pop()
        if path not in found and path.is_file():
            found.add(path)
            waiting += _imported(path)
    return found


def _imported(path: Path) -> Iterator[Path]:
    """Files that a task's code may import: names beside it, and modules of lm_eval.tasks."""
    for package, names, plain in re.findall(r"(?m)^\s*(?:from ([\w.]+) import ([\w, ]+)|import ([\w.]+))", _text(path)):
        parts = (package or plain).split(".")
        if parts[:2] == ["lm_eval", "tasks"]:
            folder = Path(*path.parts[: path.parts.index("lm_eval")], *parts)
            yield folder.with_suffix(".py")
        elif len(parts) > 1 and parts[0]:
            continue
        else:
            folder = path.parent
            yield folder / f"{parts[-1]}.py"
        yield from (folder / f"{name.strip()}.py" for name in names.split(","))


@functools.cache
def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@functools.cache
def _fetches(path: Path) -> frozenset[str]:
    if str(path).endswith(PROVIDED):
        return frozenset()
    code = re.sub(r"(?m)#.*$", "", _text(path))
    return frozenset(need for pattern, need in FETCHES.items() if re.search(pattern, code))


def _distinct(values: Iterator[Any]) -> list[Any]:
    seen: dict[str, Any] = {}
    for value in values:
        seen.setdefault(json.dumps(value), value)
    return list(seen.values())


def main() -> None:
    """Write the index file."""
    body = json.dumps(make_index(), separators=(",", ":"), ensure_ascii=False).encode()
    FILE.write_bytes(gzip.compress(body, mtime=0))
    print(f"{FILE}: {FILE.stat().st_size} bytes")


if __name__ == "__main__":
    main()
