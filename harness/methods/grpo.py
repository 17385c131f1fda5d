"""`grpo`: several answers to a prompt are judged against each other; no critic."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from harness.methods.base import Method

if TYPE_CHECKING:
    from torch import Tensor

    from harness.training.context import Context
    from harness.training.rollouts import Rolls
    from harness.training.tokens import Tokens


class Params(BaseModel):
    """n: answers a prompt.  temperature, top_p, max_tokens: of sampling.  refresh: steps between those of the weights
    that sample.

    epsilon, epsilon_high: the ratio is clipped to 1 - epsilon .. 1 + epsilon_high; the second, where it is not given,
    is the first.  beta: weight of the distance to the reference; 0 runs no reference.
    scale: divide rewards by their group's standard deviation, or leave them centred (`none`, arXiv 2503.20783).
    norm: the mean over each answer's tokens and then over answers, as published, or over all tokens of the step.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    n: int = Field(default=8, ge=2)
    temperature: float = Field(default=1.0, gt=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    max_tokens: int = Field(default=256, ge=1)
    refresh: int = Field(default=1, ge=1)
    epsilon: float = Field(default=0.2, gt=0, lt=1)
    epsilon_high: float | None = Field(default=None, gt=0)
    beta: float = Field(default=0.0, ge=0)
    scale: Literal["group", "none"] = "group"
    norm: Literal["rows", "tokens"] = "rows"


class GRPO(Method):
    """Group Relative Policy Optimization (DeepSeekMath), arXiv 2402.03300.

    A_i = (r_i - mean r) / (std r + 1e-4) within the answers to one prompt (std with n - 1, as TRL has it), the same at
    every token. Loss a token: -min(rho A, clip(rho) A) + beta (e^d - d - 1), rho = p / p_old, d = log p_ref - log p.
    A batch is a number of prompts; its answers are trained on once, in one step. Shapes: tok.logp [N], advantages [N].

    Deviations: p_old is what the engine said when it sampled, in its own precision and with weights up to `refresh` - 1
    steps old, so that clipping corrects for both; probabilities are those without temperature and `top_p`. beta is 0.04
    in the paper, 0 here as in later practice.
    """

    name: ClassVar[str] = "grpo"
    paper: ClassVar[str] = "arXiv 2402.03300"
    verified: ClassVar[str] = "TRL's loss and gradients to 1e-5; advantages of zero give a gradient of zero"
    family: ClassVar[str] = "rl"
    Params: ClassVar[type[BaseModel]] = Params
    knobs: ClassVar[dict[str, tuple[float, float]]] = {"epsilon": (0.1, 0.4), "beta": (0.0, 0.1)}

    n: int
    temperature: float
    top_p: float
    max_tokens: int
    refresh: int
    epsilon: float
    epsilon_high: float | None
    beta: float
    scale: str
    norm: str

    def __init__(self, **params: Any) -> None:
        super().__init__(**params)
        names = ("n", "temperature", "top_p", "max_tokens")
        self.rollouts = {**{name: getattr(self, name) for name in names}, "every": self.refresh}
        self.needs = frozenset({"generator", "ref"} if self.beta else {"generator"})

    def advantage(self, rolls: Rolls, ctx: Context) -> Tensor:
        reward, group = rolls["reward"], rolls["group"]
        same = (group[:, None] == group[None]).to(reward.dtype)
        size = same.sum(1)
        centred = reward - (same @ reward) / size
        spread = ((same @ centred.square()) / (size - 1)).sqrt()
        ctx.log_mean(no_contrast=(spread == 0).float())
        return centred / (spread + 1e-4) if self.scale == "group" else centred

    def loss(self, tok: Tokens, ctx: Context) -> Tensor:
        ratio, advantage = (tok.logp - tok["old"]).exp(), tok["advantage"][tok.row]
        high = self.epsilon if self.epsilon_high is None else self.epsilon_high
        clipped = ratio.clamp(1 - self.epsilon, 1 + high)
        ctx.log_mean(clipped=(ratio != clipped).float())
        loss = -(ratio * advantage).minimum(clipped * advantage)
        if self.beta:
            d = tok.ref.logp - tok.logp
            loss = loss + self.beta * (d.exp() - d - 1)
        return loss
