"""The samples behind results in a store, and with the tasks at hand what was asked and answered word for word."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from harness.commands.prompt import as_dict, in_words

if TYPE_CHECKING:
    from harness.engines.base import Request
    from harness.evaluation.task import Task
    from harness.planning.plan import Plan
    from harness.results.frame import TaskView
    from harness.store import Record, Store


def tasks_of(plan: Plan) -> dict[str, Task]:
    """The tasks of a plan by name."""
    return {t.task.name: t.task for cell in plan.cells for t in cell.tasks}


class StoredSamples:
    """Reads the samples of a cell's score step; of the given tasks with prompts and outputs, where these are kept."""

    def __init__(self, store: Store, tasks: Mapping[str, Task]) -> None:
        self.store, self.tasks = store, tasks
        self.asked: dict[str, Mapping[int, list[Request]]] = {}

    def __call__(self, cell: str, task: TaskView) -> Iterable[Mapping[str, Any]] | None:
        from harness.results.frame import read_samples

        record = self.store.find("score", task.key)
        if record is None or not record.file("samples.jsonl").exists():
            return None
        lines = read_samples(record.file("samples.jsonl"))
        generated = self.store.find("generate", task.generate)
        if task.task not in self.tasks or generated is None or not generated.file("responses.jsonl").exists():
            return lines
        return self._with_texts(lines, generated, self.tasks[task.task])

    def _with_texts(
        self, lines: Iterable[Mapping[str, Any]], generated: Record, task: Task
    ) -> Iterator[Mapping[str, Any]]:
        """An engine's words are kept under the keys of the requests, which the task makes again from its data."""
        from harness.evaluation.lm import requests_by_document
        from harness.methods import make
        from harness.steps.responses import prompted, read_responses

        if task.name not in self.asked:
            self.asked[task.name] = requests_by_document(task)
        stack = [make(name, params) for name, _, params in generated.identity.get("prompts", [])]
        said = {r.key: r for r in read_responses(generated.file("responses.jsonl"))}
        for line in lines:
            asked = self.asked[task.name].get(line["doc"], [])
            prompts = dict.fromkeys(in_words(as_dict(prompted(stack, request)[-1])) for request in asked)
            texts = [said[request.key].text for request in asked if request.key in said]
            yield {**line, "prompt": "\n\n".join(prompts), "output": "\n\n".join(filter(None, texts))}
