"""`grpo` through `trainer: trl`: what is sampled, rewarded, billed and trained, and where the two trainers are one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness import methods
from harness.errors import HarnessError, Refused
from harness.matrix import Budget
from harness.training import verify
from harness.training.adapters import make
from tests.test_trl_trainer import curve, run, weights

pytest.importorskip("trl")

GRPO: tuple[tuple[str, dict[str, Any]], ...] = (("grpo", {"n": 4, "max_tokens": 6}),)
ROWS: list[dict[str, Any]] = [
    {
        "id": f"r{i}",
        "messages": [
            {"role": "user", "content": f"What is {10 + i} and {10 + i}?"},
            {"role": "assistant", "content": f"It is #### {20 + 2 * i}"},
        ],
    }
    for i in range(12)
]


def by_length(rows: Any, texts: Any) -> list[float]:
    """A reward that differs between the answers to one prompt."""
    return [float(len(text)) for text in texts]


def test_equal_rewards_leave_the_weights_as_they_are(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from safetensors.torch import load_file

    monkeypatch.setattr(verify, "scores", lambda rows, texts: [1.0] * len(texts))
    done = run(tmp_path / "a", "trl", tiny_model, GRPO, ROWS, budget=Budget(steps=2), batch_size=2)
    assert done.status == "ok"
    base = load_file(tiny_model / "model.safetensors")
    for name, value in weights(tmp_path / "a").items():
        assert torch.equal(value, base[name].to(value.dtype)), name


@pytest.mark.parametrize(
    "stack",
    [
        GRPO,
        (("grpo", {"n": 4, "max_tokens": 6, "beta": 0.1, "norm": "tokens", "scale": "none"}),),
        (("lora", {"r": 2}), ("grpo", {"n": 4, "max_tokens": 6, "beta": 0.1})),
    ],
    ids=["plain", "reference", "lora"],
)
def test_answers_are_sampled_rewarded_trained_on_and_billed(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, stack: Any
) -> None:
    asked: list[str] = []

    def reward(rows: Any, texts: Any) -> list[float]:
        asked.extend(row["id"] for row in rows)
        return by_length(rows, texts)

    monkeypatch.setattr(verify, "scores", reward)
    done = run(tmp_path / "a", "trl", tiny_model, stack, ROWS, budget=Budget(steps=3), batch_size=2, micro_batch=3)
    assert done.status == "ok"
    lines = curve(tmp_path / "a")
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert all(line["norm"] > 0 for line in lines)
    assert all("reward" in line for line in lines)
    assert len(asked) == 3 * 2 * 4
    assert all(asked[i : i + 4] == asked[i : i + 1] * 4 for i in range(0, len(asked), 4))
    cost = done.cost
    spent = cost["rollout"]["prompt_tokens"] + cost["rollout"]["generated_tokens"]
    assert cost["trained_tokens"] == spent
    assert cost["loss_tokens"] == cost["rollout"]["generated_tokens"] <= 3 * 8 * 6
    assert {"rollout", "reward", "forward", "backward"} <= cost["seconds"].keys()
    assert cost["extra_forward_tokens"] == ({"base": spent} if "beta" in stack[-1][1] else {})
    assert json.loads((tmp_path / "a" / "artifact" / "artifact.json").read_text())["method"] == [n for n, _ in stack]


def test_the_order_of_prompts_is_the_native_trainers(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness.training.batches import Order

    asked: list[str] = []

    def reward(rows: Any, texts: Any) -> list[float]:
        asked.extend(row["id"] for row in rows[::4])
        return by_length(rows, texts)

    monkeypatch.setattr(verify, "scores", reward)
    run(tmp_path / "a", "trl", tiny_model, GRPO, ROWS, budget=Budget(steps=4), batch_size=2)
    order = Order(len(ROWS), 2, 3, lambda i: 1)  # all rows are equally long
    assert asked == [ROWS[i]["id"] for k in range(4) for i in order.batch(k)]


def test_a_budget_of_tokens_ends_the_run_with_the_step_that_spends_it(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "scores", by_length)
    done = run(
        tmp_path / "a", "trl", tiny_model, GRPO, ROWS, budget=Budget(tokens=900), batch_size=2, schedule="linear"
    )
    lines = curve(tmp_path / "a")
    assert done.cost["trained_tokens"] >= 900
    assert len(lines) == done.summary["steps"] > 1
    assert lines[-2]["tokens"] < 900
    rates = [line["lr"] for line in lines]
    assert rates[-1] < max(rates)


def test_what_trls_trainer_does_otherwise_is_refused() -> None:
    adapter = make("trl")
    adapter.check(methods.build(GRPO))
    with pytest.raises(Refused, match="samples anew at every step, and `grpo` has `refresh` above 1"):
        adapter.check(methods.build((("grpo", {"refresh": 2}),)))
    for name in ("grao", "ppo"):
        with pytest.raises(Refused, match=f"`{name}` (uses the hook|sets)"):
            adapter.check(methods.build(((name, {}),)))


def test_a_row_without_a_question_is_named(tmp_path: Path, tiny_model: Path) -> None:
    rows = [*ROWS, {"id": "lone", "messages": [{"role": "assistant", "content": "#### 1"}]}]
    with pytest.raises(HarnessError, match="row lone"):
        run(tmp_path / "a", "trl", tiny_model, GRPO, rows, budget=Budget(steps=20), batch_size=4)
