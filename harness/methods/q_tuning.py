"""`q_tuning`: of every pool of rows, train on those the model gets confidently wrong or is unsure of yet gets right.

Rows are chosen by error and by uncertainty, then noisy tokens of the wrong ones are left out of the loss. What is
dropped is never trained on, and the host refills the batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from harness.errors import Refused
from harness.methods.base import Method, overrides
from harness.methods.facts import ModelFacts

if TYPE_CHECKING:
    from torch import Tensor

    from harness.training.context import Context
    from harness.training.tokens import Tokens


class Params(BaseModel):
    """rows: share of a pool that is kept, one row at least.  tokens: share of answer tokens that is kept of a row that
    is confidently wrong.  lam: weight of the neighbours in a token's score.  pool: rows compared at once, at least; a
    pool is whole batches.  iterations: halvings in the search for the thresholds.

    inclusive: a row at a threshold is beyond it.  top_up: rows added when the two corners hold too few count as wrong
    or unsure by the side they lean to ("side"), or all as "wrong" or as "unsure".  excess: when the corners hold too
    many, "drop" the ones nearest to neither, or "keep" all.  edge: a first or last token counts itself as its missing
    neighbour ("own"), or the other neighbour twice ("mirror").  token_order: whether tokens of low or of high score
    are kept.  token_prune_mode: pruned tokens only leave the loss ("loss_mask") or the input as well ("drop_inputs").
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    rows: float = Field(default=0.25, gt=0, le=1)
    tokens: float = Field(default=0.7, gt=0, le=1)
    lam: float = Field(default=0.5, ge=0, le=1)
    pool: int = Field(default=8, gt=0)
    iterations: int = Field(default=10, gt=0)
    inclusive: bool = True
    top_up: Literal["side", "wrong", "unsure"] = "side"
    excess: Literal["drop", "keep"] = "drop"
    edge: Literal["own", "mirror"] = "own"
    token_order: Literal["low", "high"] = "low"
    token_prune_mode: Literal["loss_mask", "drop_inputs"] = "loss_mask"


class QTuning(Method):
    """Q-Tuning: joint pruning of rows and tokens on the plane of error and uncertainty, arXiv 2509.23873.

    A pool of rows is scored by the model as it is now, without gradient. For a row with answer tokens T:
    PPL = exp(mean over T of nll), Ent = mean over T of the entropy. The g lowest and the g highest quantiles of both
    bound four corners, of which two are kept: wrong (PPL high, Ent low) and unsure (PPL low, Ent high). g is bisected
    in 0 to 0.49 for the share `rows` of the pool. With floor(rows x pool) rows to keep, missing ones are taken by
    |hat(PPL) - hat(Ent)|, hat being min-max over the pool, largest first. Of a wrong row the floor(tokens x |T|) tokens
    (one at least) of lowest s_i = (1 - lam) PPL_i + lam (PPL_{i-1} + PPL_{i+1}) keep weight 1, neighbours within T; of
    an unsure row all do. `pick` gives weights [loss tokens]. Equal scores: the earlier row or token is kept.

    Defaults: lam and the pool (a device's batch) are the paper's; its shares are 0.0625 to 0.5 of rows and 0.5 or 0.7
    of tokens. UNVERIFIED, since no code is out: `inclusive`, `top_up`, `excess`, `edge`, `token_prune_mode`.
    `token_order`: the paper's algorithm reads as if tokens of high score were kept, its figures and ablations say low.
    rows = tokens = 1 is `sft`, and scores nothing.

    Deviations: the host refills, so every step has at least its batch of rows, and more are read to fill it; in the
    paper steps shrink instead. The paper trains LoRA; here any.
    The curve has `wrong` and `unsure`, how many of the pool's rows the corners held, as shares.
    """

    name: ClassVar[str] = "q_tuning"
    paper: ClassVar[str] = "arXiv 2509.23873"
    verified: ClassVar[str] = "worked examples; keeping all equals `sft`; rows are scored as by the plain model"
    family: ClassVar[str] = "selection"
    Params: ClassVar[type[BaseModel]] = Params
    knobs: ClassVar[dict[str, tuple[float, float]]] = {"rows": (0.125, 0.5), "tokens": (0.5, 1.0), "lam": (0.0, 1.0)}

    later: ClassVar[dict[str, str]] = {"token_prune_mode": "loss_mask"}

    rows: float
    tokens: float
    lam: float
    iterations: int
    inclusive: bool
    top_up: str
    excess: str
    edge: str
    token_order: str
    token_prune_mode: str

    @property
    def drops(self) -> bool:  # type: ignore[override]
        return self.token_prune_mode == "drop_inputs"

    def check(self, model: ModelFacts, stack: Sequence[Method]) -> None:
        other = next((m for m in stack if overrides(m, "token_weight")), None)
        if other and self.tokens < 1:
            raise Refused(
                f"`q_tuning` and `{other.name}` both choose among the tokens of a row",
                why="the one would rank what the other has thinned out, which neither paper describes",
                todo="set q_tuning's `tokens` to 1, or keep one of them",
            )

    def pick(self, tok: Tokens, ctx: Context) -> Tensor | None:
        import torch

        if self.rows == self.tokens == 1:
            return None
        nll, entropy, live = -tok.logp.double(), tok.entropy, tok.weight != 0
        pieces = [((tok.row == r) & live).nonzero()[:, 0] for r in tok.row[live].unique()]
        ppl = [float(nll[i].mean().exp()) for i in pieces]
        ent = [float(entropy[i].mean()) for i in pieces]
        _, wrong, unsure = corners(ppl, ent, self.rows, self.iterations, inclusive=self.inclusive)
        ctx.log_mean(wrong=torch.tensor(wrong), unsure=torch.tensor(unsure))
        weights = torch.zeros_like(nll)
        for r, trimmed in self.keep(ppl, ent, wrong, unsure):
            weights[pieces[r]] = self.trim(nll[pieces[r]].exp()) if trimmed else 1.0
        return weights

    def keep(
        self, ppl: Sequence[float], ent: Sequence[float], wrong: Sequence[bool], unsure: Sequence[bool]
    ) -> list[tuple[int, bool]]:
        """The rows that are kept, and whether each is to lose tokens."""
        lean = [p - e for p, e in zip(_hat(ppl), _hat(ent), strict=True)]
        inside = [a or b for a, b in zip(wrong, unsure, strict=True)]
        order = sorted(range(len(ppl)), key=lambda r: (-inside[r], -abs(lean[r])))
        wanted = max(1, _floor(self.rows * len(ppl)))
        if self.excess == "keep":
            wanted = max(wanted, sum(inside))

        def trimmed(r: int) -> bool:
            if inside[r]:
                return wrong[r]
            return lean[r] >= 0 if self.top_up == "side" else self.top_up == "wrong"

        return [(r, trimmed(r)) for r in order[:wanted]]

    def trim(self, ppl: Tensor) -> Tensor:
        """1.0 for the tokens of one row that are kept, else 0.0."""
        import torch

        kept = max(1, _floor(self.tokens * len(ppl)))
        score = self.score(ppl)
        order = score.argsort(descending=self.token_order == "high", stable=True)
        return torch.zeros_like(ppl).index_fill(0, order[:kept], 1.0)

    def score(self, ppl: Tensor) -> Tensor:
        """A token's own perplexity and its neighbours', so that one hard token among easy ones is no noise."""
        import torch

        first, last = (ppl[:1], ppl[-1:]) if self.edge == "own" else (ppl[:2][-1:], ppl[-2:][:1])
        around = torch.cat([first, ppl[:-1]]) + torch.cat([ppl[1:], last])
        return (1 - self.lam) * ppl + self.lam * around


def corners(
    ppl: Sequence[float], ent: Sequence[float], share: float, iterations: int, *, inclusive: bool
) -> tuple[float, list[bool], list[bool]]:
    """The last quantile that was tried for a share of rows, and which rows are wrong and which unsure there."""
    low, high = 0.0, 0.49
    for _ in range(iterations):
        g = (low + high) / 2
        wrong, unsure = at_quantile(ppl, ent, g, inclusive=inclusive)
        if sum(map(max, wrong, unsure)) < share * len(ppl):
            low = g
        else:
            high = g
    return g, wrong, unsure


def at_quantile(
    ppl: Sequence[float], ent: Sequence[float], g: float, *, inclusive: bool
) -> tuple[list[bool], list[bool]]:
    """Which rows are wrong (high perplexity, low entropy) and which unsure, with thresholds at g and 1 - g."""
    (ppl_low, ppl_high), (ent_low, ent_high) = ((_at(x, g), _at(x, 1 - g)) for x in (ppl, ent))

    def beyond(a: float, b: float) -> bool:
        return a > b or (inclusive and a == b)

    pairs = list(zip(ppl, ent, strict=True))
    wrong = [beyond(p, ppl_high) and beyond(ent_low, e) for p, e in pairs]
    return wrong, [beyond(ppl_low, p) and beyond(e, ent_high) for p, e in pairs]


def _at(values: Sequence[float], g: float) -> float:
    """The smallest value with a share g of all at or below it."""
    return sorted(values)[math.ceil(round(g * len(values), 9)) - 1]


def _hat(values: Sequence[float]) -> list[float]:
    low, high = min(values), max(values)
    return [(v - low) / (high - low) if high > low else 0.0 for v in values]


def _floor(x: float) -> int:
    return math.floor(round(x, 9))  # 0.29 * 100 is a little less than 29
