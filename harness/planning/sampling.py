"""Which parameters a search tries next: Optuna's samplers, asked in turn and told what came of it.

A search is a pure function of its seed and of what it was told, so one that goes on after a kill asks again from the
start, is told what is known, and comes to the same point.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal

from harness.errors import MissingExtra
from harness.planning.tuning import Dimension, Value

Outcome = Literal["ok", "diverged", "failed"]
INSTALL = "pip install '.[tune]'"


def identity(name: str, trials: int) -> dict[str, Any]:
    """What of a sampler is in a search's key. MissingExtra without Optuna; imports nothing."""
    try:
        found = {"name": name, "optuna": version("optuna")}
    except PackageNotFoundError:
        raise MissingExtra("optuna", "`tune`", INSTALL) from None
    return {**found, "startup": startup(trials)} if name == "tpe" else found


def startup(trials: int) -> int:
    """Points that TPE draws at random before it uses what it knows: Optuna's ten, of few trials half of them."""
    return min(10, max(1, trials // 2))


class Search:
    """One search. The first point is the default of every dimension."""

    def __init__(self, space: Mapping[str, Dimension], name: str, seed: int, trials: int) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._optuna, self._space = optuna, {n: _distribution(optuna, d) for n, d in space.items()}
        sampler: Any = (
            optuna.samplers.TPESampler(seed=seed, n_startup_trials=startup(trials))
            if name == "tpe"
            else optuna.samplers.RandomSampler(seed=seed)
        )
        self._study = optuna.create_study(sampler=sampler)
        self._study.enqueue_trial({n: d.default for n, d in space.items()})
        self._trial: Any = None

    def ask(self) -> dict[str, Value]:
        """The next point."""
        self._trial = self._study.ask(self._space)
        return dict(self._trial.params)

    def tell(self, outcome: Outcome, score: float | None) -> None:
        """What came of the point asked for last; less is better. To the sampler, a divergence is worse than any score
        and a failure says nothing."""
        state = self._optuna.trial.TrialState
        ended = {"ok": state.COMPLETE, "diverged": state.PRUNED, "failed": state.FAIL}[outcome]
        self._study.tell(self._trial, score if outcome == "ok" else None, state=ended)


def _distribution(optuna: Any, d: Dimension) -> Any:
    kinds = optuna.distributions
    return (
        kinds.IntDistribution(d.low, d.high, log=d.log)
        if d.whole
        else kinds.FloatDistribution(d.low, d.high, log=d.log)
    )
