"""`caft`: concept-aware fine-tuning, in which heads that look further ahead teach the trunk and are then dropped.

Two stages: the heads learn on the frozen base, then the model is tuned with them beside its own loss. What is served is
the model without heads; they stay beside it as `caft.pt`, and nothing here decodes with them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from harness.errors import Refused
from harness.methods.base import Method, Stage, Term, overrides
from harness.methods.facts import ModelFacts

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

    from harness.training.context import Context
    from harness.training.forward import Batch
    from harness.training.tokens import Tokens


WINDOWS = ("gemma2", "gemma3_text")  # windows in some layers, whether or not config.json lists them
TIED = "`caft` is to freeze the output layer, which shares its weights with the input embeddings: that freezes both"
UNTIE = 'set its `unembedding` to "detach"'


class HeadParams(BaseModel):
    """n: heads, for the 2nd to the (n + 1)th next token.  alpha, beta: weight of all of them, and of each next one.
    schedule: what multiplies alpha: "rsine" and "constant", or the rising "linear" and "sine".

    head: a copy of the last layer but one ("layer"), or x + SiLU(Wx) with W zero ("linear").  own_unembedding: each
    head learns an output layer of its own, which begins as the model's.  head_input: "penultimate" gives the heads what
    the last layer reads and puts the final norm after them; "release" does as the released code.  tune_heads: the heads
    train in the last stage too.  unembedding: what the heads' losses do to the output layer: "detach" lets only the
    model's own loss train it, "train" all of them; "freeze" lets nothing train it.

    heads_share, adapt_share, tune_share: shares of the budget: of the heads' stage, of a second one on the training
    rows (0 leaves it out), of tuning.  heads_lr, adapt_lr: their learning rates.  heads_rows: the set of rows that the
    first of them reads; another than "train" is one that a member's `curate` names.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    n: int = Field(default=4, ge=1)
    alpha: float = Field(default=0.01, ge=0)
    beta: float = Field(default=0.8, ge=0)
    schedule: Literal["rsine", "constant", "linear", "sine"] = "rsine"
    head: Literal["layer", "linear"] = "layer"
    own_unembedding: bool = False
    head_input: Literal["penultimate", "release"] = "penultimate"
    tune_heads: bool = False
    unembedding: Literal["detach", "train", "freeze"] = "detach"
    heads_share: float = Field(default=0.3, gt=0)
    adapt_share: float = Field(default=0.0, ge=0)
    tune_share: float = Field(default=0.7, gt=0)
    heads_lr: float = Field(default=3e-4, gt=0)
    adapt_lr: float = Field(default=1e-4, gt=0)
    heads_rows: str = "train"


class CAFT(Method):
    """Improving LLMs with Concept-Aware Fine-Tuning, arXiv 2506.07833.

    L = CE_0 + alpha g sum_{k=1..n} beta^k CE_k, CE_k the mean of -log p_k(x_{t+1+k} | x_<=t) over the targets that have
    a position 1 + k places before them, prompts included; p_k = softmax(head_k(h) U), head_k of [rows, length, width],
    U the model's output layer. g(progress) = sin(pi / 2 (1 - progress)) as "rsine", so the heads weigh less and less.

    Stages: `heads` trains the heads on the frozen base by sum_k beta^k CE_k, at a constant rate and without the rest of
    the stack; then `adapt` where asked; then `tune`, L on the trunk through frozen heads. No head is left in what is
    saved. Heads are causal whatever the attention kernel: mask, positions and rotary angles are given to them.

    Defaults are for models of about 135M parameters; the release takes alpha 0.01, beta 0.8, four heads, LoRA of rank 8
    or all weights. It trains heads on another corpus than the task's (`heads_rows`); the default is the task's rows.

    Unverified: the paper's input of the heads (`head_input`). The release trains them on what the last layer reads and
    tunes with the final normed states, with no norm between head and output layer in either; the default makes a head
    the last layer's replacement in both stages. Deviations: the release freezes the output layer in full fine-tuning;
    here it is detached from the heads' losses, since with tied embeddings freezing it freezes the inputs as well
    (`unembedding`). The last step is served, where the release stops early by sum_k beta^k CE_k. Beside peft's layers
    the heads stay plain, and `caft` has to stand after the member that injects them.
    """

    name: ClassVar[str] = "caft"
    paper: ClassVar[str] = "arXiv 2506.07833"
    verified: ClassVar[str] = "worked example; alpha 0 equals `sft`; what is exported equals the trained trunk"
    family: ClassVar[str] = "heads"
    Params: ClassVar[type[BaseModel]] = HeadParams
    knobs: ClassVar[dict[str, tuple[float, float]]] = {"alpha": (0.001, 0.1), "beta": (0.5, 1.0)}
    needs = frozenset({"hidden:-2"})

    params: HeadParams
    n: int
    alpha: float
    beta: float
    schedule: str
    tune_heads: bool
    unembedding: str
    heads_share: float
    adapt_share: float
    tune_share: float
    heads_lr: float
    adapt_lr: float
    heads_rows: str

    def check(self, model: ModelFacts, stack: Sequence[Method]) -> None:
        self._check_order(stack)
        if self.unembedding == "freeze" and model.tied:
            raise Refused(TIED, todo=UNTIE)
        kinds = model.config.get("layer_types") or (["sliding_attention"] if model.kind in WINDOWS else [])
        known = [re.match(r"(model\.)?layers\.\d+\.self_attn\.", name) for name in model.linears]
        _check_layers(model.kind, model.layers, has_rotary=not known or any(known), layer_types=kinds)

    def _check_order(self, stack: Sequence[Method]) -> None:
        after = [m for m in stack[list(stack).index(self) + 1 :] if overrides(m, "wrap")]
        if late := [m for m in after if not isinstance(m, Heads)]:
            raise Refused(
                f"`{late[0].name}` stands after `caft` and would change its heads too",
                todo=f"put `caft` after `{late[0].name}`",
            )

    def stages(self, ctx: Any) -> list[Stage]:
        heads, alone = Heads(self.params), HeadsAlone(self.params)
        rate: dict[str, Any] = {"schedule": "constant", "warmup": 0.0}
        made = [
            Stage(
                "heads",
                rows=self.heads_rows,
                run=(heads, alone),
                alone=True,
                share=self.heads_share,
                settings={**rate, "lr": self.heads_lr},
            )
        ]
        if self.adapt_share:
            settings = {**rate, "lr": self.adapt_lr}
            run = (heads, alone)
            made.append(Stage("adapt", init="heads", run=run, alone=True, share=self.adapt_share, settings=settings))
        joins = (*([heads] if self.tune_heads else []), *([FrozenOutput()] if self.unembedding == "freeze" else []))
        return [*made, Stage("tune", init=made[-1].name, run=joins, share=self.tune_share)]

    def wrap(self, model: Any, ctx: Context) -> Module:
        """Takes off the heads what a member before this one injected into them."""
        from peft.tuners.tuners_utils import BaseTunerLayer

        self._check_order(ctx.stack)
        for part in (model.caft, *([model.caft_out] if hasattr(model, "caft_out") else [])):
            for name, layer in [(n, m) for n, m in part.named_modules() if isinstance(m, BaseTunerLayer)]:
                part.set_submodule(name, layer.get_base_layer())
        return model

    def auxiliary(self, tok: Tokens, ctx: Context) -> dict[str, Term]:
        weight = self.alpha * strength(self.schedule, ctx.progress)
        if not weight:
            return {}
        ctx.log(ahead=weight)
        terms = ahead(tok, ctx, self.params, tuning=True)
        return {f"ahead{k}": Term(t.value, t.count, weight * self.beta**k) for k, t in enumerate(terms, 1)}

    def unwrap(self, model: Any, ctx: Context) -> Module:
        parts = [name for name in ("caft", "caft_out") if hasattr(model, name)]
        ctx.save("caft", {n: p.detach().cpu() for n, p in model.named_parameters() if n.split(".")[0] in parts})
        for name in parts:
            delattr(model, name)
        return model


class Heads(Method):
    """Puts the heads beside the model, as `model.caft`; with output layers of their own, as `model.caft_out`."""

    name: ClassVar[str] = "caft heads"
    Params: ClassVar[type[BaseModel]] = HeadParams

    def __init__(self, params: HeadParams) -> None:
        super().__init__(**params.model_dump())

    n: int
    head: str
    own_unembedding: bool

    def wrap(self, model: Any, ctx: Context) -> Module:
        import copy

        from torch import nn

        body, kind = model.base_model, getattr(getattr(model, "config", None), "model_type", type(model).__name__)
        rotary = all(hasattr(body, part) for part in ("layers", "norm", "rotary_emb"))
        types = getattr(model.config, "layer_types", None) or ()
        _check_layers(kind, len(body.layers) if rotary else None, has_rotary=rotary, layer_types=types)
        if self.head == "layer":
            model.caft = nn.ModuleList(copy.deepcopy(body.layers[-2]) for _ in range(self.n))
        else:
            width = model.config.hidden_size
            model.caft = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(self.n))
            for layer in model.caft:
                nn.init.zeros_(layer.weight)
        if self.own_unembedding:
            model.caft_out = nn.ModuleList(copy.deepcopy(model.get_output_embeddings()) for _ in range(self.n))
        return model


class HeadsAlone(Method):
    """The loss of the heads, without the next token's, on a frozen model."""

    name: ClassVar[str] = "caft alone"
    Params: ClassVar[type[BaseModel]] = HeadParams
    needs = frozenset({"hidden:-2"})
    freeze = True

    def __init__(self, params: HeadParams) -> None:
        super().__init__(**params.model_dump())

    params: HeadParams
    beta: float

    def loss(self, tok: Tokens, ctx: Context) -> dict[str, Term]:
        terms = ahead(tok, ctx, self.params, tuning=False)
        return {f"ahead{k}": Term(t.value, t.count, self.beta**k) for k, t in enumerate(terms, 1)}


class FrozenOutput(Method):
    """Keeps the output layer as it is."""

    name: ClassVar[str] = "caft frozen output"

    def train_only(self, names: Sequence[str], ctx: Context) -> Iterable[str]:
        model: Any = ctx.model
        output = model.get_output_embeddings().weight
        if output is model.get_input_embeddings().weight:
            raise Refused(TIED, todo=UNTIE)
        return [n for n in names if model.get_parameter(n) is not output]


def _check_layers(kind: str, layers: int | None, *, has_rotary: bool, layer_types: Sequence[str]) -> None:
    """Refused where the last layer but one cannot be copied as a head. layers: None if not known."""
    if not has_rotary:
        what = f"`caft` copies a decoder layer with rotary positions, and `{kind}` models have none that it knows"
    elif "sliding_attention" in layer_types:
        what = f"`caft` gives its heads a causal mask, and `{kind}` models have windows in some layers"
    elif layers is not None and layers < 2:
        what = "`caft` copies the last layer but one, and this model has one layer"
    else:
        return
    raise Refused(what, todo="use a model such as Llama or Qwen 2, with two layers or more")


def ahead(tok: Tokens, ctx: Context, params: HeadParams, *, tuning: bool) -> list[Term]:
    """CE_k of every head in turn, unscaled: values and counts [N]."""
    from harness.training.blocks import log_probability

    model: Any = ctx.model
    release = params.head_input == "release"
    states = tok.out.hidden if release and tuning else tok.out.states[-2]
    terms = []
    for k in range(1, params.n + 1):
        with ctx.autocast():
            said = run_head(model, k - 1, states, tok.batch)
            said = said if release else model.base_model.norm(said)
        hidden, there = tok.gather(said, back=k)
        logp = tok.vocab(log_probability, hidden=hidden, head=_output(model, k - 1, params.unembedding))
        terms.append(Term(-tok.weight * there * logp, there * (tok.weight != 0)))
    return terms


def run_head(model: Any, number: int, states: Tensor, batch: Batch) -> Tensor:
    """One head on hidden states: [rows, length, width] -> the same."""
    import torch
    from torch.nn.functional import linear, silu

    head = model.caft[number]
    if not hasattr(head, "self_attn"):
        return states + silu(linear(states, head.weight))
    places = torch.arange(states.shape[1], device=states.device)[None] if batch.positions is None else batch.positions
    said = head(
        states,
        attention_mask=batch.attention_mask(model),
        position_ids=places,
        position_embeddings=model.base_model.rotary_emb(states, places),
        use_cache=False,
    )
    return said[0] if isinstance(said, tuple) else said


def _output(model: Any, number: int, unembedding: str) -> Callable[[Tensor], Tensor]:
    """The output layer of a head."""
    from torch.func import functional_call

    if hasattr(model, "caft_out"):
        return model.caft_out[number]  # type: ignore[no-any-return]
    layer = model.get_output_embeddings()
    if unembedding == "train":
        return layer  # type: ignore[no-any-return]
    frozen = {n: p.detach() for n, p in layer.named_parameters()}
    return lambda hidden: functional_call(layer, frozen, (hidden,))


def strength(schedule: str, progress: float) -> float:
    """g, by how much of the stage is done."""
    match schedule:
        case "rsine":
            return math.sin(math.pi / 2 * (1 - progress))
        case "sine":
            return math.sin(math.pi / 2 * progress)
        case "linear":
            return progress
        case _:
            return 1.0
