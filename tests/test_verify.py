"""Rewards by the suites' own scorers, and data that cannot be checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.errors import HarnessError, Problems
from harness.matrix import load_matrix
from harness.planning.plan import Where, make_plan
from harness.training.verify import checker, score, scores
from tests.runs import write_matrix
from tests.training import make_rows, write_rows


def row(solution: str, **columns: Any) -> dict[str, Any]:
    turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": solution}]
    return {"id": "r", "messages": turns, **columns}


@pytest.mark.parametrize(
    ("solution", "text", "right"),
    [
        ("2 + 2 = 4\n#### 4", "so\n#### 4", 1.0),
        ("#### 1,200", "The answer is 1200.", 1.0),
        ("#### 4", "#### 5", 0.0),
        ("#### 4", "", 0.0),
        (r"It is \boxed{\frac{1}{2}}.", r"\boxed{0.5}", 1.0),
        (r"\boxed{x^2+2x}", r"\boxed{x(x+2)}", 1.0),
    ],
)
def test_answers_of_mathematics(solution: str, text: str, right: float) -> None:
    assert score(row(solution), text) == right


def test_the_rows_own_answers_are_right(mirror: Path) -> None:
    import gzip
    import json

    with gzip.open(mirror / "math/gsm8k/train.jsonl.gz", "rt") as file:
        told = [json.loads(next(file)) for _ in range(50)]
    rows = [{**row(each["answer"]), "id": str(i)} for i, each in enumerate(told)]
    assert scores(rows, [each["answer"] for each in told]) == [1.0] * 50


def test_calls_are_compared_by_the_rules_of_the_suite(mirror: Path) -> None:
    import json

    told = json.loads((mirror / "tool_use/bfcl_v4/simple_python.jsonl").read_text().splitlines()[0])
    one = row("?", function=told["function"], ground_truth=told["ground_truth"])
    (call,) = told["ground_truth"]
    ((name, allowed),) = call.items()
    right = ", ".join(f"{n}={values[0]!r}" for n, values in allowed.items() if values[0] != "")
    assert checker(one) == "call"
    assert scores([one, one, one], [f"[{name}({right})]", f"[{name}()]", "I cannot."]) == [1.0, 0.0, 0.0]


def test_instructions_are_followed_or_not() -> None:
    one = row("?", instruction_id_list=["punctuation:no_comma"], kwargs=[{}])
    assert checker(one) == "follow"
    assert scores([one, one], ["Yes and no.", "Yes, and no."]) == [1.0, 0.0]


def test_programs_are_run_and_what_is_said_twice_is_run_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.training import verify

    code = "def twice(x):\n    return 2 * x"
    tests = {"code": code, "test_list": ["assert twice(2) == 4", "assert twice(3) == 6"]}
    problem = row(code, **tests)
    asked: list[str] = []
    whole = verify._CHECKS["code"]

    def counted(one: Any, text: str) -> float:
        asked.append(text)
        return whole(one, text)

    monkeypatch.setattr(verify, "_CHECKS", {**verify._CHECKS, "code": counted})
    answers = [f"```python\n{code}\n```", "def twice(x):\n    return x + 2", "no code", "no code"]
    assert scores([problem] * 4, answers) == [1.0, 0.0, 0.0, 0.0]
    assert len(asked) == 3


def test_what_checks_a_row() -> None:
    assert checker(row("#### 4")) == "math"
    assert checker(row("x", answer="#### 4")) == "math"
    assert checker(row("x", code="", test_list=[])) == "code"
    assert checker(row("#### 4", code="", test_list=[], checker="math")) == "math"
    with pytest.raises(HarnessError, match="nothing tells whether an answer to the row r is right"):
        checker(row("four"))
    with pytest.raises(HarnessError, match="no checker is called `maths`"):
        checker(row("#### 4", checker="maths"))
    with pytest.raises(HarnessError, match="`code` needs `test_list`, `code`"):
        checker(row("#### 4", checker="code"))


def plan(folder: Path, rows: list[dict[str, Any]], method: str, model: Path) -> Any:
    """The cells by method: `sft`, and another one."""
    data = write_rows(folder / "rows.jsonl", rows)
    file = write_matrix(folder, model)
    text = file.read_text().replace("lora+dft: {}", f"{method}: {{}}").replace("make:word_problems", f"file:{data}")
    file.write_text(text)
    return {c.cell.method: c for c in make_plan(load_matrix(file), Where()).cells}


def test_data_without_verifiable_answers_are_refused_when_planning(tmp_path: Path, tiny_model: Path) -> None:
    with pytest.raises(Problems) as caught:
        plan(tmp_path, make_rows(), "lora+grpo", tiny_model)
    (problem,) = caught.value.problems
    assert problem.what.startswith("`grpo` samples answers and checks them, and in the data `sums` nothing tells")
    assert "small.yaml:" in problem.where


def test_the_engine_is_in_the_key_of_what_it_takes_part_in(tmp_path: Path, tiny_model: Path) -> None:
    rows = [{**row("#### 4"), "id": f"r{i}"} for i in range(4)]
    for method, step in (("grpo", "train"), ("clear_logit", "data")):
        cells = plan(tmp_path, rows, method, tiny_model)
        assert "engine" not in cells["sft"].train[0].identity
        assert "engine" not in cells["sft"].data.identity
        found = cells[method].train[0] if step == "train" else cells[method].data
        assert found.identity["engine"]["name"] == "fake"
    assert "engine" not in plan(tmp_path, rows, "grpo", tiny_model)["grpo"].data.identity
