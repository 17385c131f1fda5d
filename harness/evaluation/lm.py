"""The bridge to lm-eval: it makes the questions of a task, and scores stored answers with the task's own metrics.

lm-eval is given the pinned rows directly and a model object that answers from stored responses, so it neither loads
data, nor starts a model, nor caches anything, and its metrics are its own. Building and scoring walk the same path;
the requests that come out are the same both times. Which tasks there are is `suite`'s business; answering the requests
is an engine's.
"""

from __future__ import annotations

import functools
import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import lm_eval.api.task as lm_task
from jinja2 import UndefinedError
from lm_eval.api.filter import Filter, FilterEnsemble
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.evaluator import evaluate
from lm_eval.tasks._yaml_loader import load_yaml
from lm_eval.utils import env as templates
from lm_eval.utils import handle_non_serializable, hash_string

from harness.data.sources import rows
from harness.digest import canonical, digest
from harness.engines.base import Request, Response
from harness.errors import HarnessError
from harness.evaluation.samples import Sample, gather
from harness.evaluation.task import Task

CHAT = "\x00conversation "  # begins a prompt that is really a conversation; lm-eval only passes it through
SHOT_SEED = 1234  # lm-eval's own
IMPOSSIBLE = -700.0  # stands for a log-probability that is not finite; its exponential is just not zero
TOKEN = 64  # characters; no answer has more of them a token

logging.getLogger("lm_eval").setLevel(logging.ERROR)  # it warns about every default that a task file relies on
lm_task.tqdm = lambda items, **_: items  # its bar for building prompts would fill the log of a worker
templates.from_string = functools.lru_cache(256)(templates.from_string)  # parsed for every row, nine tenths of the time


@dataclass(frozen=True)
class Scored:
    """metrics: name -> {"value": float, "n": scored documents}.  samples: one mapping a document, see `samples`."""

    metrics: dict[str, dict[str, Any]]
    samples: list[Sample]


@dataclass(frozen=True)
class Document:
    """A row of a test set. hash: of its content, as its sample has it."""

    hash: str
    question: str
    answer: str


def build_requests(task: Task) -> list[Request]:
    """The questions of a task in the order of its documents, without repetitions.

    A choice among answers is one "choose" request. HarnessError if a row lacks what the task file needs.
    """
    asked = requests_by_document(task).values()
    return list({request.key: request for requests in asked for request in requests}.values())


def requests_by_document(task: Task) -> dict[int, list[Request]]:
    """The questions about each document, by its number among the rows that are asked."""
    opened = _open(task)
    bridge = Bridge(task, {})
    opened.build_all_requests(
        apply_chat_template=task.chat,
        fewshot_as_multiturn=True,
        chat_template=bridge.apply_chat_template if task.chat else None,
        tokenizer_name=bridge.tokenizer_name,
    )
    found: dict[int, dict[str, Request]] = {}
    repeated = [i for i in opened.instances for _ in range(i.repeats or 1)]
    for i, (request, _) in zip(repeated, bridge.asked(repeated, opened.instances), strict=True):
        found.setdefault(i.doc_id, {})[request.key] = request
    return {doc: list(requests.values()) for doc, requests in found.items()}


def documents(task: Task) -> list[Document]:
    """What each row of a task asks and expects, without instructions and worked examples."""
    opened = _open(task)
    found = []
    for row in opened.eval_docs:
        question, target = opened.doc_to_text(row), opened.doc_to_target(row)
        if task.kind == "multiple_choice":
            choices = opened.doc_to_choice(row)
            if isinstance(target, int) and 0 <= target < len(choices):
                target = choices[target]
        text = json.dumps(row, indent=2, default=handle_non_serializable, ensure_ascii=False)  # as lm-eval hashes it
        found.append(Document(hash_string(text)[:16], str(question), str(target)))
    return found


def score(task: Task, responses: Mapping[str, Response]) -> Scored:
    """Replay stored answers through lm-eval.

    responses: by the key of the task's own request (whatever a method's `prompt` made of it). HarnessError saying how
    many are missing.
    """
    asked = requests_by_document(task)
    keys = {request.key for requests in asked.values() for request in requests}
    if missing := len(keys - responses.keys()):
        raise HarnessError(f"{missing} of {len(keys)} answers of task `{task.name}` are missing")
    results = evaluate(
        lm=Bridge(task, responses),
        task_dict={"tasks": {task.name: _open(task)}},
        bootstrap_iters=0,
        log_samples=True,
        apply_chat_template=task.chat,
        fewshot_as_multiturn=True,
    )
    metrics, samples = gather(results["samples"][task.name], results["results"][task.name], task)
    for sample in samples:
        ends = {responses[request.key].finish for request in asked[sample["doc"]]}
        sample["finish"] = "length" if "length" in ends else "".join(sorted(ends))
    return Scored(metrics, samples)


class Bridge(LM):  # type: ignore[misc]
    """A model, to lm-eval's eyes. It has no tokenizer, so it needs nothing of lm-eval's `TemplateLM` but its base."""

    tokenizer_name = "harness"  # names a cache of prompts that is never used

    def __init__(self, task: Task, responses: Mapping[str, Response]) -> None:
        super().__init__()
        self.task, self.responses = task, responses

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """Keeps the conversation as it is, since rendering it is the engine's business and methods may change it."""
        return CHAT + canonical({"messages": chat_history, "answer_begun": not add_generation_prompt})

    def generate_until(self, requests: Sequence[Instance]) -> list[str]:
        return [self._text(self.responses[request.key], request) for request, _ in self.asked(requests, requests)]

    def _text(self, response: Response, request: Request) -> str:
        """The answer; for lm-eval's own tasks, whose filters may take time by the square of it, no longer than real."""
        return response.text[: TOKEN * request.max_tokens] if self.task.entry else response.text

    def loglikelihood(self, requests: Sequence[Instance]) -> list[tuple[float, bool]]:
        answers = ((self.responses[request.key], at) for request, at in self.asked(requests, requests))
        return [(_finite(response.logprobs[at]), bool(response.greedy[at])) for response, at in answers]

    def loglikelihood_rolling(self, requests: Sequence[Instance]) -> list[float]:
        raise NotImplementedError("planning refuses tasks of this kind")

    def asked(self, instances: Sequence[Instance], among: Sequence[Instance]) -> Iterator[tuple[Request, int]]:
        """For each of lm-eval's instances our request and which of its choices it is.

        among: all instances of the task, since the choices after one context are one request.
        """
        groups: dict[tuple[Any, str], list[str]] = {}
        for i in among:
            if i.request_type == "loglikelihood":
                choices = groups.setdefault((i.doc_id, i.args[0]), [])
                choices += [i.args[1]] if i.args[1] not in choices else []
        repeat, last = 0, None
        for i in instances:
            repeat = repeat + 1 if i is last else 0  # lm-eval repeats one and the same object, next to each other
            last = i
            if i.request_type == "loglikelihood":
                choices = groups[i.doc_id, i.args[0]]
                yield _choose(i.args[0], choices), choices.index(i.args[1])
            else:
                yield self._generate(i, repeat), 0

    def _generate(self, instance: Instance, repeat: int) -> Request:
        sampling = self.task.form.sampling
        assert sampling is not None, "planning refuses a task without"
        seed = int(digest([self.task.name, instance.args[0], repeat])[:7], 16) if sampling.temperature else 0
        tools = instance.doc[self.task.form.tools] if self.task.form.tools else ()
        return Request(
            kind="generate",
            **_prompt(instance.args[0]),
            tools=tuple(tools),
            stop=tuple(sampling.stop),
            max_tokens=sampling.max_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            seed=seed,
        )


def _finite(logprob: float) -> float:
    """lm-eval's softmax cannot do with what is not a number, and the order among choices stays."""
    return logprob if math.isfinite(logprob) else IMPOSSIBLE


def _prompt(context: str) -> dict[str, Any]:
    """The fields of a request that hold its prompt."""
    if not context.startswith(CHAT):
        return {"text": context}
    said = json.loads(context.removeprefix(CHAT))
    messages = said["messages"]
    prefix = messages.pop()["content"] if said["answer_begun"] else ""
    return {"messages": tuple(messages), "prefix": prefix}


def _choose(context: str, choices: Sequence[str]) -> Request:
    prompt = _prompt(context)
    text = prompt.get("text", "")
    spaces = text[len(text.rstrip()) :]  # as lm-eval does, they go with the choice, for the sake of the tokenizer
    if spaces:
        prompt["text"] = text.rstrip()
    return Request(kind="choose", **prompt, choices=tuple(spaces + choice for choice in choices))


class _KeepAll(Filter):  # type: ignore[misc]
    """Gives a scorer the list of all answers to a question."""

    def apply(self, resps: Any, docs: Any) -> Any:
        return resps


class _Rows(list[dict[str, Any]]):
    """Rows as lm-eval wants a data set, without Arrow's types, which would change values of mixed kinds."""

    @property
    def features(self) -> dict[str, None]:
        return dict.fromkeys(self[0])


def _open(task: Task) -> Any:
    """lm-eval's task object over the pinned rows; a fresh one each time, since using one changes it."""
    config = load_yaml(_file_of(task))
    for key in ("dataset_path", "dataset_name", "dataset_kwargs", "tag", "group", "task_list"):
        config.pop(key, None)
    documents = chosen_rows(task)
    splits = {config.get("test_split") or config["validation_split"]: _set(task, documents)}
    if task.shot_source is not None:
        split = "shots" if task.file else task.shot_source.split
        splits[split] = _set(task, rows(task.shot_source))
        if task.file:
            config["fewshot_split"] = split
    for key in ("training_split", "validation_split", "fewshot_split"):
        if config.get(key) not in splits:
            config.pop(key, None)
    config |= {"task": task.name, "num_fewshot": task.shots, "custom_dataset": lambda **_: splits}
    if task.form.sampling is not None:
        config["generation_kwargs"] = {"until": list(task.form.sampling.stop)}
        config["repeats"] = task.form.sampling.repeats
    try:
        opened = lm_task.ConfigurableTask(config=config)
        if opened.config.repeats > 1 and not config.get("filter_list"):
            opened._filters = [FilterEnsemble("none", [_KeepAll])]  # lm-eval's default keeps only the first answer
    except (KeyError, UndefinedError) as error:
        raise _unsuitable(task, documents[0], str(error)) from error
    text = config.get("doc_to_text")
    if isinstance(text, str) and text.isidentifier() and text not in opened.features:
        raise _unsuitable(task, documents[0], f"there is no `{text}`")  # lm-eval would ask the word itself
    opened.set_fewshot_seed(SHOT_SEED)
    return opened


def _unsuitable(task: Task, document: Mapping[str, Any], why: str) -> HarnessError:
    return HarnessError(
        f"the rows of `{task.source.label}` do not suit task `{task.name}`",
        where=str(_file_of(task)),
        why=f"{why}; the fields are {', '.join(document)}",
    )


def _file_of(task: Task) -> Path:
    if task.file is not None:
        return task.file.path
    assert task.entry is not None
    if "ifeval" in task.entry.file:
        from harness.evaluation.instructions import registry

        registry()
    return Path(str(distribution("lm_eval").locate_file("lm_eval/tasks"))) / task.entry.file


def _set(task: Task, documents: list[dict[str, Any]]) -> Any:
    """Our own task files get plain rows; lm-eval's may use methods of a `datasets.Dataset`, kept in memory."""
    if task.file is not None:
        return _Rows(documents)
    from datasets import Dataset, disable_progress_bars

    disable_progress_bars()
    return Dataset.from_list(documents)


def chosen_rows(task: Task) -> list[dict[str, Any]]:
    """The rows of a task, in their order: all, or as many as its limit, chosen by their content's hash."""
    documents = rows(task.source)
    if task.limit is None or task.limit >= len(documents):
        return documents
    hashes = [_hash(document) for document in documents]
    kept = set(sorted(range(len(documents)), key=lambda i: (hashes[i], i))[: task.limit])
    return [document for i, document in enumerate(documents) if i in kept]


def _hash(document: Mapping[str, Any]) -> str:
    try:
        return digest(document)
    except ValueError:  # infinity, which MBPP+ has among its inputs
        return digest(repr(document))
