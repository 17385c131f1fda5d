"""`lt_sft`: two phases with a rewind between them, masked gradients, and sums of sparse deltas."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from harness.digest import file_digest
from harness.errors import HarnessError, Refused
from harness.methods import build
from harness.methods.base import Method, Row, Stage, check_stack
from harness.methods.dft import DFT
from harness.methods.hft import HFT
from harness.methods.lora import LoRA
from harness.methods.lt_sft import LTSFT, Delta, add, fingerprint, interference, largest
from harness.methods.sft import SFT
from tests.training import Done, Watch, train


class Logged(Watch):
    """Also keeps the optimiser and what the stage started from."""

    def optimizer(self, groups: Any, ctx: Any) -> Any:
        self.adam = torch.optim.AdamW(groups, fused=True)
        return self.adam

    def after_stage(self, model: Any, ctx: Any) -> None:
        super().after_stage(model, ctx)
        self.start = {n: p.clone() for n, p in ctx.start.items()}
        states = {n: self.adam.state[p] for n, p in model.named_parameters() if p in self.adam.state}
        self.moments = {n: state["exp_avg"] for n, state in states.items()}


def two_phases(
    work: Path, model: Path, steps: int = 6, watch: Watch | None = None, **options: Any
) -> tuple[Done, Done]:
    """Dense, then sparse. steps: of both together, a third of them dense."""
    settings = {k: options.pop(k) for k in ("micro_batch", "rows", "lr", "schedule") if k in options}
    dense = train(work / "dense", model, LTSFT(**options), steps=steps, **settings)
    done = {"dense": dense.work / "artifact"}
    stack = (LTSFT(**options), *([watch] if watch else []))
    return dense, train(work / "sparse", model, *stack, steps=steps, stage=1, done=done, **settings)


def delta_of(done: Done) -> dict[str, Any]:
    return torch.load(done.work / "artifact" / "delta.pt", weights_only=True)  # type: ignore[no-any-return]


def named(done: Done) -> Delta:
    path = done.work / "artifact" / "delta.pt"
    return Delta(file=str(path), sha256=file_digest(path))


def base_weights(folder: Path) -> dict[str, Tensor]:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return {n: p.detach() for n, p in model.named_parameters()}


def marks(memory: dict[str, Any], weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Which entries are chosen, in the shape of each parameter."""
    out = {}
    for name, p in weights.items():
        mask = torch.zeros(p.numel(), dtype=torch.bool)
        mask[memory.get(name, {"at": torch.zeros(0).long()})["at"]] = True
        out[name] = mask.view_as(p)
    return out


def memory_of(done: Done) -> dict[str, Any]:
    return torch.load(done.work / "artifact" / "memory.pt", weights_only=True)["lt_sft"]  # type: ignore[no-any-return]


# --- identity -------------------------------------------------------------------------------------------------------
def test_a_mask_of_everything_is_sft_after_the_rewind_bit_for_bit_over_twenty_steps(
    tmp_path: Path, tiny_model: Path
) -> None:
    mine, plain = Watch(), Watch()
    dense, sparse = two_phases(tmp_path, tiny_model, steps=30, watch=mine, density=1.0, frozen=())
    sft = train(tmp_path / "sft", tiny_model, SFT(), plain, steps=20)
    assert len(sparse.losses) == 20
    assert sparse.losses == sft.losses
    assert all(torch.equal(g, h[n]) for g, h in zip(mine.gradients, plain.gradients, strict=True) for n, g in g.items())
    assert all(torch.equal(p, plain.final[n]) for n, p in mine.final.items())
    assert dense.losses == train(tmp_path / "short", tiny_model, SFT(), steps=10).losses


# --- gradients and layout -------------------------------------------------------------------------------------------
def test_the_gradient_is_that_of_the_loss_on_chosen_entries_and_zero_elsewhere(
    tmp_path: Path, tiny_model: Path
) -> None:
    """Along the masked gradient the loss rises by the gradient's norm, which is also the norm the clipper saw."""
    from transformers import AutoModelForCausalLM

    mine, plain = Watch(), Watch()
    dense, sparse = two_phases(tmp_path, tiny_model, watch=mine, density=0.1)
    train(tmp_path / "sft", tiny_model, SFT(), plain, steps=1)
    base = base_weights(tiny_model)
    mask, masked, whole = marks(memory_of(dense), base), mine.gradients[0], plain.gradients[0]
    assert all(torch.equal(g, whole[n] * mask[n]) for n, g in masked.items())
    norm = float(torch.nn.utils.get_total_norm(masked.values()))
    assert sparse.curve[0]["norm"] == pytest.approx(norm, rel=1e-6)

    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float64)
    batch = mine.batches[0]

    def loss_at(distance: float) -> float:
        for name, p in model.named_parameters():
            p.copy_(base[name].double() + distance * masked.get(name, torch.zeros(())).double() / norm)
        logits = model(input_ids=batch.ids).logits
        return float(nn.functional.cross_entropy(logits.flatten(0, 1), batch.targets.flatten()))

    with torch.no_grad():
        assert (loss_at(1e-3) - loss_at(-1e-3)) / 2e-3 == pytest.approx(norm, rel=1e-3)


def test_the_penalty_has_the_gradient_that_differences_give() -> None:
    method, ctx = one_parameter([0.5, -0.2, 0.1, 0.7], l1=0.1)
    p = ctx.model.theta
    method.auxiliary(None, ctx)["l1"].value.sum().backward()  # type: ignore[arg-type]
    for i in range(4):
        values = []
        for step in (1e-3, -1e-3):
            with torch.no_grad():
                p[i] += step
                values.append(float(method.auxiliary(None, ctx)["l1"].value))  # type: ignore[arg-type]
                p[i] -= step
        assert (values[0] - values[1]) / 2e-3 == pytest.approx(float(p.grad[i]), abs=1e-3)


def test_accumulation_cannot_change_the_answer(tmp_path: Path, tiny_model: Path) -> None:
    """In the second step no entry is where it began, so the penalty's gradient is there too."""
    runs = {}
    done = {"dense": train(tmp_path / "dense", tiny_model, LTSFT(density=0.5), steps=3).work / "artifact"}
    for micro in (4, 2, 1):
        method, watch, work = LTSFT(density=0.5, l1=0.1), Watch(), tmp_path / str(micro)
        run = train(work, tiny_model, method, watch, steps=3, stage=1, done=done, micro_batch=micro)
        runs[micro] = run.losses, watch.gradients
    for micro in (2, 1):
        assert runs[micro][0] == pytest.approx(runs[4][0], abs=1e-6)
        for step, tolerance in ((0, 3e-7), (1, 3e-6)):
            whole = runs[4][1][step]
            assert all(torch.allclose(g, whole[n], rtol=0, atol=tolerance) for n, g in runs[micro][1][step].items())


# --- closed form ----------------------------------------------------------------------------------------------------
def one_parameter(now: list[float], start: list[float] | None = None, **options: Any) -> tuple[LTSFT, Any]:
    """A model of one parameter, as it stands at some moment of a stage that began at `start` (zero if not given)."""

    class Model(nn.Module):
        def __init__(self, values: list[float]) -> None:
            super().__init__()
            self.theta = nn.Parameter(torch.tensor(values))

    begun = start or [0.0] * len(now)
    method, model, saved = LTSFT(**options), Model(begun), {}
    ctx = SimpleNamespace(
        model=model,
        memory={},
        stage=Stage("dense"),
        start={"theta": torch.tensor(begun)},
        save=saved.__setitem__,
        saved=saved,
    )
    method.wrap(model, ctx)  # type: ignore[arg-type]
    method.train_only(["theta"], ctx)  # type: ignore[arg-type]
    with torch.no_grad():
        model.theta.copy_(torch.tensor(now))
    return method, ctx


def test_the_worked_example_from_the_mask_to_the_sum_of_two_deltas(tmp_path: Path) -> None:
    theta0 = [1.0, 2.0, 3.0, 4.0]
    _, plain = one_parameter(theta0, theta0)
    other = {"theta": {"at": torch.tensor([1, 3]), "value": torch.tensor([0.3, 0.25]), "shape": (4,)}}
    torch.save({"base": fingerprint(plain.model), "delta": other}, tmp_path / "other.pt")
    target = Delta(file=str(tmp_path / "other.pt"), sha256=file_digest(tmp_path / "other.pt"))

    method, ctx = one_parameter([1.5, 1.9, 3.0, 3.0], theta0, density=0.5, target=(target,))
    method.after_stage(ctx.model, ctx)
    assert ctx.memory["lt_sft"]["theta"]["at"].tolist() == [0, 3]
    assert ctx.memory["lt_sft"]["theta"]["was"].tolist() == [1.0, 4.0]

    ctx.stage = Stage("sparse")
    ctx.model.theta.grad = torch.ones(4)
    method.after_backward(ctx.model, ctx)
    assert ctx.model.theta.grad.tolist() == [1, 0, 0, 1]

    with torch.no_grad():
        ctx.model.theta.copy_(torch.tensor([1.2, 2.0, 3.0, 3.5]))
    method.unwrap(ctx.model, ctx)
    phi = ctx.saved["delta"]["delta"]["theta"]
    assert phi["at"].tolist() == [0, 3]
    assert phi["value"].tolist() == pytest.approx([0.2, -0.5], abs=1e-6)
    assert ctx.model.theta.tolist() == pytest.approx([1.2, 2.3, 3.0, 3.75], abs=1e-6)
    assert ctx.saved["interference"] == {target.sha256: {"overlap": 0.5, "agreement": 0.0}}


def test_the_penalty_is_its_closed_form() -> None:
    method, ctx = one_parameter([0.5, -0.5], l1=0.1)
    term = method.auxiliary(None, ctx)["l1"]  # type: ignore[arg-type]
    assert term.scale * float(term.value.detach()) == pytest.approx(0.05)
    assert LTSFT().auxiliary(None, ctx) == {}  # type: ignore[arg-type]


def test_what_hardly_moved_is_not_in_the_delta() -> None:
    method, ctx = one_parameter([1.0, 2.0], [0.0, 0.0], density=1.0)
    method.after_stage(ctx.model, ctx)
    with torch.no_grad():
        ctx.model.theta.copy_(torch.tensor([5e-8, 1.0]))
    method.unwrap(ctx.model, ctx)
    assert ctx.saved["delta"]["delta"]["theta"]["at"].tolist() == [1]
    assert ctx.model.theta.tolist() == [0.0, 1.0]


def test_the_largest_are_exactly_k_with_ties_to_the_lower_place_and_none_of_zero() -> None:
    assert largest(torch.tensor([2.0, 3.0, 2.0, 2.0, 1.0]), 3).tolist() == [0, 1, 2]
    assert largest(torch.tensor([0.0, 1.0, 0.0]), 2).tolist() == [1]
    assert largest(torch.ones(3), 0).tolist() == []


def test_interference_counts_shared_entries_and_equal_signs() -> None:
    def entry(at: list[int], value: list[float]) -> dict[str, Any]:
        return {"at": torch.tensor(at), "value": torch.tensor(value).float(), "shape": (2, 4)}

    a = {"x": entry([0, 2, 5, 7], [1, -1, 1, 1]), "y": entry([0], [1])}
    b = {"x": entry([2, 5, 6, 7], [-2, -2, 1, 3]), "z": entry([0], [1])}
    assert interference(a, b) == {"overlap": 3 / 5, "agreement": 2 / 3}
    assert interference({"y": a["y"]}, {"z": b["z"]}) == {"overlap": 0.0, "agreement": None}
    assert interference({}, b) == {"overlap": None, "agreement": None}


# --- what the sparse phase leaves -----------------------------------------------------------------------------------
def test_entries_outside_the_mask_stay_as_they_were_and_have_no_optimiser_state(
    tmp_path: Path, tiny_model: Path
) -> None:
    watch = Logged()
    dense, sparse = two_phases(tmp_path, tiny_model, watch=watch, density=0.05)
    base = base_weights(tiny_model)
    assert all(torch.equal(p, base[n]) for n, p in watch.start.items())  # rewound
    mask = marks(memory_of(dense), base)
    free = sum(p.numel() for n, p in base.items() if "norm" not in n)
    assert sum(int(m.sum()) for m in mask.values()) == round(0.05 * free)
    moved = {n: p != base[n] for n, p in watch.final.items()}
    assert any(m.any() for m in moved.values())
    assert not any((moved[n] & ~mask[n]).any() for n in base)
    assert not any(m.any() for n, m in moved.items() if "norm" in n)
    assert not any(m[~mask[n]].any() for n, m in watch.moments.items())
    assert all(group["weight_decay"] == 0 for group in watch.adam.param_groups)
    delta = delta_of(sparse)["delta"]
    assert sum(len(e["at"]) for e in delta.values()) <= round(0.05 * free)
    back = {n: p.clone() for n, p in watch.final.items()}
    for name, entry in delta.items():
        back[name].view(-1)[entry["at"]] -= entry["value"]
    assert all(torch.allclose(p, base[n], rtol=0, atol=1e-6) for n, p in back.items())


def test_an_empty_mask_leaves_the_base(tmp_path: Path, tiny_model: Path) -> None:
    watch = Watch()
    _, sparse = two_phases(tmp_path, tiny_model, steps=3, watch=watch, density=0.0)
    assert all(torch.equal(p, watch.final[n]) for n, p in base_weights(tiny_model).items())
    assert not any(len(e["at"]) for e in delta_of(sparse)["delta"].values())


def test_two_rounds_add_to_the_mask_and_the_delta_is_from_the_base(tmp_path: Path, tiny_model: Path) -> None:
    watch, done = Watch(), {}
    names = [s.name for s in LTSFT(rounds=2).stages(None)]
    assert names == ["dense", "sparse", "dense2", "sparse2"]
    for stage, name in enumerate(names):
        stack = (LTSFT(rounds=2, density=0.1, l1=0.1), *([watch] if stage == 3 else []))
        last = train(tmp_path / name, tiny_model, *stack, steps=12, stage=stage, done=dict(done))
        done[name] = last.work / "artifact"
    base = base_weights(tiny_model)
    one, two = (marks(torch.load(done[n] / "memory.pt")["lt_sft"], base) for n in ("dense", "dense2"))
    free = sum(p.numel() for n, p in base.items() if "norm" not in n)
    assert [sum(int(m.sum()) for m in s.values()) for s in (one, two)] == [round(0.05 * free), round(0.1 * free)]
    assert not any((one[n] & ~two[n]).any() for n in base)
    assert not any(((p != base[n]) & ~two[n]).any() for n, p in watch.final.items())
    for name, entry in delta_of(last)["delta"].items():
        now = watch.final[name].view(-1)[entry["at"]]
        assert torch.equal(now - base[name].view(-1)[entry["at"]], entry["value"])


def test_the_random_control_has_no_dense_phase_and_the_same_k(tmp_path: Path, tiny_model: Path) -> None:
    options: dict[str, Any] = {"select": "random", "density": 0.05}
    assert [s.name for s in LTSFT(**options).stages(None)] == ["sparse"]
    runs = [
        train(tmp_path / n, tiny_model, LTSFT(**options), steps=2, seed=s) for n, s in (("a", 0), ("b", 0), ("c", 1))
    ]
    base = base_weights(tiny_model)
    a, b, c = (marks(memory_of(run), base) for run in runs)
    free = sum(p.numel() for n, p in base.items() if "norm" not in n)
    assert sum(int(m.sum()) for m in a.values()) == round(0.05 * free)
    assert all(torch.equal(a[n], b[n]) for n in base)
    assert not all(torch.equal(a[n], c[n]) for n in base)


def test_what_another_member_held_still_while_entries_were_chosen_does_not_train(
    tmp_path: Path, tiny_model: Path
) -> None:
    """`hft` draws another half for each stage, so some parameters are free only in the second."""
    stack = LTSFT(density=0.05), HFT()
    dense = train(tmp_path / "dense", tiny_model, *stack, steps=6)
    done = {"dense": dense.work / "artifact"}
    sparse = train(tmp_path / "sparse", tiny_model, *stack, steps=6, stage=1, done=done)
    assert sparse.losses and all(map(math.isfinite, sparse.losses))


# --- composition ----------------------------------------------------------------------------------------------------
def texts(letter: str) -> list[Row]:
    return [{"id": f"{letter}{i}", "text": letter * (5 + i % 7)} for i in range(12)]


@pytest.fixture(scope="module")
def domains(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> tuple[Done, Done]:
    """Deltas of two domains of plain text."""
    work = tmp_path_factory.mktemp("domains")
    made = [two_phases(work / x, tiny_model, rows=texts(x), l1=0.1, lr=1e-2)[1] for x in "xy"]
    return made[0], made[1]


def test_a_task_learned_on_one_domain_is_saved_on_another(
    tmp_path: Path, tiny_model: Path, domains: tuple[Done, Done]
) -> None:
    from safetensors.torch import load_file

    old, new = domains
    watch = Logged()
    _, task = two_phases(tmp_path, tiny_model, watch=watch, source=(named(old),), target=(named(new),))
    base = base_weights(tiny_model)

    def plus(weights: dict[str, Tensor], *deltas: dict[str, Any]) -> dict[str, Tensor]:
        out = {n: p.clone() for n, p in weights.items()}
        for delta in deltas:
            for name, entry in delta.items():
                out[name].view(-1)[entry["at"]] += entry["value"]
        return out

    phi = delta_of(task)["delta"]
    assert any(len(e["at"]) for e in phi.values())
    trained_on = plus(base, delta_of(old)["delta"])
    assert all(torch.equal(p, trained_on[n]) for n, p in watch.start.items())
    assert all(torch.allclose(p, watch.final[n], rtol=0, atol=1e-6) for n, p in plus(trained_on, phi).items())
    wanted = plus(base, delta_of(new)["delta"], phi)
    saved = load_file(task.work / "artifact" / "model.safetensors")
    assert all(torch.allclose(p.float(), wanted[n], rtol=1e-2, atol=1e-6) for n, p in saved.items())
    far = max(float((wanted[n] - watch.final[n]).abs().max()) for n in wanted)
    assert far > 1e-3  # so that bfloat16's rounding is not what is compared
    measured = torch.load(task.work / "artifact" / "interference.pt", weights_only=True)
    assert list(measured) == [named(new).sha256]
    assert 0 <= measured[named(new).sha256]["overlap"] <= 1


def test_the_order_of_two_deltas_does_not_matter_and_taking_them_out_restores_the_base(
    tiny_model: Path, domains: tuple[Done, Done]
) -> None:
    from transformers import AutoModelForCausalLM

    one, two = (delta_of(d)["delta"] for d in domains)
    models = [AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32) for _ in range(2)]
    for model, pair in zip(models, ((one, two), (two, one)), strict=True):
        for delta in pair:
            add(model, delta)
    a, b = (dict(m.named_parameters()) for m in models)
    assert all(torch.allclose(p, b[n], rtol=0, atol=1e-6) for n, p in a.items())
    for delta in (one, two):
        add(models[0], delta, sign=-1.0)
    assert all(torch.allclose(a[n], p, rtol=0, atol=1e-6) for n, p in base_weights(tiny_model).items())


def test_a_delta_of_other_weights_or_of_other_content_is_refused_before_training(
    tmp_path: Path, tiny_model: Path, domains: tuple[Done, Done]
) -> None:
    mine = named(domains[0])
    body = torch.load(mine.file, weights_only=True)
    torch.save({**body, "base": "0" * 64}, tmp_path / "foreign.pt")
    foreign = Delta(file=str(tmp_path / "foreign.pt"), sha256=file_digest(tmp_path / "foreign.pt"))
    for target, says in (
        (foreign, "belongs to other base weights"),
        (mine.model_copy(update={"sha256": "0" * 64}), "its sha256 differs"),
        (mine.model_copy(update={"file": str(tmp_path / "none.pt")}), "there is no such file"),
    ):
        with pytest.raises(HarnessError, match=says):
            train(tmp_path / "run", tiny_model, LTSFT(target=(target,)))


# --- resume, stacks, parameters -------------------------------------------------------------------------------------
@pytest.mark.parametrize("options", [{"l1": 0.1}, {"select": "random"}], ids=["changed", "random"])
def test_interrupted_in_the_sparse_phase_and_continued(
    tmp_path: Path, tiny_model: Path, options: dict[str, Any]
) -> None:
    stage, done = 0, {}
    if "select" not in options:
        stage, done = 1, {"dense": train(tmp_path / "d", tiny_model, LTSFT(**options), steps=9).work / "artifact"}

    def run(name: str, *more: Method, **settings: Any) -> Done:
        method = LTSFT(**options)
        return train(tmp_path / name, tiny_model, method, *more, steps=9, stage=stage, done=done, **settings)

    whole = run("whole")
    with pytest.raises(KeyboardInterrupt):
        run("cut", Watch(4), checkpoint_seconds=1e-9)
    again = run("again", earlier=[tmp_path / "cut"])
    assert again.result.summary["resumed_at"] == 3
    assert again.curve == whole.curve
    a, b = (delta_of(d)["delta"] for d in (whole, again))
    assert all(torch.equal(e[part], b[n][part]) for n, e in a.items() for part in ("at", "value"))


def test_it_stacks_with_an_objective_and_not_with_frozen_weights(tmp_path: Path, tiny_model: Path) -> None:
    first = train(tmp_path / "1", tiny_model, LTSFT(), DFT(), steps=6)
    watch, done = Watch(), {"dense": first.work / "artifact"}
    train(tmp_path / "2", tiny_model, LTSFT(), DFT(), watch, steps=6, stage=1, done=done)
    mask = marks(memory_of(first), base_weights(tiny_model))
    assert not any(g[~mask[n]].any() for g in watch.gradients for n, g in g.items())
    with pytest.raises(Refused, match="`lt_sft` chooses among the base's weights, `lora` freezes them"):
        check_stack((LoRA(), LTSFT()))


def test_a_delta_without_its_digest_is_a_wrong_parameter() -> None:
    with pytest.raises(HarnessError, match=r"method `lt_sft`: key `sha256` is missing in `source\.0`"):
        build((("lt_sft", {"source": [{"file": "delta.pt"}]}),))
