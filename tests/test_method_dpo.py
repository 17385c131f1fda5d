"""Preference pairs: the margin against a frozen reference, from the rows of a file to the weights."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor

from harness import methods
from harness.errors import HarnessError, Problems, Refused
from harness.matrix import load_matrix
from harness.methods.base import Method, Term, check_stack
from harness.methods.dft import DFT
from harness.methods.dpo import DPO
from harness.methods.lora import LoRA
from harness.methods.sft import SFT
from harness.planning.plan import Where, make_plan
from harness.training.adapters import make
from tests.runs import write_matrix
from tests.training import Before, Watch, make_pairs, make_rows, train, write_rows

LOG2 = math.log(2)


def open_model(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def answer_logp(model: Any, batch: Any) -> Tensor:
    """Sum of log p over the targets of each sequence, with full logits and nothing of ours: [sequences]."""
    logp = model(input_ids=batch.ids).logits.log_softmax(-1)
    keep = batch.targets != -100
    return (logp.gather(-1, batch.targets.clamp(min=0)[..., None])[..., 0] * keep).sum(-1)


def plain_dpo(model: Any, frozen: Any, batch: Any, beta: float) -> Tensor:
    """Every row of these batches is a chosen sequence followed by its rejected one."""
    with torch.no_grad():
        held = answer_logp(frozen, batch)
    gain = answer_logp(model, batch) - held
    return -F.logsigmoid(beta * (gain[::2] - gain[1::2])).mean()


# --- identity -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("beta", [0.1, 0.5])
def test_it_starts_at_log_two_with_half_beta_times_the_contrast_of_the_answers(
    tmp_path: Path, tiny_model: Path, beta: float
) -> None:
    class Contrast(Method):
        name, needs = "contrast", frozenset({"pairs"})

        def loss(self, tok: Any, ctx: Any) -> Term:
            rejected, chosen = (tok.view(name).row_sum(tok.logp) for name in ("rejected", "chosen"))
            return Term(beta / 2 * (rejected - chosen))

    mine, contrast = Watch(), Watch()
    a = train(tmp_path / "a", tiny_model, DPO(beta=beta), mine, rows=make_pairs(), steps=1)
    train(tmp_path / "b", tiny_model, Contrast(), contrast, rows=make_pairs(), steps=1)
    assert a.losses[0] == pytest.approx(LOG2, abs=1e-7)
    for name, g in mine.gradients[0].items():
        assert torch.allclose(g, contrast.gradients[0][name], rtol=0, atol=1e-6)


def test_pairs_of_which_no_token_counts_move_nothing_in_twenty_steps(tmp_path: Path, tiny_model: Path) -> None:
    class Nothing(Method):
        name = "nothing"

        def token_weight(self, tok: Any, ctx: Any) -> Tensor:
            return torch.zeros(len(tok.row))

    watch = Watch()
    done = train(tmp_path, tiny_model, DPO(), Nothing(), watch, rows=make_pairs(), steps=20)
    assert done.losses == [pytest.approx(LOG2, abs=1e-7)] * 20
    base = dict(open_model(tiny_model).named_parameters())
    assert all(not g.any() for step in watch.gradients for g in step.values())
    assert all(torch.equal(p, base[n]) for n, p in watch.final.items())


def test_equal_answers_have_no_gradient(tmp_path: Path, tiny_model: Path) -> None:
    rows = [{**row, "rejected": row["chosen"]} for row in make_pairs()]
    watch = Watch()
    done = train(tmp_path, tiny_model, DPO(), watch, rows=rows, steps=1)
    assert done.losses[0] == pytest.approx(LOG2, abs=1e-7)
    assert max(float(g.abs().max()) for g in watch.gradients[0].values()) < 1e-7


# --- the objective --------------------------------------------------------------------------------------------------
def test_it_is_the_plain_torch_loop(tmp_path: Path, tiny_model: Path) -> None:
    watch = Watch()
    ours = train(tmp_path, tiny_model, watch, DPO(), rows=make_pairs(), steps=5, schedule="constant", warmup=0.0)
    model, frozen = open_model(tiny_model), open_model(tiny_model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0)
    losses = []
    for batch in watch.batches:
        assert [q.view for q in batch.seqs] == ["chosen", "rejected"] * 4
        loss = plain_dpo(model, frozen, batch, 0.1)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    assert ours.losses == pytest.approx(losses, abs=1e-5)
    assert ours.losses[-1] < ours.losses[0]
    assert all(torch.allclose(p, watch.final[n], atol=1e-5) for n, p in model.named_parameters())


def test_its_closed_form() -> None:
    """Gains 0.5 + 0.5 against -1 and -0.25 against 0.75: margins 2 and -1 at beta 0.1."""

    class Four:
        logp = torch.tensor([-0.5, -1.5, -3.0, -0.75, -0.25], requires_grad=True)
        row = torch.tensor([0, 0, 1, 2, 3])

        class ref:
            logp = torch.tensor([-1.0, -2.0, -2.0, -0.5, -1.0])

        def view(self, name: str) -> Any:
            sums, first = (lambda v: torch.zeros(4).index_add(0, self.row, v)), int(name == "rejected")
            return type("View", (), {"row_sum": lambda self, v: sums(v)[first::2]})()

    tok: Any = Four()
    term = DPO().loss(tok, None)  # type: ignore[arg-type]
    assert term.value.tolist() == pytest.approx([math.log1p(math.exp(-0.2)), math.log1p(math.exp(0.1))], abs=1e-6)
    term.value.sum().backward()
    pull = [0.1 / (1 + math.exp(0.2)), 0.1 / (1 + math.exp(-0.1))]
    assert tok.logp.grad.tolist() == pytest.approx([-pull[0], -pull[0], pull[0], -pull[1], pull[1]], abs=1e-7)


def test_the_loss_rises_along_its_gradient_by_its_norm(tmp_path: Path, tiny_model: Path) -> None:
    watch = Before()
    train(tmp_path, tiny_model, DPO(beta=0.5), watch, rows=make_pairs(), steps=3)
    model, frozen = open_model(tiny_model).double(), open_model(tiny_model).double()
    model.load_state_dict({n: p.double() for n, p in watch.weights[2].items()}, strict=False)
    gradient = {n: g.double() for n, g in watch.gradients[2].items()}
    norm = float(torch.nn.utils.get_total_norm(gradient.values()))

    def loss_at(distance: float) -> float:
        for name, p in model.named_parameters():
            p += distance * gradient[name] / norm
        value = float(plain_dpo(model, frozen, watch.batches[2], 0.5))
        for name, p in model.named_parameters():
            p -= distance * gradient[name] / norm
        return value

    with torch.no_grad():
        assert (loss_at(1e-4) - loss_at(-1e-4)) / 2e-4 == pytest.approx(norm, rel=1e-3)


def test_micro_batches_cannot_change_the_answer(tmp_path: Path, tiny_model: Path) -> None:
    runs = {}
    for micro in (4, 2, 1):
        watch = Watch()
        done = train(tmp_path / str(micro), tiny_model, DPO(), watch, rows=make_pairs(), micro_batch=micro)
        runs[micro] = done.losses, watch.gradients
    for micro in (2, 1):
        assert runs[micro][0] == pytest.approx(runs[4][0], abs=1e-6)
        assert all(torch.allclose(g, runs[4][1][0][n], rtol=0, atol=1e-6) for n, g in runs[micro][1][0].items())


def test_the_reference_is_billed_and_both_answers_are_trained_tokens(tmp_path: Path, tiny_model: Path) -> None:
    watch = Watch()
    cost = train(tmp_path, tiny_model, DPO(), watch, rows=make_pairs()).result.cost
    assert cost["extra_forward_tokens"] == {"base": cost["trained_tokens"]}
    assert cost["trained_tokens"] == sum(len(q.ids) for b in watch.batches for q in b.seqs)
    assert cost["loss_tokens"] == sum(int((b.targets != -100).sum()) for b in watch.batches)


def test_interrupted_and_continued_gives_identical_losses(tmp_path: Path, tiny_model: Path) -> None:
    stack: tuple[tuple[str, dict[str, Any]], ...] = (("lora", {"r": 2}), ("dpo", {"beta": 0.3}))
    whole = train(tmp_path / "a", tiny_model, *methods.build(stack), rows=make_pairs(), steps=5)
    with pytest.raises(KeyboardInterrupt):
        train(
            tmp_path / "cut",
            tiny_model,
            *(*methods.build(stack), Watch(3)),
            rows=make_pairs(),
            steps=5,
            checkpoint_seconds=1e-9,
        )
    again = train(
        tmp_path / "b", tiny_model, *methods.build(stack), rows=make_pairs(), steps=5, earlier=[tmp_path / "cut"]
    )
    assert again.result.summary["resumed_at"] == 2
    assert again.curve == whole.curve


# --- stacks and rows ------------------------------------------------------------------------------------------------
def test_with_an_adapter_the_reference_is_the_base_and_an_adapter_is_left(tmp_path: Path, tiny_model: Path) -> None:
    watch = Watch()
    done = train(tmp_path, tiny_model, LoRA(r=2), DPO(), watch, rows=make_pairs(), steps=4)
    assert done.losses[0] == pytest.approx(LOG2, abs=1e-7)
    assert done.losses[-1] < done.losses[0]
    assert all("lora_" in n for n in watch.gradients[0])
    assert (tmp_path / "artifact" / "adapter_config.json").exists()


def test_token_weights_of_the_stack_enter_the_margin(tmp_path: Path, tiny_model: Path) -> None:
    class Double(Method):
        name = "double"

        def token_weight(self, tok: Any, ctx: Any) -> Tensor:
            return torch.full((len(tok.row),), 2.0)

    weighted = train(tmp_path / "a", tiny_model, Double(), DPO(beta=0.1), rows=make_pairs())
    stronger = train(tmp_path / "b", tiny_model, DPO(beta=0.2), rows=make_pairs())
    assert weighted.losses == pytest.approx(stronger.losses, abs=1e-6)


def test_it_trains_alone_from_its_name_and_refuses_a_second_loss() -> None:
    make("native").check(methods.build((("lora", {}), ("dpo", {}))))
    with pytest.raises(Refused, match="`dpo` and `dft` both change `loss`"):
        check_stack((DPO(), DFT()))
    with pytest.raises(ValidationError):
        DPO(beta=0)


def test_a_method_without_need_of_pairs_learns_the_better_answer_alone(tmp_path: Path, tiny_model: Path) -> None:
    alone = [{"id": row["id"], "messages": row["messages"]} for row in make_pairs()]
    watch = Watch()
    a = train(tmp_path / "a", tiny_model, SFT(), watch, rows=make_pairs(), steps=5)
    b = train(tmp_path / "b", tiny_model, SFT(), rows=alone, steps=5)
    assert a.losses == b.losses
    assert all(len(batch.seqs) == 4 for batch in watch.batches)


def test_rows_that_are_no_pairs_are_named(tmp_path: Path, tiny_model: Path) -> None:
    rows = [*make_pairs(3), *make_rows(5)[4:]]
    with pytest.raises(HarnessError, match="`dpo` needs pairs, and this row has no `chosen` and `rejected`") as caught:
        train(tmp_path / "w", tiny_model, LoRA(r=2), DPO(), rows=rows)
    assert caught.value.where.endswith("w.train.jsonl, row r4")


def test_data_of_one_answer_a_row_is_refused_by_the_plan(tmp_path: Path, tiny_model: Path) -> None:
    file = write_matrix(tmp_path, tiny_model)
    file.write_text(file.read_text().replace("lora+dft: {}", "lora+dpo: {}").replace("seeds: 1", "seeds: 2"))
    with pytest.raises(Problems) as caught:
        make_plan(load_matrix(file), Where())
    (problem,) = caught.value.problems
    assert problem.what == "`dpo` learns from pairs of answers, and the data `sums` has one answer a row"
    assert problem.where == f"{file}:{file.read_text().splitlines().index('  lora+dpo: {}') + 1}"


def test_pairs_are_accepted_by_the_plan(tmp_path: Path, tiny_model: Path) -> None:
    rows = [{"prompt": f"{i}?", "chosen": "yes", "rejected": "no"} for i in range(4)]
    data = write_rows(tmp_path / "pairs.jsonl", rows)
    file = write_matrix(tmp_path, tiny_model)
    file.write_text(
        file.read_text().replace("lora+dft: {}", "lora+dpo: {}").replace("make:word_problems", f"file:{data}")
    )
    assert [c.cell.method for c in make_plan(load_matrix(file), Where()).cells] == ["base", "sft", "lora+dpo"]
