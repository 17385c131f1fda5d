"""`ppo`: sampled answers judged token by token against what a critic expected."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from harness.methods.base import Method, Term

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

    from harness.training.context import Context
    from harness.training.rollouts import Rolls
    from harness.training.tokens import Tokens


class Params(BaseModel):
    """n: answers a prompt.  temperature, top_p, max_tokens: of sampling.  refresh: steps between those of the weights
    that sample.

    epsilon: the ratio is clipped to 1 - epsilon .. 1 + epsilon, and a value to its old one plus or minus value_clip.
    value: weight of the critic's loss.  gamma, lam: of generalised advantage estimation.  kl: of the penalty for
    leaving the reference; 0 runs none.  whiten: advantages of a step get mean 0 and deviation 1.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    n: int = Field(default=4, ge=1)
    temperature: float = Field(default=1.0, gt=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    max_tokens: int = Field(default=256, ge=1)
    refresh: int = Field(default=1, ge=1)
    epsilon: float = Field(default=0.2, gt=0, lt=1)
    value_clip: float = Field(default=0.2, gt=0)
    value: float = Field(default=0.1, ge=0)
    gamma: float = Field(default=1.0, gt=0, le=1)
    lam: float = Field(default=0.95, ge=0, le=1)
    kl: float = Field(default=0.05, ge=0)
    whiten: bool = True


class PPO(Method):
    """Proximal Policy Optimization, arXiv 1707.06347, for language as in arXiv 2203.02155.

    r_t = -kl (log p - log p_ref), and the answer's reward at its last token. d_t = r_t + gamma V_{t+1} - V_t,
    A_t = d_t + gamma lam A_{t+1}, returns = A + V. Policy loss a token: -min(rho A, clip(rho) A); critic's:
    value / 2 max((V - returns)^2, (clipped V - returns)^2); both are means over the tokens of a step. Shapes: all [N].
    V is linear in the last hidden state before a token, without a gradient into the model.

    Deviations: the papers' critic is a model of its own, here one layer, which starts at zero and is dropped at the
    end. One pass over each batch, as everywhere in this harness. A cut answer counts as ended. p_old is the engine's.
    kl and value are what TRL has; the papers' coefficients depend on the task.
    """

    name: ClassVar[str] = "ppo"
    paper: ClassVar[str] = "arXiv 1707.06347"
    verified: ClassVar[str] = "worked examples of GAE; the first update; advantages of zero give a gradient of zero"
    family: ClassVar[str] = "rl"
    Params: ClassVar[type[BaseModel]] = Params
    knobs: ClassVar[dict[str, tuple[float, float]]] = {"epsilon": (0.1, 0.4), "kl": (0.0, 0.2), "lam": (0.9, 1.0)}

    n: int
    temperature: float
    top_p: float
    max_tokens: int
    refresh: int
    epsilon: float
    value_clip: float
    value: float
    gamma: float
    lam: float
    kl: float
    whiten: bool

    def __init__(self, **params: Any) -> None:
        super().__init__(**params)
        names = ("n", "temperature", "top_p", "max_tokens")
        self.rollouts = {**{name: getattr(self, name) for name in names}, "every": self.refresh}
        self.needs = frozenset({"generator", "ref"} if self.kl else {"generator"})

    def wrap(self, model: Module, ctx: Context) -> Module:
        from torch import nn

        model.critic = nn.Linear(int(model.config.hidden_size), 1)
        nn.init.zeros_(model.critic.weight)
        nn.init.zeros_(model.critic.bias)
        return model

    def unwrap(self, model: Module, ctx: Context) -> Module:
        del model.critic
        return model

    def values(self, tok: Tokens, ctx: Context) -> Tensor:
        """What the critic expects before each token, [N]."""
        critic: Any = ctx.model.critic
        found: Tensor = critic(tok.hidden.detach().float())[:, 0].float()
        return found

    def advantage(self, rolls: Rolls, ctx: Context) -> dict[str, Tensor]:
        import torch

        with torch.no_grad():
            value = self.values(rolls, ctx)
            paid = torch.zeros_like(value)
            if self.kl:
                drift = rolls.logp - rolls.ref.logp
                paid -= self.kl * drift
                ctx.log_mean(drift=drift)
            found = estimate(paid, value, rolls["reward"], rolls.row, self.gamma, self.lam)
        returns = found + value
        if self.whiten:
            found = (found - found.mean()) * (found.var(unbiased=False) + 1e-8).rsqrt()
        return {"advantage": found, "returns": returns, "value_old": value}

    def loss(self, tok: Tokens, ctx: Context) -> dict[str, Term]:
        a, returns, old, weight = tok["advantage"], tok["returns"], tok["value_old"], tok.weight
        ratio, value = (tok.logp - tok["old"]).exp(), self.values(tok, ctx)
        near = old + (value - old).clamp(-self.value_clip, self.value_clip)
        policy = -(a * ratio).minimum(a * ratio.clamp(1 - self.epsilon, 1 + self.epsilon))
        critic = (value - returns).square().maximum((near - returns).square())
        count = (weight != 0).float()
        return {
            "policy": Term(weight * policy, count),
            "critic": Term(weight * critic, count, scale=self.value / 2),
        }


def estimate(paid: Tensor, value: Tensor, reward: Tensor, row: Tensor, gamma: float, lam: float) -> Tensor:
    """Advantages [N]. paid, value [N]: rewards of tokens and what was expected before them.  reward [R]: of the whole
    answers, paid at their last tokens.  row [N]: the answer that each token is in."""
    import torch

    found = torch.zeros_like(value)
    later = after = 0.0
    rows, told, values, given = row.tolist(), paid.tolist(), value.tolist(), reward.tolist()
    for t in reversed(range(len(rows))):
        if t + 1 == len(rows) or rows[t + 1] != rows[t]:
            told[t] += given[rows[t]]
            later = after = 0.0
        later = told[t] + gamma * after - values[t] + gamma * lam * later
        found[t], after = later, values[t]
    return found
