"""`mft`: masked thought, fine-tuning on answers some of whose tokens the model does not get to read.

Only what the model reads is changed: targets, loss and evaluation are those of `sft`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from harness.errors import Refused
from harness.methods.base import NO_TARGET, Method
from harness.methods.facts import ModelFacts

if TYPE_CHECKING:
    from torch import Tensor

    from harness.training.context import Context
    from harness.training.sequences import Seq


class Params(BaseModel):
    """p: the share of answer tokens that is hidden, once it has risen to it over the first `warmup` of the budget.

    noise: what stands in their place: one "mask" token, or a "random" token of the vocabulary.  mask_token: which; by
    default the tokenizer's own mask token, else a reserved one that no role and no template uses.  any_id: random
    tokens may be special ones.  drop_attention: hidden tokens are also hidden from attention.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    p: float = Field(default=0.2, ge=0, le=1)
    warmup: float = Field(default=2 / 3, ge=0)
    noise: Literal["mask", "random"] = "mask"
    mask_token: str | None = None
    any_id: bool = False
    drop_attention: bool = False


class MFT(Method):
    """Masked Thought: Simply Masking Partial Reasoning Steps Can Improve Mathematical Reasoning Learning of Language
    Models, arXiv 2403.02178.

    loss = -sum_t log p(w_t | v_<t), where v_i is noise with probability p(step) if token i of the row is an answer
    token, and w_i otherwise; prompts stay as they are. p(step) = min(p, p step / (warmup steps + 1)), by the optimiser
    step. Every token drawn anew each time a row is seen. `collate` changes `ids` [length] alone: every answer token
    remains a target, one whose own input is hidden included.

    Defaults: the paper takes p = 0.4 for data like GSM8K and 0.1 to 0.2 where formulas are dense; 0.2 is the default
    here. It trains for more epochs than `sft` (10 to 3, 5 to 3), so its budget should be 2 to 3 times that of `sft`.

    Deviations: the paper adds a token to the vocabulary, here one that is there already is taken (`mask_token`), so the
    artifact keeps its shape and a frozen embedding still means something; never the end token, which would teach that
    text goes on after it. The released random noise may be any id, here it is none of the special ones unless `any_id`.
    Where the budget is in tokens, the number of steps is estimated from the share of it that is spent.
    """

    name: ClassVar[str] = "mft"
    paper: ClassVar[str] = "arXiv 2403.02178"
    verified: ClassVar[str] = "shares of the paper's schedule; share 0 equals `sft`"
    family: ClassVar[str] = "corruption"
    Params: ClassVar[type[BaseModel]] = Params
    knobs: ClassVar[dict[str, tuple[float, float]]] = {"p": (0.05, 0.5)}

    p: float
    warmup: float
    noise: str
    mask_token: str | None
    any_id: bool
    drop_attention: bool

    @property
    def needs(self) -> frozenset[str]:  # type: ignore[override]
        return frozenset({"mask"}) if self.drop_attention else frozenset()

    def check(self, model: ModelFacts, stack: Sequence[Method]) -> None:
        if self.p and self.noise == "mask" and model.tokenizer:
            mask_id(model.tokenizer, self.mask_token)

    def collate(self, seqs: list[Seq], ctx: Context) -> list[Seq]:
        if self.p == 0:
            return seqs
        fillers = self.fillers(ctx.tokenizer)
        rate = self.rate(ctx.step, ctx.progress)
        ctx.log(mask_rate=rate)
        return [self.hide(q, rate, fillers, ctx) for q in seqs] if rate else seqs

    def rate(self, step: int, progress: float) -> float:
        """The probability that an answer token is hidden."""
        if not progress:
            return 0.0
        steps = step / progress
        return min(self.p, self.p * step / (steps * self.warmup + 1))

    def hide(self, q: Seq, rate: float, fillers: Tensor, ctx: Context) -> Seq:
        """A sequence with some of its answer tokens replaced."""
        import torch

        size, rng = (len(q.ids),), ctx.rng(f"mft {q.view}", q.row)
        answer = torch.tensor([False, *(t != NO_TARGET for t in q.targets[:-1])])
        hidden = (torch.rand(size, generator=rng, device=rng.device) < rate).cpu() & answer
        drawn = fillers[torch.randint(len(fillers), size, generator=rng, device=rng.device).cpu()]
        masked = q.but(ids=tuple(torch.where(hidden, drawn, torch.tensor(q.ids)).tolist()))
        if not self.drop_attention:
            return masked
        seen = torch.ones(*size, *size, dtype=torch.bool).tril() if q.mask is None else q.mask
        return masked.but(mask=seen & ~hidden)

    def fillers(self, tokenizer: Any) -> Tensor:
        """The ids of which one, each as likely, stands where a token is hidden."""
        import torch

        if self.noise == "mask":
            return torch.tensor([mask_id(tokenizer, self.mask_token)])
        allowed = torch.ones(len(tokenizer), dtype=torch.bool)
        if not self.any_id:
            allowed[[i for i in {*_special(tokenizer), *tokenizer.all_special_ids} if i < len(allowed)]] = False
        return allowed.nonzero()[:, 0]


def mask_id(tokenizer: Any, name: str | None) -> int:
    """The named token; else the tokenizer's mask token; else a special token without a use, one that calls itself
    reserved first; else the pad or unknown token. Never the end token. Refused if there is none.

    tokenizer: of transformers, or what planning knows of one.
    """
    end = tokenizer.eos_token_id
    if name is not None:
        candidates = [tokenizer.get_vocab().get(name)]
    else:
        pad, unknown, special = tokenizer.pad_token_id, tokenizer.unk_token_id, _special(tokenizer)
        used = {tokenizer.bos_token_id, end, pad, unknown}
        free = [i for i, text in special.items() if i not in used and text not in str(tokenizer.chat_template)]
        free.sort(key=lambda i: ("reserved" not in special[i] and "unused" not in special[i], i))
        candidates = [tokenizer.mask_token_id, *free, pad, unknown]
    found = next((i for i in candidates if i is not None and i != end), None)
    if found is None:
        raise Refused(
            f"`mask_token` of `mft` is `{name}`, which is no token of this model, or its end token"
            if name is not None
            else "`mft` finds no token of this model to spare that could stand for a hidden one",
            todo="set `mask_token` to a token of its vocabulary that its data never uses, or `noise: random`",
        )
    return int(found)


def _special(tokenizer: Any) -> dict[int, str]:
    return {i: str(token) for i, token in tokenizer.added_tokens_decoder.items() if token.special}
