"""Every type of peft: where it starts, what it trains, that it folds without loss, and how the rest is served."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch

from harness import methods
from harness.engines.base import Artifact, EngineSpec, Request
from harness.errors import HarnessError, Refused, StepFailed
from harness.methods.base import check_served
from harness.methods.peft_family import OWN_GRADIENT, method
from harness.methods.peft_types import ELSEWHERE, TYPES, WHY_NOT
from harness.training.opening import Opener, choose_trainable, open_base, open_tokenizer
from tests.training import Watch, make_rows, train

OWN_FILES = ("bitfit", "adapters")
ALL = (*TYPES, *OWN_FILES)
SMALL: dict[str, dict[str, Any]] = {  # where the defaults are larger than the tiny model
    "vblora": {"vector_length": 16},
    "c3a": {"block_size": 16},
    "fourierft": {"n_frequency": 100},
    "waveft": {"n_frequency": 100},
    "miss": {"r": 4},
    "shira": {"r": 4},
    "psoft": {"r": 4},
    "road": {"group_size": 16},
}
UNFOLDED = [n for n in ALL if methods.load(n).engine == "hf"]
IDS = torch.arange(5, 45)[None]


def make(name: str, **params: Any) -> Any:
    return methods.make(name, {**SMALL.get(name, {}), **params})


def opened(folder: Path, member: Any, seed: int = 0) -> tuple[Any, Any]:
    """A model wrapped by one member as the host does it, in evaluation mode, and its context."""
    from harness.methods.base import Stage
    from harness.training.context import Context

    ctx = Context(seed=seed, device=torch.device("cpu"), tokenizer=open_tokenizer(folder), limit=512, precision="fp32")
    opener = Opener(folder, None, (member,), (Stage(),), {})
    model = opener.fresh(ctx, Stage()).eval()
    choose_trainable(model, (member,), opener.owners, ctx)
    ctx.model = model
    return model, ctx


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=IDS, use_cache=False).logits
    return found


def stir(model: Any) -> None:
    """Move whatever trains, as training would."""
    dice = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.add_(0.05 * torch.randn(p.shape, generator=dice))


def test_every_type_of_peft_has_a_row_or_a_reason() -> None:
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING as CONFIGS

    rows = [{t.peft for t in TYPES.values()}, set(ELSEWHERE), set(WHY_NOT)]
    assert set.union(*rows) == {t.value for t in CONFIGS} and len(CONFIGS) == 45
    assert not rows[0] & rows[2] and not rows[1] & rows[2]


def test_every_row_is_offered_by_name_here_and_in_the_package() -> None:
    points = tomllib.loads(Path("pyproject.toml").read_text())["project"]["entry-points"]["harness.methods"]
    for name in TYPES:
        value = f"harness.methods.peft_family:{name}"
        assert methods.OURS[name] == points[name] == value
        assert methods.load(name) is method(name)


@pytest.mark.parametrize("name", ["lora", *ALL])
def test_start_gradient_and_fold(name: str, tiny_model: Path) -> None:
    """The start is the base's, or its distance is printed; the gradient is the numerical one; folding loses nothing,
    and leaves the tensors that the base has."""
    base, member = open_base(tiny_model), make(name)
    model, ctx = opened(tiny_model, member)
    away = (logits(model) - logits(base)).abs().max().item()
    kind = TYPES.get(name)
    assert (away > 1e-5) == (kind is not None and kind.start == "moved")
    stir(model)
    moved = logits(model)
    assert (moved - logits(base)).abs().max() > 1e-4
    if name not in OWN_GRADIENT:
        check_gradient(model)
    lost = None
    if name in UNFOLDED:
        with pytest.raises(Refused, match=f"`{name}` cannot be folded"):
            member.unwrap(model, ctx)
    elif TYPES.get(name) is None or TYPES[name].serving in ("merge", "native"):
        plain = member.unwrap(model, ctx)
        lost = (logits(plain) - moved).abs().max().item()
        assert lost < 5e-6
        added = {n for n in plain.state_dict() if n.endswith(".bias")} if name == "bitfit" else set()
        assert set(plain.state_dict()) - added == set(base.state_dict())
    print(f"{name}: start {away:.1e}, fold {'-' if lost is None else f'{lost:.1e}'}")


def check_gradient(model: Any) -> None:
    """Along one direction, most of it the gradient's own, so that the difference stands out of fp32's noise."""

    def loss() -> torch.Tensor:
        out = model(input_ids=IDS, use_cache=False).logits[0, :-1]
        return torch.nn.functional.cross_entropy(out.double(), IDS[0, 1:])

    parameters = [p for p in model.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(loss(), parameters, allow_unused=True)
    dice = torch.Generator().manual_seed(2)
    ways = [torch.randn(p.shape, generator=dice) for p in parameters]
    size = sum(float((g**2).sum()) for g in gradients if g is not None) ** 0.5
    ways = [w if g is None else w * 0.1 + g / size * 3 for w, g in zip(ways, gradients, strict=True)]
    slope = sum(float((g * w).sum()) for g, w in zip(gradients, ways, strict=True) if g is not None)
    step, found = min(2e-4, 5e-4 / abs(slope)), []
    with torch.no_grad():
        for sign in (1, -2, 1):
            for p, w in zip(parameters, ways, strict=True):
                p.add_(w, alpha=sign * step)
            found.append(float(loss()))
    assert (found[0] - found[1]) / (2 * step) == pytest.approx(slope, rel=2e-2, abs=1e-4)


@pytest.mark.parametrize("name", ALL)
def test_layouts_resumption_and_what_is_left(name: str, tmp_path: Path, tiny_model: Path) -> None:
    """Two micro-batches give the gradient of one; a run cut after a step continues identically; the base's weights
    get no gradient; the artifact is of its kind."""
    rows = make_rows(8)
    whole, parts, rest = Watch(), Watch(), Watch()
    a = train(tmp_path / "a", tiny_model, make(name), whole, rows=rows, steps=2, lr=1e-2)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "b", tiny_model, make(name), Watch(2), rows=rows, steps=2, lr=1e-2, checkpoint_seconds=1e-9)
    c = train(tmp_path / "c", tiny_model, make(name), rest, rows=rows, steps=2, lr=1e-2, earlier=[tmp_path / "b"])
    assert c.result.summary["resumed_at"] == 1 and c.curve == a.curve
    train(tmp_path / "d", tiny_model, make(name), parts, rows=rows, steps=1, lr=1e-2, micro_batch=2)
    assert whole.gradients[0].keys() == parts.gradients[0].keys()
    for n, g in whole.gradients[0].items():
        assert torch.allclose(g, parts.gradients[0][n], rtol=1e-4, atol=2e-6 * max(1.0, float(g.abs().max()))), n
    base = dict(open_base(tiny_model).named_parameters())
    frozen = {n.replace(".base_layer", ""): p for n, p in whole.final.items() if n not in whole.gradients[1]}
    if name not in ("pissa", "olora", "osf"):  # these take their start out of the base's weights
        assert all(torch.equal(p, base[n]) for n, p in frozen.items() if n in base)
    kind = "adapter" if name in UNFOLDED or (name in TYPES and TYPES[name].serving == "native") else "full"
    artifact = a.work / "artifact"
    assert json.loads((artifact / "artifact.json").read_text())["kind"] == kind
    assert a.result.cost["trainable_parameters"] == sum(g.numel() for g in whole.gradients[1].values()) > 0
    weights = [next((d.work / "artifact").glob("*.safetensors")).read_bytes() for d in (a, c)]
    assert weights[0] == weights[1]


@pytest.mark.parametrize("name", [*UNFOLDED, "rslora", "bitfit"])
def test_the_engine_hf_serves_what_was_trained(name: str, tmp_path: Path, tiny_model: Path) -> None:
    """The log-probability of an answer is the trained model's, in a batch with shorter rows; greedy decoding with a
    cache picks the tokens that the trained model ranks first."""
    from harness.engines.hf import HFEngine

    done = train(tmp_path / "a", tiny_model, make(name), Watch(), steps=3, lr=3e-2)
    folder = done.work / "artifact"
    engine = HFEngine()
    engine.open(tiny_model, EngineSpec("hf", "float32", 256))
    kind = json.loads((folder / "artifact.json").read_text())["kind"]
    asks = [
        Request(messages=({"role": "user", "content": text},), max_tokens=6)
        for text in ("Hi", "What is 3 + 4, and why?")
    ]
    said = []
    for artifact in (Artifact(tiny_model, "base"), Artifact(tiny_model, "x", kind, folder, name)):
        engine.activate(artifact)
        said.append({r.key: r for r in engine.generate(asks)})
    assert any(said[0][k].logprobs != said[1][k].logprobs for k in said[0])
    live, _ = opened(tiny_model, make(name))
    load_trained(live, done, name, folder, tiny_model)
    for ask in asks:
        answer = said[1][ask.key]
        ids = list(engine._prompts.encode(ask))
        for token, logprob in zip(answer.tokens, answer.logprobs, strict=True):
            with torch.no_grad():
                scores = live(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].log_softmax(-1)
            assert int(scores.argmax()) == token
            assert float(scores[token]) == pytest.approx(logprob, abs=2e-2 if name == "bitfit" else 1e-3)
            ids.append(token)
    engine.close()


def load_trained(live: Any, done: Any, name: str, folder: Path, tiny_model: Path) -> None:
    """The weights at the end of training, into a model wrapped anew; by training again, which is exact."""
    watch = Watch()
    train(done.work.parent / "again", tiny_model, make(name), watch, steps=3, lr=3e-2)
    mine = dict(live.named_parameters())
    with torch.no_grad():
        for n, value in watch.final.items():
            mine[n].copy_(value)


def test_what_cannot_be_merged_is_not_merged_and_nothing_starts_from_it(tmp_path: Path, tiny_model: Path) -> None:
    from harness.engines.weights import merge

    done = train(tmp_path / "a", tiny_model, make("prompt"), steps=1)
    folder = done.work / "artifact"
    with pytest.raises(StepFailed, match="PROMPT_TUNING cannot be merged"):
        merge(tiny_model, folder, tmp_path / "m")
    with pytest.raises(HarnessError, match="nothing can start from it"):
        train(tmp_path / "b", tiny_model, steps=1, init=folder)


def test_what_vllm_cannot_serve_is_refused_when_planning() -> None:
    for name in ALL:
        if methods.load(name).engine:
            with pytest.raises(Refused, match=f"`{name}` leaves cannot be served by the engine `vllm`"):
                check_served((make(name),), "vllm")
        else:
            check_served((make(name),), "vllm")
        check_served((make(name),), "hf")


def test_adalora_ends_with_the_target_ranks_and_adds_its_regulariser(tmp_path: Path, tiny_model: Path) -> None:
    """b(t) = bT + (b0 - bT)(1 - t / T)^3: 12 to 8 in 10 steps over 14 layers is 8.5 a layer at half way."""
    ranks = []

    class Count(Watch):
        def after_step(self, model: Any, ctx: Any) -> None:
            ranks.append(sum(int((p != 0).sum()) for n, p in model.named_parameters() if ".lora_E." in n))

    done = train(tmp_path / "a", tiny_model, make("adalora"), Count(), steps=10, lr=1e-2)
    assert (ranks[4], ranks[-1]) == (int(14 * 8.5), 14 * 8)
    assert done.curve[0]["orthogonal"] > 0


def test_ia3_scales_outputs_and_the_inputs_of_the_last_layer(tiny_model: Path) -> None:
    """W' = diag(l) W for keys and values, W diag(l) for what is listed as feed-forward."""
    member = make("ia3")
    model, ctx = opened(tiny_model, member)
    block = model.model.layers[0]
    scale = {n: 1 + torch.rand(getattr(part, n).ia3_l["default"].shape) for part, n in parts_of(block)}
    with torch.no_grad():
        for part, n in parts_of(block):
            getattr(part, n).ia3_l["default"].copy_(scale[n])
    plain = member.unwrap(model, ctx).model.layers[0]
    base: Any = open_base(tiny_model)
    before = base.model.layers[0]
    assert torch.allclose(plain.self_attn.k_proj.weight, before.self_attn.k_proj.weight * scale["k_proj"])
    assert torch.allclose(plain.mlp.down_proj.weight, before.mlp.down_proj.weight * scale["down_proj"])
    assert scale["k_proj"].shape == (16, 1) and scale["down_proj"].shape == (1, 64)


def parts_of(block: Any) -> list[tuple[Any, str]]:
    return [(block.self_attn, "k_proj"), (block.self_attn, "v_proj"), (block.mlp, "down_proj")]


@pytest.mark.parametrize(
    ("name", "count"),
    [("prompt", 20 * 32), ("prefix", 10 * 2 * 2 * 16), ("ia3", 2 * (16 + 16 + 64)), ("adapters", 2 * 2 * 2 * 32 * 48)],
)
def test_trainable_parameters_are_the_closed_form(name: str, count: int, tiny_model: Path) -> None:
    model, _ = opened(tiny_model, make(name))
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == count


@pytest.mark.parametrize(("name", "options"), [("prompt", {}), ("prefix", {}), ("prefix", {"prefix_projection": True})])
def test_virtual_tokens_are_pefts_own(name: str, options: Any, tmp_path: Path, tiny_model: Path) -> None:
    """peft opens the folder and gives the same logits as the hooks."""
    from peft import PeftModel

    watch = Watch()
    done = train(tmp_path / "a", tiny_model, make(name, **options), watch, steps=2, lr=1e-2)
    mine, _ = opened(tiny_model, make(name, **options))
    assert options == {} or any("transform" in n for n in watch.final)
    with torch.no_grad():
        for n, value in watch.final.items():
            dict(mine.named_parameters())[n].copy_(value)
    theirs = PeftModel.from_pretrained(open_base(tiny_model), done.work / "artifact").eval()  # type: ignore[arg-type]
    with torch.no_grad():
        out = theirs(input_ids=IDS, attention_mask=torch.ones_like(IDS)).logits[:, -IDS.shape[1] :]
    assert torch.allclose(out, logits(mine), atol=1e-5)


def test_a_parameter_that_does_not_fit_the_model_is_an_error_with_the_reason(tmp_path: Path, tiny_model: Path) -> None:
    with pytest.raises(HarnessError, match="method `miss` does not fit this model") as caught:
        train(tmp_path, tiny_model, methods.make("miss", {}), steps=1)
    assert "in_features" in str(caught.value)


def test_a_parameter_that_does_not_exist_is_refused_with_the_nearest() -> None:
    with pytest.raises(HarnessError, match="method `vera` has no parameter `d_inital`"):
        methods.make("vera", {"d_inital": 0.2})


def test_a_stack_with_another_objective_trains_and_folds(tmp_path: Path, tiny_model: Path) -> None:
    stack = methods.build((("dora", {"r": 2}), ("dft", {})))
    done = train(tmp_path, tiny_model, *stack, steps=2)
    assert json.loads((done.work / "artifact" / "artifact.json").read_text())["kind"] == "full"
