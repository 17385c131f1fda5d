"""The PEFT family: every layer adapter of peft by one class, a method for each row of `peft_types.py`.

Adapters are injected in place, so other members of a stack see the plain model. Those that can be folded are folded
into plain fp32 weights before they are saved. The classes are made when asked for by name, which is what the entry
points do. `lora` has a file of its own.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, create_model

from harness.errors import HarnessError, Refused
from harness.methods import soft_prompt
from harness.methods.base import Method, Term
from harness.methods.facts import ModelFacts, targeted
from harness.methods.peft_limits import check_limits
from harness.methods.peft_types import TYPES, Type

if TYPE_CHECKING:
    from torch.nn import Module

    from harness.training.context import Context
    from harness.training.tokens import Tokens

OWN_GRADIENT = ("osf", "dora")  # one projects its gradient, the other takes a norm for a constant, by design
_SHARES: dict[str, dict[str, Any]] = {
    **{name: {"gt": 0, "lt": 1} for name in ("beta1", "beta2")},
    **{name: {"ge": 0, "le": 1} for name in ("warm", "settled", "sparse_rate")},
    "sparsity": {"ge": 0, "lt": 1},
}
_CHOICES = {"prompt_tuning_init": Literal["SAMPLE_VOCAB", "RANDOM"]}
_NOT_PEFT = ("dropout", "warm", "settled")  # parameters that peft has under other names or in other units


class Peft(Method):
    """One type of adapter: `kind` is its row of the table."""

    family: ClassVar[str] = "adapter"
    peft: ClassVar[bool] = True
    kind: ClassVar[Type]
    freeze = True

    @property
    def needs(self) -> frozenset[str]:  # type: ignore[override]
        drawn = self.kind.random or self.params.model_dump().get("dropout")
        return frozenset({"whole_batch"}) if drawn else frozenset()

    def check(self, model: ModelFacts, stack: Sequence[Method]) -> None:
        given = self.params.model_dump()
        if (targets := given.get("target_modules")) is not None:
            check_limits(self.name, given, targeted(self.name, targets, model))
        self._check_names(given)
        self._check_tokens(given, model, stack)

    def _check_names(self, given: dict[str, Any]) -> None:
        targets = given.get("target_modules")
        extra = [n for n in given.get("feedforward_modules", ()) if isinstance(targets, tuple) and n not in targets]
        if extra:
            raise Refused(
                f"`{self.name}`: `{extra[0]}` is among its `feedforward_modules` and not among its `target_modules`",
                todo="name in `feedforward_modules` only layers that it adapts",
            )

    def _check_tokens(self, given: dict[str, Any], model: ModelFacts, stack: Sequence[Method]) -> None:
        """Virtual tokens must leave room and see no masks of another member; trained ones must exist."""
        virtual = given.get("num_virtual_tokens", 0)
        if virtual and model.context and virtual >= model.context:
            raise Refused(
                f"`{self.name}` puts {virtual} virtual tokens before every sequence, and the model holds "
                f"{model.context} tokens",
                todo="lower `num_virtual_tokens`",
            )
        masker = next((m for m in stack if virtual and "mask" in m.needs), None)
        if masker:
            raise Refused(
                f"`{masker.name}` brings attention masks of its own, which do not go with `{self.name}`'s virtual "
                "tokens",
                todo="keep one of them",
            )
        missing = [i for i in given.get("token_indices", ()) if model.rows and i >= model.rows]
        if missing:
            raise Refused(
                f"`token_indices` of `{self.name}` names token {missing[0]}, and the embedding has {model.rows} rows",
                todo=f"name tokens from 0 to {(model.rows or 0) - 1}",
            )

    def config(self, ctx: Context) -> Any:
        """peft's configuration of this adapter."""
        from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING as CONFIGS

        fields = {n: v for n, v in self.params.model_dump().items() if n not in _NOT_PEFT}
        fields = {n: list(v) if isinstance(v, tuple) else v for n, v in fields.items()} | dict(self.kind.fixed)
        if self.kind.dropout:
            fields[self.kind.dropout] = self.dropout  # type: ignore[attr-defined]
        if self.kind.peft == "ADALORA":
            fields["total_step"] = 1  # unknown here, and set at every step
        if self.kind.peft == "TRAINABLE_TOKENS" and not fields["token_indices"]:
            fields["token_indices"] = sorted(ctx.tokenizer.all_special_ids)
        configs: Any = CONFIGS
        return configs[self.kind.peft](task_type="CAUSAL_LM", **fields)

    def wrap(self, model: Any, ctx: Context) -> Any:
        from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING as TUNERS

        tuners: Any = TUNERS
        try:
            config = self.config(ctx)
        except (ValueError, TypeError) as error:
            raise self._misfit(error) from error
        if config.is_prompt_learning:
            return soft_prompt.wrap(model, config)
        if self.kind.peft == "SHIRA":
            import torch

            torch.sparse.check_sparse_tensor_invariants.disable()  # the default; said aloud, torch does not warn
        try:
            # Not `inject_adapter_in_model`, which refuses types whose layers share tensors
            with warnings.catch_warnings(action="ignore"):  # about kernels that are missing and layers it has not tried
                tuner = tuners[self.kind.peft](model, config, "default")
        except (ValueError, TypeError) as error:
            raise self._misfit(error) from error
        return tuner.model

    def _misfit(self, error: Exception) -> HarnessError:
        return HarnessError(
            f"method `{self.name}` does not fit this model",
            why=str(error).splitlines()[0],
            todo=f"change its parameters (`harness methods {self.name}`)",
        )

    def train_only(self, names: Sequence[str], ctx: Context) -> Iterable[str]:
        return [n for n in names if not any(part in n for part in self.kind.still)]

    def unwrap(self, model: Module, ctx: Context) -> Module:
        """The update folded into the weights, and the plain layers put back. Refused for a type that cannot be."""
        from peft.tuners.tuners_utils import BaseTunerLayer

        if self.kind.serving == "hf":
            raise Refused(
                f"`{self.name}` cannot be folded into plain weights", todo="keep it alone, and start from the base"
            )
        for name, layer in [(n, m) for n, m in model.named_modules() if isinstance(m, BaseTunerLayer)]:
            layer.merge()
            model.set_submodule(name, layer.get_base_layer())
        del model.peft_config
        return model


def _orthogonal(self: Any, tok: Tokens, ctx: Context) -> dict[str, Term]:
    """weight x mean over all A and B of ||AA' - I|| or ||B'B - I||, Frobenius. peft adds it only in a forward pass
    that is given labels, which ours never is."""
    import torch

    norms = []
    for name, p in ctx.model.named_parameters():
        if ".lora_A." in name or ".lora_B." in name:
            square = p @ p.T if ".lora_A." in name else p.T @ p
            norms.append(torch.linalg.norm(square - torch.eye(len(square), device=p.device)))
    return {"orthogonal": Term(torch.stack(norms), scale=self.orth_reg_weight)}


def _allocate(self: Any, model: Module, ctx: Context) -> None:
    """Importance of every rank from weights and gradients, then the least important ones set to zero.

    peft counts its schedule in steps of a known total, which is worked out from the progress here. Ranks are never cut
    out of the tensors, since they are zero: shapes stay as they are.
    """
    from peft.tuners.adalora.layer import RankAllocator

    config: Any = self.config(ctx)
    config.total_step = round(ctx.step / ctx.progress)
    config.tinit, config.tfinal = round(self.warm * config.total_step), round(self.settled * config.total_step)
    allocator: Any = RankAllocator(model, config, "default")
    kept = ctx.memory.get("adalora", {})
    allocator.exp_avg_ipt, allocator.exp_avg_unc = ({**kept.get(n, {})} for n in ("mean", "spread"))
    allocator.ipt = dict(allocator.exp_avg_ipt)  # only asked whether a name has been seen
    budget, _ = allocator.budget_schedule(ctx.step)
    if budget < allocator.init_bgt:
        last = ctx.step >= config.total_step - config.tfinal  # whatever deltaT says, the target is reached
        if last and not kept:  # a run of one step: peft measures no more at the last one
            allocator.update_ipt(model)
        allocator.update_and_allocate(model, ctx.step, force_mask=last)
    else:
        allocator.update_ipt(model)
    if ctx.progress < 1:
        ctx.memory["adalora"] = {"mean": allocator.exp_avg_ipt, "spread": allocator.exp_avg_unc}
    else:
        ctx.memory.pop("adalora", None)


_EXTRA: dict[str, dict[str, Any]] = {"adalora": {"auxiliary": _orthogonal, "after_step": _allocate}}


@functools.cache
def method(name: str) -> type[Peft]:
    """The method of one row."""
    kind = TYPES[name]
    fields: dict[str, Any] = {n: _field(n, v) for n, v in kind.params.items()}
    if kind.linear:
        fields.setdefault("target_modules", (str | tuple[str, ...], "all-linear"))
    if kind.dropout:
        fields["dropout"] = (float, Field(default=0.0, ge=0, lt=1))
    Params = create_model(f"{name}_Params", __config__=ConfigDict(extra="forbid", frozen=True), **fields)
    how = {
        "merge": "folded into plain weights",
        "native": "left as an adapter that every engine reads",
        "hf": "left as an adapter that only the engine `hf` reads",
    }[kind.serving]
    start = "equals the base" if kind.start == "base" else "differs from the base by its random start"
    checks = [
        "peft's own layers",
        "starts from the base" if kind.start == "base" else "distance of the start",
        *(["numerical gradient"] if name not in OWN_GRADIENT else []),
        "served as trained" if kind.serving == "hf" else "folding",
    ]
    note = " On a tiny model folding moves logits by less than 5e-6." if kind.serving == "merge" else ""
    body = {
        "__doc__": f"{kind.about} {kind.paper or 'peft 0.21'}.\n\nUntrained, it {start}. When done, it is {how}.{note}",
        "__module__": __name__,
        "name": name,
        "paper": kind.paper,
        "verified": "; ".join(checks),
        "kind": kind,
        "artifact": "full" if kind.serving == "merge" else "adapter",
        "engine": "hf" if kind.serving == "hf" else "",
        "Params": Params,
        "knobs": dict(kind.knobs),
        "later": dict(kind.later),
        **_EXTRA.get(name, {}),
    }
    return type(name, (Peft,), body)


def _field(name: str, default: Any) -> tuple[Any, Any]:
    """Type and bounds of a parameter, from its default: a count is above zero unless its default is zero."""
    if isinstance(default, bool):
        return bool, default
    if name in _CHOICES:
        return _CHOICES[name], default
    if name in _SHARES:
        return float, Field(default=default, **_SHARES[name])
    if isinstance(default, int) and default > 0:
        return int, Field(default=default, gt=0)
    if isinstance(default, (int, float)):
        return type(default), Field(default=default, ge=0)
    return (tuple[int, ...], default) if default == () else (str | tuple[str, ...], default)


def __getattr__(name: str) -> type[Peft]:
    """`harness.methods.peft_family:dora` is the class of the row `dora`."""
    if name not in TYPES:
        raise AttributeError(f"no PEFT type is called {name}")
    return method(name)
