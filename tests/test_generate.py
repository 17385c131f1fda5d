"""One engine for all artifacts: what is complete is published at once, and the next artifact is prepared beside it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import harness.engines
from harness.engines.base import Activation, Artifact, Request, Response
from harness.engines.fake import FakeEngine
from harness.matrix import load_matrix
from harness.planning.plan import Plan, Where, make_plan
from harness.steps import Bench, run_data, run_generate, run_train
from harness.store import Store

MATRIX = """
version: 1
name: small
models: {{tiny: {model}}}
data: {{sums: {{source: "make:word_problems", rows: 40}}}}
train: {{data: sums, budget: {{steps: 1}}, batch_size: 2, lr: 1e-3}}
methods: {{base: {{}}, sft: {{}}, lora: {{}}}}
suites:
  math: {{tasks: [made_word_problems], limit: 12, made: true}}
  tool_use: {{tasks: [simple_python], limit: 6}}
  glue: {{tasks: [made_sentiment], limit: 10, made: true}}
engine: {{name: fake, max_model_len: 4096}}
"""


class Watched(FakeEngine):
    """Prepares by saying which process did it; notes at each request what the store held."""

    def __init__(self, store: Store) -> None:
        super().__init__(answer=self._look)
        self.store = store
        self.seen: list[tuple[str, int, int]] = []  # artifact, max_tokens, generate steps finished
        self.prepared: dict[str, Any] = {}

    def _look(self, request: Request, artifact: Artifact) -> str:
        self.seen.append((artifact.digest, request.max_tokens, len(self.store.finished("generate"))))
        return "fine"

    def ahead(self, artifact: Artifact) -> Callable[[], Any] | None:  # type: ignore[override]
        return partial(_prepare, artifact.name) if artifact.kind != "base" else None

    def activate(self, artifact: Artifact, prepared: Any = None) -> Activation:
        self.prepared[artifact.name] = prepared
        return super().activate(artifact)


def _prepare(name: str) -> int:
    if "lora" in name:
        os._exit(1)  # as one that is killed for its memory
    return os.getpid()


@pytest.fixture
def small(tmp_path: Path, tiny_model: Path) -> tuple[Plan, Bench]:
    file = tmp_path / "small.yaml"
    file.write_text(MATRIX.format(model=tiny_model))
    plan = make_plan(load_matrix(file), Where())
    return plan, Bench(plan, Store(tmp_path / "store"), lambda *_: None)


def generate(small: tuple[Plan, Bench], monkeypatch: pytest.MonkeyPatch) -> Watched:
    plan, bench = small
    engine = Watched(bench.store)
    monkeypatch.setattr(harness.engines, "make", lambda name: engine)
    for cell in plan.cells:
        run_data(bench, cell)
        run_train(bench, cell)
    assert run_generate(bench, plan.cells) == 0
    return engine


def test_a_task_is_published_when_it_is_complete_and_long_answers_come_first(
    small: tuple[Plan, Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = generate(small, monkeypatch)
    base = engine.seen[0][0]
    mine = [(room, finished) for digest, room, finished in engine.seen if digest == base]
    rooms = [room for room, _ in mine]
    assert rooms == sorted(rooms, reverse=True)
    assert len(set(rooms)) == 2, "two tasks of this matrix generate"
    first = [finished for room, finished in mine if room == max(rooms)]
    last = [finished for room, finished in mine if room == min(rooms)]
    assert set(first) == {1}, "the task that chooses was answered before and published"
    assert set(last) == {2}


def test_the_next_artifact_is_prepared_in_another_process_which_may_die(
    small: tuple[Plan, Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = generate(small, monkeypatch)
    base, sft, lora = (engine.prepared[cell.name] for cell in small[0].cells)
    assert base is None
    assert isinstance(sft, int) and sft != os.getpid()
    assert lora is None, "the engine does it itself"
    assert len(small[1].store.finished("generate")) == 9


def test_the_seconds_of_an_artifact_are_shared_among_its_tasks(
    small: tuple[Plan, Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    generate(small, monkeypatch)
    plan, bench = small
    for cell in plan.cells:
        records = [bench.finished("generate", t.generate.key) for t in cell.tasks]
        assert all(r.cost["seconds"] > 0 for r in records)
        rows = [json.loads(line) for r in records for line in r.file("responses.jsonl").read_text().splitlines()]
        assert len({Response.from_json(row).key for row in rows}) == len(rows) == 28


def test_a_prompt_that_does_not_fit_is_refused_or_counts_as_wrong_as_the_matrix_says(
    small: tuple[Plan, Bench], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "small.yaml"
    asked: dict[str, tuple[int, int, int]] = {}
    for rule in ("refuse", "wrong"):
        settings = f"engine={{name: fake, max_model_len: 150, too_long: {rule}}}"
        plan = make_plan(load_matrix(file, overrides=[settings, "methods=[base]"]), Where())
        bench = Bench(plan, Store(tmp_path / rule), lambda *_: None)
        monkeypatch.setattr(harness.engines, "make", lambda name: FakeEngine())
        code = run_generate(bench, plan.cells)
        calls = next(t for t in plan.cells[0].tasks if t.task.name == "simple_python").generate
        record = bench.store.find("generate", calls.key)
        unsent = record.extra["too_long"] if record else -1
        asked[rule] = (code, unsent, len(bench.store.finished("generate")))
    code, unsent, finished = asked["refuse"]
    assert code == 2 and unsent == -1 and finished < 3
    assert "simple_python" in capsys.readouterr().err
    code, unsent, finished = asked["wrong"]
    assert code == 0 and finished == 3 and 0 < unsent <= 6
