"""`grao`: groups of sampled answers and the row's own answer in one advantage-weighted likelihood."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from harness.methods.base import Method, Term

if TYPE_CHECKING:
    from torch import Tensor

    from harness.training.context import Context
    from harness.training.rollouts import Rolls
    from harness.training.tokens import Tokens

FLAT = 1e-6  # a standard deviation below this says nothing


class Params(BaseModel):
    """n, temperature, top_p, max_tokens: of sampling.  refresh: steps between refreshes of the weights that sample.

    beta: weight of imitation.  lam: of the difference between exploration and imitation.
    adv_group: whether the row's own answer is in the pool of mean and deviation, `joint`, or only the samples are.
    clamp_ref_adv: `relu` keeps the own answer's advantage from going below zero.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    n: int = Field(default=8, ge=2)
    temperature: float = Field(default=0.7, gt=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    max_tokens: int = Field(default=256, ge=1)
    refresh: int = Field(default=1, ge=1)
    beta: float = Field(default=0.5, ge=0)
    lam: float = Field(default=0.6, ge=0)
    adv_group: Literal["joint", "samples"] = "joint"
    clamp_ref_adv: Literal["none", "relu"] = "none"


class GRAO(Method):
    """Group Relative Alignment Optimization ("Learning to Align, Aligning to Learn"), arXiv 2508.07750.

    R_i = score(o_i) - score(y) of sampled answers o_i and the row's own answer y, so R_y = 0; A = (R - mean) / std with
    the population's deviation; ell(s) = the mean log-probability of an answer's tokens. A prompt is worth
    J = mean_i A_i ell(o_i) + beta A_y ell(y) + lam mean_i A_i (ell(o_i) - ell(y)), and the loss is -mean J.
    Coefficients c_i = A_i (1 + lam) / n and c_y = beta A_y - lam mean_i A_i; loss = -sum c_k ell_k. Shapes: c [R].
    No ratio, no clipping of one, no reference model. A prompt whose rewards do not differ (std below 1e-6) adds nothing
    to J and is one of those that J is the mean of, as in GRPO; `skipped` is the share of them. The curve also has
    `own_below`, the share of prompts of A_y < 0 before any clamping, and `ell_own_min`, the least ell(y) of a step.

    Deviations and readings: the printed formula leaves open whether y is in the pool (`adv_group`; `joint` keeps
    imitation defined where every sample loses alike). R as a difference of scores is ours, for answers that can be
    checked; a judge is another member's `reward`, which gives y itself 0. max_tokens: 2048 in the paper.
    A negative A_y pushes y down without a bound, as published; `clamp_ref_adv` is ours. UNVERIFIED: the paper's value
    of gradient clipping, which is the matrix's `clip`.
    """

    name: ClassVar[str] = "grao"
    paper: ClassVar[str] = "arXiv 2508.07750"
    verified: ClassVar[str] = "worked examples; its identities; advantages of zero give a gradient of zero"
    family: ClassVar[str] = "rl"
    Params: ClassVar[type[BaseModel]] = Params
    knobs: ClassVar[dict[str, tuple[float, float]]] = {"beta": (0.1, 1.0), "lam": (0.0, 1.0)}

    n: int
    temperature: float
    top_p: float
    max_tokens: int
    refresh: int
    beta: float
    lam: float
    adv_group: str
    clamp_ref_adv: str
    needs = frozenset({"generator"})

    def __init__(self, **params: Any) -> None:
        super().__init__(**params)
        names = ("n", "temperature", "top_p", "max_tokens")
        self.rollouts = {**{name: getattr(self, name) for name in names}, "every": self.refresh, "reference": True}

    def advantage(self, rolls: Rolls, ctx: Context) -> dict[str, Tensor]:
        """`advantage`: c.  `standard`: A."""
        c, standard = (rolls["reward"].new_zeros(rolls.R) for _ in range(2))
        own, group = rolls["reference"] == 1, rolls["group"]
        skipped, below = [], []
        for k in group.unique():
            drawn, y = (group == k) & ~own, (group == k) & own
            r = rolls["reward"][drawn] - rolls["reward"][y]
            a, a_y = self.standardised(r)
            standard[drawn], standard[y] = a, a_y
            c[drawn] = a * (1 + self.lam) / len(a)
            c[y] = self.beta * a_y - self.lam * a.mean()
            skipped.append(float(not a.any()))
            below.append(float(bool(a.any()) and float(r.mean()) > 0))  # whatever `clamp_ref_adv` makes of it
        ctx.log(skipped=sum(skipped) / len(skipped), own_below=sum(below) / len(below))
        return {"advantage": c, "standard": standard}

    def standardised(self, r: Tensor) -> tuple[Tensor, Tensor]:
        """Rewards of a group's samples, [n] -> (their advantages [n], that of the row's own answer)."""
        pool = r.new_zeros(len(r) + 1) if self.adv_group == "joint" else r.clone()
        pool[: len(r)] = r
        spread = pool.std(unbiased=False)
        if float(spread) < FLAT:
            return r * 0, r.new_zeros(())
        a_y = -pool.mean() / spread
        return (r - pool.mean()) / spread, a_y.clamp(min=0) if self.clamp_ref_adv == "relu" else a_y

    def loss(self, tok: Tokens, ctx: Context) -> Term:
        ell, own, c, a = tok.row_mean(tok.logp), tok["reference"], tok["advantage"], tok["standard"]
        said = ell.detach() * (self.n + 1)  # a mean over all answers of this is one of sums over prompts
        sampled, weight = a * (1 - own) / self.n, self.beta * a * own
        rest = self.lam * sampled + (c - weight) * own
        ctx.log_mean(exploration=-sampled * said, imitation=-weight * said, regulariser=-rest * said)
        mine = ell.detach()[own == 1]
        ctx.log_mean(ell_own=mine)
        if len(mine):
            ctx.log(ell_own_min=min(ctx.logged.get("ell_own_min", math.inf), float(mine.min())))
        return Term(-c * ell, own)
