"""Q-Tuning: which rows and tokens of a pool are kept, and that the others are neither run nor counted."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from harness import methods
from harness.errors import Problems
from harness.methods.base import Method
from harness.methods.dft import DFT
from harness.methods.lora import LoRA
from harness.methods.q_tuning import QTuning, at_quantile, corners
from harness.methods.sft import SFT
from harness.planning.keys import stack_identity
from harness.training.adapters import make
from harness.training.sequences import NO_TARGET
from tests.training import Watch, make_rows, train

ALL = 1 - 1e-12  # every row and token, but not without a search
PPL = [2.0, 3.0, 4.0, 8.0, 9.0, 12.0, 20.0, 30.0]
ENT = [1.0, 2.5, 1.2, 0.9, 2.8, 2.9, 1.1, 3.0]
TOKENS = torch.tensor([1.2, 9, 8, 1.1, 1, 6, 1.3, 1.2])


class Spy(QTuning):
    """Keeps what each pool was weighed by, and which rows it kept with all or with part of their tokens."""

    def __init__(self, **params: Any) -> None:
        super().__init__(**params)
        self.pools: list[tuple[Any, Tensor]] = []
        self.kept: list[list[tuple[int, bool]]] = []

    def pick(self, tok: Any, ctx: Any) -> Tensor | None:
        weights = super().pick(tok, ctx)
        assert weights is not None
        assert not weights.requires_grad
        assert not tok.logp.requires_grad
        self.pools.append((tok, weights))
        return weights

    def keep(self, *scores: Any) -> list[tuple[int, bool]]:
        self.kept.append(super().keep(*scores))
        return self.kept[-1]


def same(a: list[dict[str, Tensor]], b: list[dict[str, Tensor]], tolerance: float = 0.0) -> bool:
    pairs = zip(a, b, strict=True)
    return all(torch.allclose(x[n], y[n], rtol=0, atol=tolerance) for x, y in pairs for n in x)


def pools(count: int) -> list[tuple[list[float], list[float]]]:
    """Of 1 to 40 rows, with perplexity and entropy together, apart or tied."""
    draw = random.Random(0)
    made = []
    for i in range(count):
        n, tie = draw.randint(1, 40), i % 3 == 0
        ppl = [round(draw.uniform(1, 9), 0 if tie else 6) for _ in range(n)]
        made.append((ppl, [(p if i % 2 else -p) + draw.gauss(0, i % 5) for p in ppl]))
    return made


def keep(method: QTuning, ppl: list[float], ent: list[float]) -> list[tuple[int, bool]]:
    _, wrong, unsure = corners(ppl, ent, method.rows, method.iterations, inclusive=method.inclusive)
    return method.keep(ppl, ent, wrong, unsure)


# --- identity -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("share", [1.0, ALL], ids=["unscored", "scored"])
def test_keeping_all_is_sft_bit_for_bit_over_twenty_steps(tmp_path: Path, tiny_model: Path, share: float) -> None:
    mine, plain = Watch(), Watch()
    a = train(tmp_path / "a", tiny_model, QTuning(rows=share, tokens=share, pool=4), mine, steps=20)
    b = train(tmp_path / "b", tiny_model, SFT(), plain, steps=20)
    assert a.losses == b.losses
    assert same(mine.gradients, plain.gradients)
    assert all(torch.equal(p, plain.final[n]) for n, p in mine.final.items())
    scored = {} if share == 1 else {"live": a.result.cost["trained_tokens"]}
    assert a.result.cost["extra_forward_tokens"] == scored


# --- closed form ----------------------------------------------------------------------------------------------------
def test_the_tokens_of_the_worked_example() -> None:
    method = QTuning(tokens=0.5)
    assert method.score(TOKENS).tolist() == pytest.approx([5.7, 9.1, 9.05, 5.05, 4.05, 4.15, 4.25, 1.85], abs=1e-6)
    assert method.trim(TOKENS).nonzero()[:, 0].tolist() == [4, 5, 6, 7]
    assert QTuning(tokens=0.5, token_order="high").trim(TOKENS).nonzero()[:, 0].tolist() == [0, 1, 2, 3]


def test_without_neighbours_a_token_is_judged_by_itself_and_an_edge_may_mirror() -> None:
    assert torch.equal(QTuning(lam=0.0).score(TOKENS), TOKENS)
    mirrored = QTuning(edge="mirror").score(TOKENS)
    assert mirrored.tolist() == pytest.approx([9.6, 9.1, 9.05, 5.05, 4.05, 4.15, 4.25, 1.9], abs=1e-6)


@pytest.mark.parametrize("edge", ["own", "mirror"])
def test_a_row_of_one_token_keeps_it(edge: str) -> None:
    assert QTuning(tokens=0.1, edge=edge).trim(torch.tensor([3.0])).tolist() == [1.0]


@pytest.mark.parametrize(("n", "share", "kept"), [(100, 0.29, 29), (10, 0.7, 7), (8, 0.7, 5), (3, 0.1, 1), (5, 1.0, 5)])
def test_the_share_of_tokens_is_rounded_down_and_never_by_an_error_of_arithmetic(
    n: int, share: float, kept: int
) -> None:
    assert QTuning(tokens=share).trim(torch.arange(1.0, n + 1)).nonzero()[:, 0].tolist() == list(range(kept))


def test_the_rows_of_the_worked_example() -> None:
    g, wrong, unsure = corners(PPL, ENT, 0.25, 10, inclusive=True)
    assert g == pytest.approx(0.374678, abs=1e-6)
    assert [r for r in range(8) if wrong[r]] == [6]
    assert not any(unsure)
    assert QTuning().keep(PPL, ENT, wrong, unsure) == [(6, True), (1, False)]
    hat = [[(v - min(x)) / (max(x) - min(x)) for v in x] for x in (PPL, ENT)]
    assert abs(hat[0][1] - hat[1][1]) == pytest.approx(0.726190, abs=1e-6)


def test_rows_that_fill_up_count_as_one_kind_if_told_to() -> None:
    assert keep(QTuning(top_up="wrong"), PPL, ENT) == [(6, True), (1, True)]
    assert keep(QTuning(top_up="unsure"), PPL, ENT) == [(6, True), (1, False)]


def test_the_corners_of_four_rows_at_the_four_corners() -> None:
    ppl, ent = [1.0, 1.0, 9.0, 9.0], [1.0, 9.0, 1.0, 9.0]
    wrong, unsure = at_quantile(ppl, ent, 0.2, inclusive=True)
    assert (wrong, unsure) == ([False, False, True, False], [False, True, False, False])
    assert at_quantile(ppl, ent, 0.2, inclusive=False) == ([False] * 4, [False] * 4)
    assert keep(QTuning(rows=0.5), ppl, ent) == [(1, False), (2, True)]


def test_a_wider_quantile_never_holds_fewer_rows() -> None:
    for ppl, ent in pools(60):
        held = [at_quantile(ppl, ent, i / 100, inclusive=True) for i in range(1, 50)]
        counts = [sum(map(max, wrong, unsure)) for wrong, unsure in held]
        assert counts == sorted(counts)


@pytest.mark.parametrize("share", [0.01, 0.125, 0.25, 0.29, 0.5, 1.0])
@pytest.mark.parametrize("inclusive", [True, False])
def test_exactly_the_share_of_rows_is_kept_whatever_the_pool(share: float, inclusive: bool) -> None:
    method = QTuning(rows=share, inclusive=inclusive)
    for ppl, ent in pools(60):
        kept = [r for r, _ in keep(method, ppl, ent)]
        assert len(kept) == len(set(kept)) == max(1, int(share * len(ppl) + 1e-9))


def test_what_the_corners_hold_too_many_of_is_dropped_from_the_middle_unless_kept() -> None:
    ppl, ent = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [6.0, 5.0, 4.0, 3.0, 2.0, 1.0]
    wrong, unsure = [False, False, False, True, True, True], [True, True, True, False, False, False]
    method = QTuning(rows=0.5)
    assert method.keep(ppl, ent, wrong, unsure) == [(0, False), (5, True), (1, False)]
    assert len(QTuning(rows=0.5, excess="keep").keep(ppl, ent, wrong, unsure)) == 6


def test_equal_rows_and_one_row_are_no_trouble() -> None:
    assert keep(QTuning(), [2.0] * 8, [1.0] * 8) == [(0, True), (1, True)]
    assert keep(QTuning(inclusive=False), [2.0] * 8, [1.0] * 8) == [(0, True), (1, True)]
    assert keep(QTuning(), [2.0], [1.0]) == [(0, True)]


# --- on the model ---------------------------------------------------------------------------------------------------
def test_rows_are_scored_as_the_plain_model_scores_them(tmp_path: Path, tiny_model: Path) -> None:
    """Each row alone and unpadded: the answer's perplexity and mean entropy."""
    from transformers import AutoModelForCausalLM

    seen: list[Any] = []

    class Look(Spy):
        def keep(self, *scores: Any) -> list[tuple[int, bool]]:
            seen.append(scores)
            return super().keep(*scores)

    spy = Look()
    train(tmp_path, tiny_model, spy, steps=1)
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    expected = []
    for q in spy.pools[0][0].seqs:
        targets = torch.tensor(q.targets)
        keep = targets != NO_TARGET
        logp = model(input_ids=torch.tensor([q.ids])).logits[0, keep].log_softmax(-1).detach()
        nll = -logp.gather(-1, targets[keep][:, None]).mean()
        expected.append((float(nll.exp()), float(-(logp.exp() * logp).sum(-1).mean())))
    assert seen[0][0] == pytest.approx([p for p, _ in expected], rel=1e-4)
    assert seen[0][1] == pytest.approx([e for _, e in expected], rel=1e-4)


def test_wrong_rows_lose_their_noisiest_tokens_and_unsure_ones_none(tmp_path: Path, tiny_model: Path) -> None:
    spy = Spy(rows=0.5)
    train(tmp_path, tiny_model, spy, steps=3)
    kinds = set()
    for (tok, weights), kept in zip(spy.pools, spy.kept, strict=True):
        rows = dict(kept)
        for r in range(tok.R):
            mine = weights[tok.row == r]
            assert set(mine.tolist()) <= {0.0, 1.0}
            n = len(mine)
            assert int(mine.sum()) == (0 if r not in rows else max(1, int(0.7 * n + 1e-9)) if rows[r] else n)
            if rows.get(r):
                score = spy.score((-tok.logp[tok.row == r].double()).exp())
                assert score[mine == 1].max() <= score[mine == 0].min()
        kinds |= set(rows.values())
    assert kinds == {True, False}


def test_batches_are_filled_from_pools_and_all_scoring_is_billed(tmp_path: Path, tiny_model: Path) -> None:
    spy, watch = Spy(), Watch()
    done = train(tmp_path, tiny_model, LoRA(r=2), spy, watch, steps=3)
    assert [len(rows) for rows in watch.rows] == [8] * 6
    assert all(len(batch.seqs) == 4 for batch in watch.batches)
    offered = sum(len(q.ids) for tok, _ in spy.pools for q in tok.seqs)
    assert done.result.cost["extra_forward_tokens"] == {"live": offered}
    assert done.result.cost["loss_tokens"] == sum(int(weights.sum()) for _, weights in spy.pools)
    assert done.result.cost["trained_tokens"] == sum(batch.tokens for batch in watch.batches)
    assert all("lora_" in name for name in watch.gradients[0])
    assert (done.work / "artifact" / "adapter_config.json").exists()


def test_the_choice_follows_the_model_as_it_learns(tmp_path: Path, tiny_model: Path) -> None:
    chosen = {}
    for lr in (1e-12, 1e-2):
        spy = Spy(tokens=ALL)
        train(tmp_path / str(lr), tiny_model, spy, rows=make_rows(8), batch_size=2, steps=8, lr=lr)
        pairs = zip(spy.pools, spy.kept, strict=True)
        chosen[lr] = {frozenset(tok.seqs[r].row for r, _ in kept) for (tok, _), kept in pairs}
    assert len(chosen[1e-12]) == 1
    assert len(chosen[1e-2]) > 1


def test_pruned_tokens_leave_the_input_if_asked_and_the_rest_moves_up(tmp_path: Path, tiny_model: Path) -> None:
    stay, leave = Watch(), Watch()
    options: dict[str, Any] = {"rows": 0.5, "tokens": 0.5}
    train(tmp_path / "a", tiny_model, QTuning(**options), stay, steps=1)
    train(tmp_path / "b", tiny_model, QTuning(token_prune_mode="drop_inputs", **options), leave, steps=1)
    shortened = 0
    for whole, cut in zip(stay.batches[0].seqs, leave.batches[0].seqs, strict=True):
        weights = torch.ones(whole.loss_tokens) if whole.weight is None else whole.weight
        asked = [i for i, t in enumerate(whole.targets) if t != NO_TARGET]
        pruned = {i + 1 for i, w in zip(asked, weights.tolist(), strict=True) if not w}
        assert cut.ids == tuple(t for i, t in enumerate(whole.ids) if i not in pruned)
        learned = [whole.targets[i] for i in asked if i + 1 not in pruned]
        after = len(whole.ids) - 1 - asked[-1]  # the last target's own place, and what stands after it
        assert cut.targets == (*[NO_TARGET] * asked[0], *learned, *[NO_TARGET] * after)
        assert cut.weight is None or bool((cut.weight == 1).all())
        shortened += len(cut.ids) < len(whole.ids)
    assert shortened


def test_a_later_parameter_at_its_neutral_value_leaves_keys_as_they_were() -> None:
    ((name, version, given),) = stack_identity((QTuning(),))
    assert (name, version) == ("q_tuning", 1)
    assert "token_prune_mode" not in given
    ((_, _, other),) = stack_identity((QTuning(token_prune_mode="drop_inputs"),))
    assert other == {**given, "token_prune_mode": "drop_inputs"}


def test_the_gradient_is_that_of_the_tokens_that_are_kept(tmp_path: Path, tiny_model: Path) -> None:
    """Along the gradient the mean over kept tokens rises by its norm, if the choice stays as it was."""
    from transformers import AutoModelForCausalLM

    watch = Watch()
    done = train(tmp_path, tiny_model, QTuning(rows=0.5, tokens=0.5), watch, steps=1)
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    batch, gradient = watch.batches[0], watch.gradients[0]
    norm = float(torch.nn.utils.get_total_norm(gradient.values()))
    keep = batch.targets != NO_TARGET
    weights = torch.cat([torch.ones(q.loss_tokens) if q.weight is None else q.weight for q in batch.seqs])
    assert 0 < int((weights == 0).sum()) < len(weights)

    def loss_at(distance: float) -> float:
        for name, p in model.named_parameters():
            p += distance * gradient[name] / norm
        logp = model(input_ids=batch.ids).logits.double().log_softmax(-1)
        for name, p in model.named_parameters():
            p -= distance * gradient[name] / norm
        gold = logp[keep].gather(-1, batch.targets[keep][:, None])[:, 0]
        return -float((weights * gold).sum() / weights.sum())

    with torch.no_grad():
        assert loss_at(0.0) == pytest.approx(done.losses[0], abs=1e-5)
        assert (loss_at(1e-2) - loss_at(-1e-2)) / 2e-2 == pytest.approx(norm, rel=1e-2)


def test_layout_cannot_change_the_answer(tmp_path: Path, tiny_model: Path) -> None:
    runs = []
    for micro in (4, 2, 1):
        spy, watch = Spy(), Watch()
        runs.append((train(tmp_path / str(micro), tiny_model, spy, watch, micro_batch=micro), watch, spy))
    whole, first, chosen = runs[0]
    for done, watch, spy in runs[1:]:
        assert spy.kept == chosen.kept
        assert done.losses == pytest.approx(whole.losses, abs=1e-6)
        assert same(watch.gradients[:1], first.gradients[:1], 3e-7)
        assert same(watch.gradients, first.gradients, 3e-6)


def test_interrupted_and_continued_gives_identical_losses(tmp_path: Path, tiny_model: Path) -> None:
    stack = (("lora", {"r": 2}), ("q_tuning", {}))
    whole = train(tmp_path / "whole", tiny_model, *methods.build(stack), steps=6, seed=3)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "cut", tiny_model, *methods.build(stack), Watch(4), steps=6, seed=3, checkpoint_seconds=1e-9)
    again = train(
        tmp_path / "on", tiny_model, *methods.build(stack), Watch(), steps=6, seed=3, earlier=[tmp_path / "cut"]
    )
    assert again.result.summary["resumed_at"] == 3
    assert again.curve == whole.curve


# --- stacks ---------------------------------------------------------------------------------------------------------
def test_what_another_member_took_out_is_not_scored(tmp_path: Path, tiny_model: Path) -> None:
    """Rows and tokens that a picker before it dropped belong to no pool and to no perplexity."""

    class Half(Method):
        name = "half"

        def pick(self, tok: Any, ctx: Any) -> Tensor:
            first = torch.cat([torch.ones(1, dtype=torch.bool), tok.row[1:] != tok.row[:-1]])
            return (tok.row.remainder(2).eq(0) & ~first).float()

    seen: list[Any] = []

    class Look(Spy):
        def keep(self, *scores: Any) -> list[tuple[int, bool]]:
            seen.append(scores[0])
            return super().keep(*scores)

    spy = Look(rows=0.5)
    train(tmp_path, tiny_model, Half(), spy, steps=1)
    for (tok, weights), ppl in zip(spy.pools, seen, strict=True):
        places = [(tok.row == r).nonzero()[1:, 0] for r in range(0, tok.R, 2)]
        assert ppl == pytest.approx([float((-tok.logp[i].mean()).exp()) for i in places], rel=1e-4)
        assert len({int(r) for r in tok.row[weights != 0]}) == 2
        assert all(r % 2 == 0 for r in tok.row[weights != 0].tolist())


def test_it_stands_under_another_objective(tmp_path: Path, tiny_model: Path) -> None:
    stack = (LoRA(r=2), DFT(), QTuning(rows=0.5))
    make("native").check(stack)
    done = train(tmp_path, tiny_model, *stack)
    assert done.result.status == "ok"
    assert all(0 <= line["wrong"] + line["unsure"] <= 1 for line in done.curve)


def test_parameters_out_of_range_are_named() -> None:
    wrong = {"rows": 0.0, "tokens": 1.5, "lam": -1.0, "pool": 0, "top_up": "none"}
    with pytest.raises(Problems) as caught:
        methods.build((("q_tuning", wrong),))
    assert all(f"parameter `{name}`" in str(caught.value) for name in wrong)
