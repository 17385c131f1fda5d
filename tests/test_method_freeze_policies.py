"""`leo` and `lldb`: what trains, what never moves, and what they cost to go back through; `keep_best` beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from harness.errors import HarnessError, Refused
from harness.methods import build
from harness.methods.base import Method, check_served
from harness.methods.dft import DFT
from harness.methods.keep_best import KeepBest
from harness.methods.leo import LEO
from harness.methods.lldb import LLDB
from harness.methods.sft import SFT
from harness.training.curation import curate
from tests.training import Done, Watch, make_rows, train

EMBEDDING = "model.embed_tokens.weight"
HEAD = "lm_head.weight"
POLICIES = [LEO, LLDB, lambda: LEO(untie=True)]


def policy(*make: Any) -> Any:
    return pytest.mark.parametrize("make", make or POLICIES, ids=["leo", "lldb", "leo untied"][: len(make or POLICIES)])


class Names(Watch):
    """Trains what it is told."""

    def __init__(self, names: set[str]) -> None:
        super().__init__()
        self.names = names

    def train_only(self, names: Any, ctx: Any) -> Any:
        return {n: {"weight_decay": 0.0} for n in names if n in self.names}


class Hooks(Watch):
    """Counts backward passes through the first block, and looks at the tie after every step."""

    def __init__(self) -> None:
        super().__init__()
        self.passed, self.tied = 0, set[bool]()

    def wrap(self, model: Any, ctx: Any) -> Any:
        model.model.layers[0].register_full_backward_hook(self._count)
        return model

    def _count(self, *_: Any) -> None:
        self.passed += 1

    def after_step(self, model: Any, ctx: Any) -> None:
        self.tied.add(model.get_input_embeddings().weight.data_ptr() == model.get_output_embeddings().weight.data_ptr())


def opened(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def expected(make: Any, model: Path) -> set[str]:
    if isinstance(make(), LLDB):
        return {n for n, _ in opened(model).named_parameters() if n.startswith("model.layers.1.")}
    return {EMBEDDING, HEAD} if make().untie else {EMBEDDING}


# --- what trains ----------------------------------------------------------------------------------------------------
@policy()
def test_gradients_are_those_of_sft_where_it_trains_and_nothing_else_moves(
    tmp_path: Path, tiny_model: Path, make: Any
) -> None:
    whole, own = Watch(), Watch()
    train(tmp_path / "sft", tiny_model, SFT(), whole, steps=1, clip=None)
    done = train(tmp_path / "own", tiny_model, make(), own, steps=3, clip=None)
    names = expected(make, tiny_model)
    assert set(own.gradients[0]) == names
    sums = dict(own.gradients[0])
    if HEAD in names:  # two tensors share between them what one tensor gets
        sums = {EMBEDDING: sums[EMBEDDING] + sums[HEAD]}
    for name, gradient in sums.items():
        torch.testing.assert_close(gradient, whole.gradients[0][name], rtol=0, atol=1e-6 if HEAD in names else 0)
    before = dict(opened(tiny_model).named_parameters())
    for name, value in own.final.items():
        assert torch.equal(value, before[name if name != HEAD else EMBEDDING]) == (name not in names), name
    assert done.result.cost["trainable_parameters"] == sum(own.final[n].numel() for n in names)


@policy(LEO, LLDB)
def test_twenty_steps_are_those_of_the_same_names_chosen_by_hand(tmp_path: Path, tiny_model: Path, make: Any) -> None:
    own = train(tmp_path / "own", tiny_model, make(), steps=20)
    hand = train(tmp_path / "hand", tiny_model, Names(expected(make, tiny_model)), steps=20)
    assert own.losses == hand.losses


def test_the_counts_on_the_geometry_of_smollm2_135m() -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    with torch.device("meta"):
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=49152,
                hidden_size=576,
                intermediate_size=1536,
                num_hidden_layers=30,
                num_attention_heads=9,
                num_key_value_heads=3,
                tie_word_embeddings=True,
            )
        )
    sizes = {n: p.numel() for n, p in model.named_parameters()}
    ctx: Any = type("Ctx", (), {"model": model})
    assert sum(sizes.values()) == 134_515_008
    assert sum(sizes[n] for n in LEO().train_only(list(sizes), ctx)) == 28_311_552
    chosen = list(LLDB().train_only(list(sizes), ctx))
    assert sum(sizes[n] for n in chosen) == 3_540_096
    assert {n.rsplit("layers.", 1)[-1].split(".")[0] for n in chosen} == {"29"}


def test_a_model_without_blocks_is_refused() -> None:
    with pytest.raises(HarnessError, match="no parameter of this model is in a numbered block"):
        LLDB().train_only(["weight", "head.bias"], None)  # type: ignore[arg-type]


def test_the_backward_pass_ends_in_the_last_block(tmp_path: Path, tiny_model: Path) -> None:
    low, whole = Hooks(), Hooks()
    train(tmp_path / "lldb", tiny_model, LLDB(), low)
    train(tmp_path / "leo", tiny_model, LEO(), whole)
    assert low.passed == 0 and whole.passed > 0


# --- the tie --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("untie", [False, True])
def test_the_tie_is_as_asked_in_training_and_after_reload(tmp_path: Path, tiny_model: Path, untie: bool) -> None:
    look = Hooks()
    train(tmp_path / "run", tiny_model, LEO(untie=untie), look, steps=5, lr=1e-2)
    again = opened(tmp_path / "run" / "artifact")
    ends = again.get_input_embeddings().weight, again.get_output_embeddings().weight
    assert look.tied == {not untie} and again.config.tie_word_embeddings is not untie
    assert (ends[0].data_ptr() == ends[1].data_ptr()) is not untie
    assert torch.equal(*ends) is not untie
    assert torch.equal(ends[0], look.final[EMBEDDING].bfloat16().float())
    if untie:
        assert torch.equal(ends[1], look.final[HEAD].bfloat16().float())


def test_an_untied_model_is_not_for_an_engine_that_keeps_the_tie() -> None:
    check_served([LEO()], "vllm")
    check_served([LEO(untie=True)], "hf")
    with pytest.raises(Refused, match="cannot be served by the engine `vllm`"):
        check_served([LEO(untie=True)], "vllm")


def test_rows_of_tokens_that_no_row_holds_do_not_decay(tmp_path: Path, tiny_model: Path) -> None:
    own = Watch()
    train(tmp_path / "run", tiny_model, LEO(untie=True), own, weight_decay=0.5, lr=1e-2)
    never = opened(tiny_model).get_input_embeddings().weight[3]
    assert torch.equal(own.final[EMBEDDING][3], never)


@pytest.mark.parametrize("positions", [False, True])
def test_learned_positions_train_if_asked(positions: bool) -> None:
    from types import SimpleNamespace

    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=2, n_embd=8, vocab_size=20, n_positions=16))
    names = [n for n, _ in model.named_parameters()]
    chosen = LEO(positions=positions).train_only(names, SimpleNamespace(model=model))  # type: ignore[arg-type]
    assert set(chosen) == {"transformer.wte.weight", *(["transformer.wpe.weight"] if positions else [])}


# --- gradients, layout, resume, stacks ------------------------------------------------------------------------------
@policy()
def test_the_gradient_is_what_differences_give(tmp_path: Path, tiny_model: Path, make: Any) -> None:
    class Sgd(Watch):
        def optimizer(self, groups: Any, ctx: Any) -> Any:
            return torch.optim.SGD(groups)

    own = Sgd()
    rows = make_rows(4)
    done = train(tmp_path / "run", tiny_model, make(), own, rows=rows, steps=2, clip=None, lr=1e-3, schedule="constant")
    norm = torch.nn.utils.get_total_norm(list(own.gradients[0].values()))
    fell = done.losses[0] - done.losses[1]
    assert fell == pytest.approx(done.curve[0]["lr"] * float(norm) ** 2, rel=0.05)


@policy()
@pytest.mark.parametrize("micro", [2, 1])
def test_the_split_of_a_step_does_not_matter(tmp_path: Path, tiny_model: Path, make: Any, micro: int) -> None:
    one, other = Watch(), Watch()
    first = train(tmp_path / "one", tiny_model, make(), one, micro_batch=4)
    second = train(tmp_path / "other", tiny_model, make(), other, micro_batch=micro)
    assert second.losses == pytest.approx(first.losses, rel=1e-5)
    for name, value in one.gradients[0].items():
        torch.testing.assert_close(other.gradients[0][name], value, rtol=1e-4, atol=1e-6)


@policy()
def test_an_interrupted_run_goes_on_as_if_it_had_not_been(tmp_path: Path, tiny_model: Path, make: Any) -> None:
    whole = train(tmp_path / "whole", tiny_model, make(), steps=6)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "cut", tiny_model, make(), Watch(stop_after=3), steps=6, checkpoint_seconds=1e-9)
    rest = train(tmp_path / "rest", tiny_model, make(), steps=6, earlier=[tmp_path / "cut"])
    assert rest.losses == whole.losses and rest.result.summary["resumed_at"]


@policy(LEO, LLDB)
def test_every_group_starts_from_the_same_weights_and_other_losses_stack(
    tmp_path: Path, tiny_model: Path, make: Any
) -> None:
    start = train(tmp_path / "sft", tiny_model, SFT(), steps=4).work / "artifact"
    hashes = {p.name: p.read_bytes() for p in start.glob("*.safetensors")}
    first = [train(tmp_path / f"{i}", tiny_model, make(), DFT(), rows=make_rows(8), init=start) for i in (1, 2)]
    train(tmp_path / "other", tiny_model, make(), rows=make_rows(16)[8:], init=start)
    again = train(tmp_path / "again", tiny_model, make(), DFT(), rows=make_rows(8), init=start)
    assert {p.name: p.read_bytes() for p in start.glob("*.safetensors")} == hashes
    assert first[0].losses == first[1].losses == again.losses


def test_a_policy_beside_a_member_that_freezes_the_base_is_refused() -> None:
    with pytest.raises(Refused, match="`lldb` chooses among the base's weights, `lora` freezes them"):
        build([("lora", {}), ("lldb", {})])


# --- keep_best ------------------------------------------------------------------------------------------------------
SIDES = {"train": make_rows(16), "validation": make_rows(24)[16:]}


def kept(work: Path, model: Path, *stack: Method, **options: Any) -> Done:
    return train(work, model, *stack, sets=SIDES, **options)


def looks(done: Done) -> dict[int, float]:
    return torch.load(done.work / "artifact" / "validation.pt", weights_only=True)  # type: ignore[no-any-return]


def test_training_is_that_of_the_stack_alone(tmp_path: Path, tiny_model: Path) -> None:
    alone, best = Watch(), Watch()
    first = kept(tmp_path / "sft", tiny_model, SFT(), alone, steps=20)
    second = kept(tmp_path / "best", tiny_model, SFT(), best, KeepBest(interval=4), steps=20)
    assert first.losses == second.losses
    assert all(torch.equal(g, best.gradients[i][n]) for i, step in enumerate(alone.gradients) for n, g in step.items())


def test_the_weights_of_the_lowest_look_are_left(tmp_path: Path, tiny_model: Path) -> None:
    """A rate that grows until it harms: what is left is what a run that ended at the best look leaves."""

    class Seen(Watch):
        def __init__(self) -> None:
            super().__init__()
            self.weights: dict[int, dict[str, Tensor]] = {}

        def after_step(self, model: nn.Module, ctx: Any) -> None:
            self.weights[ctx.step] = {n: p.detach().clone() for n, p in model.named_parameters()}

    seen, options = Seen(), {"steps": 12, "lr": 0.1, "schedule": "constant", "clip": None}
    done = kept(tmp_path / "run", tiny_model, SFT(), seen, KeepBest(interval=1, patience=4), **options)
    found = looks(done)
    best = min(found, key=lambda step: found[step])
    assert best < max(found) and max(found) <= best + 4
    assert all(torch.equal(seen.final[n], value) for n, value in seen.weights[best].items())


def test_looks_go_on_after_an_interruption(tmp_path: Path, tiny_model: Path) -> None:
    best, options = KeepBest(interval=2), {"steps": 6}
    whole = kept(tmp_path / "whole", tiny_model, SFT(), best, **options)
    with pytest.raises(KeyboardInterrupt):
        kept(tmp_path / "cut", tiny_model, SFT(), best, Watch(stop_after=3), checkpoint_seconds=1e-9, **options)
    rest = kept(tmp_path / "rest", tiny_model, SFT(), best, earlier=[tmp_path / "cut"], **options)
    assert looks(rest) == looks(whole) and rest.losses == whole.losses
    assert list(looks(whole)) == [2, 4, 6]


def test_rows_that_belong_together_are_held_out_together() -> None:
    rows = [{**row, "class": f"c{i // 3}"} for i, row in enumerate(make_rows(60))]
    sets, _ = curate([KeepBest(together="class")], rows, seed=0)
    sides = {name: {row["class"] for row in found} for name, found in sets.items()}
    assert len(sets["validation"]) == 6 and len(sets["train"]) == 54
    assert not sides["train"] & sides["validation"]
    assert curate([KeepBest(together="class")], rows, seed=0)[0] == sets
    assert curate([KeepBest(together="class")], rows, seed=1)[0] != sets
    sets, _ = curate([KeepBest(together="class", rows=4)], rows, seed=0)
    assert len(sets["validation"]) == 3 and len(sets["train"]) == 57
    with pytest.raises(HarnessError, match="has no column `file`"):
        curate([KeepBest(together="file")], rows, seed=0)
    with pytest.raises(HarnessError, match="cannot hold out 10% of 6 rows in 2 groups"):
        curate([KeepBest(together="class")], rows[:6], seed=0)
