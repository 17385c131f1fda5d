"""Stages that sample: what is asked, what becomes of the answers, what is billed, and resumed runs sample alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from harness.engines.base import Request
from harness.errors import HarnessError, Refused, StepFailed
from harness.methods.base import Method
from harness.methods.grao import GRAO
from harness.methods.grpo import GRPO
from harness.methods.sampling import sampling
from harness.training.adapters import make
from tests.sampler import Letters, Sampled
from tests.training import train

SMALL: dict[str, Any] = {"n": 3, "max_tokens": 5}


def test_what_was_sampled_is_trained_on_token_by_token(tmp_path: Path, tiny_model: Path) -> None:
    sampled = Sampled(tiny_model)
    train(tmp_path, tiny_model, GRPO(**SMALL), Letters(), sampled, steps=1)
    ((model, asked),) = sampled.calls
    assert model == "live"
    assert len(asked) == 12
    assert len({r.seed for r in asked}) == 12
    assert {(r.max_tokens, r.temperature, r.top_p) for r in asked} == {(5, 1.0, 1.0)}
    assert all([m["role"] for m in r.messages or ()] == ["user"] for r in asked)
    assert len(sampled.sets[0]) == 12
    for seq in sampled.sets[0]:
        learned = [i for i, t in enumerate(seq.targets) if t != -100]
        assert learned == list(range(learned[0], len(seq.ids) - 1))
        assert seq.targets[learned[0] : -1] == seq.ids[learned[0] + 1 :]
        assert len(seq.per_token["old"]) == len(learned)


def test_the_end_token_is_kept_and_a_cut_answer_has_none(tmp_path: Path, tiny_model: Path) -> None:
    sampled = Sampled(tiny_model)
    done = train(tmp_path, tiny_model, GRPO(n=8, max_tokens=30), Letters(), sampled, steps=2)
    seqs = [q for step in sampled.sets for q in step]
    cut = [q.ids[-1] != 2 for q in seqs]
    assert any(cut)
    assert not all(cut)
    assert all(len(q.per_token["old"]) == 30 for q, c in zip(seqs, cut, strict=True) if c)
    assert done.curve[0]["cut"] == pytest.approx(sum(cut[:32]) / 32)


def test_columns_come_back_and_tokens_are_billed(tmp_path: Path, tiny_model: Path) -> None:
    class Columns(Method):
        name = "columns"

        def __init__(self) -> None:
            super().__init__()
            self.rollouts = {"n": 2, "max_tokens": 4, "reference": True}
            self.seen: dict[str, Any] = {}

        def advantage(self, rolls: Any, ctx: Any) -> dict[str, Any]:
            return {"by_row": torch.arange(float(rolls.R)), "by_token": rolls.row.float()}

        def loss(self, tok: Any, ctx: Any) -> Any:
            by_row = tok["by_row"]
            assert torch.equal(by_row[tok.row], tok["by_token"])
            self.seen = {name: tok[name].tolist() for name in ("group", "reference", "reward")}
            assert torch.equal(tok["old"].isnan(), tok["reference"][tok.row] == 1)
            return -tok.logp

    columns, sampled = Columns(), Sampled(tiny_model)
    done = train(tmp_path, tiny_model, columns, Letters(own=5.0), sampled, steps=1, micro_batch=12)
    assert columns.seen["group"] == [k for k in range(4) for _ in range(3)]
    assert columns.seen["reference"] == [0, 0, 1] * 4
    assert columns.seen["reward"][2::3] == [5.0] * 4
    cost = done.result.cost
    sequences = [q for q in sampled.sets[0] if not q.columns["reference"]]
    assert cost["rollout"]["generated_tokens"] == sum(len(q.per_token["old"]) for q in sequences)
    assert cost["rollout"]["prompt_tokens"] == sum(len(q.ids) - len(q.per_token["old"]) for q in sequences)
    assert cost["seconds"]["rollout"] > 0
    assert done.curve[0]["gap_max"] < 1e-4
    assert done.curve[0]["importance"] == pytest.approx(1, abs=1e-4)


def test_the_gap_between_engine_and_trainer_is_logged(tmp_path: Path, tiny_model: Path) -> None:
    done = train(tmp_path, tiny_model, GRPO(**SMALL), Letters(), Sampled(tiny_model, shift=0.1), steps=1)
    assert done.curve[0]["gap_mean"] == pytest.approx(0.1, abs=1e-4)
    assert done.curve[0]["gap_max"] == pytest.approx(0.1, abs=1e-4)
    assert done.curve[0]["importance"] == pytest.approx(0.904837, abs=1e-4)


def test_every_member_may_change_what_is_asked(tmp_path: Path, tiny_model: Path) -> None:
    class Polite(Method):
        name = "polite"

        def prompt(self, request: Request, ctx: Any) -> Request:
            return request.but(messages=({"role": "system", "content": "Be kind."}, *(request.messages or ())))

    sampled = Sampled(tiny_model)
    train(tmp_path, tiny_model, GRAO(**SMALL), Letters(), Polite(), sampled, steps=1)
    assert all((r.messages or ())[0]["content"] == "Be kind." for r in sampled.calls[0][1])
    starts = {tuple(q.ids[:20]) for q in sampled.sets[0]}
    assert len(starts) == 1  # the row's own answer stands behind the same prompt


@pytest.mark.parametrize("method", [GRPO(**SMALL), GRAO(**SMALL)], ids=["grpo", "grao"])
def test_a_resumed_run_samples_and_loses_alike(tmp_path: Path, tiny_model: Path, method: Method) -> None:
    whole = train(tmp_path / "whole", tiny_model, method, Letters(), Sampled(tiny_model), steps=5)
    stopped = Sampled(tiny_model, stop_after=3)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "cut", tiny_model, method, Letters(), stopped, steps=5, checkpoint_seconds=1e-9)
    earlier = [tmp_path / "cut"]
    again = Sampled(tiny_model)
    rest = train(tmp_path / "rest", tiny_model, method, Letters(), again, steps=5, earlier=earlier)
    assert rest.result.summary["resumed_at"] == 2
    assert len(again.calls) == 3
    assert rest.losses == whole.losses
    assert rest.result.cost["rollout"] == whole.result.cost["rollout"]


def test_checkpoints_are_taken_where_the_weights_that_sample_are_the_live_ones(
    tmp_path: Path, tiny_model: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(
            tmp_path, tiny_model, GRPO(**SMALL, refresh=2), Letters(), Sampled(tiny_model, stop_after=4),
            steps=6, checkpoint_seconds=1e-9,
        )  # fmt: skip
    rest = train(
        tmp_path / "rest", tiny_model, GRPO(**SMALL, refresh=2), Letters(), Sampled(tiny_model),
        steps=6, earlier=[tmp_path],
    )  # fmt: skip
    assert rest.result.summary["resumed_at"] == 2


# --- refusals -------------------------------------------------------------------------------------------------------
def test_a_column_of_another_length_is_refused(tmp_path: Path, tiny_model: Path) -> None:
    class Wrong(Method):
        name, rollouts = "wrong", {"n": 2, "max_tokens": 4}

        def advantage(self, rolls: Any, ctx: Any) -> Any:
            return torch.zeros(rolls.R + 1)

    with pytest.raises(HarnessError, match="`advantage` has 9 values, for 8 answers"):
        train(tmp_path, tiny_model, Wrong(), Letters(), Sampled(tiny_model))


def test_an_engine_that_reads_another_prompt_is_found_out(tmp_path: Path, tiny_model: Path) -> None:
    class Other(Sampled):
        def _sample(self, group: Any, ids: Any, prompts: Any) -> Any:
            return super()._sample(group, [*ids, 5], prompts)

    with pytest.raises(StepFailed, match="the engine read"):
        train(tmp_path, tiny_model, GRPO(**SMALL), Letters(), Other(tiny_model))


def test_rows_that_leave_no_room_or_ask_nothing_are_named(tmp_path: Path, tiny_model: Path) -> None:
    with pytest.raises(HarnessError, match="longer than the longest row"):
        train(tmp_path / "a", tiny_model, GRPO(max_tokens=90), Letters(), Sampled(tiny_model), max_length=100)
    rows = [{"id": f"t{i}", "text": "only text"} for i in range(4)]
    with pytest.raises(HarnessError, match="this row has none"):
        train(tmp_path / "b", tiny_model, GRPO(**SMALL), Letters(), Sampled(tiny_model), rows=rows)


def test_planning_refuses_what_cannot_be_sampled() -> None:
    class Odd(Method):
        name, rollouts = "odd", {"n": 0}

    with pytest.raises(Refused, match="`odd` sets `rollouts`, and its `n` is wrong"):
        sampling([Odd()])
    with pytest.raises(Refused, match="nothing in its stack samples"):
        make("native").check([Letters()])
    with pytest.raises(Refused, match="both set `rollouts`"):
        make("native").check([Odd(), GRAO()])
