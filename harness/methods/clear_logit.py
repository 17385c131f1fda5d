"""`clear_logit`: CLEAR for small models: grades are probabilities of labels, and texts are compared by their tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from harness.methods.base import Method, Row, Stage
from harness.methods.clear_steps import (
    ALL,
    Settings,
    Ways,
    agree_by_label,
    corrected,
    filtered,
    grade_by_label,
    stages,
)
from harness.methods.confidence import token_f1

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.training.context import Context


class Params(Settings):
    """Those of `Settings`; samples are answers without reasons, since small models do not keep to the form."""

    reason: bool = False


class ClearLogit(Method):
    """CLEAR, arXiv 2403.12776 (see `clear`), adapted to models too small to follow its formats.

    C = beta O + (1 - beta) S as in `clear`. In O, s_i is the F1 of the tokens of y and y_i. S is P(correct) +
    P(not sure) / 2, renormalised over the three labels' letters, the mean over two questions and all six orders of the
    labels; choices [12 rows, 3]. In judging a pair, O is the probability of the letter of the new answer among the
    two, which is the expectation of the share of sampled verdicts. No model but the base is needed.

    An adaptation, and marked so in tables. Defaults are those of `clear` (`k` 5, `temperature` 1, `alpha` 0.8, `beta`
    0.7, `swap_order` and `scope` are UNVERIFIED as the paper's), but for `reason`. For a model of 135M parameters 3
    samples of 32 to 128 new tokens are enough.
    """

    name: ClassVar[str] = "clear_logit"
    paper: ClassVar[str] = "arXiv 2403.12776"
    verified: ClassVar[str] = "worked example; planted noise; gamma -1 without rounds equals `sft`"
    family: ClassVar[str] = "curation"
    Params: ClassVar[type[Settings]] = Params
    knobs: ClassVar[dict[str, tuple[float, float]]] = {"eta": (0.5, 0.95), "beta": (0.5, 0.9)}
    needs = frozenset({"answer", "generator"})
    flags = frozenset({"adaptation: answers are compared by shared tokens, not by an NLI model"})

    params: Settings

    @property
    def sets(self) -> frozenset[str]:  # type: ignore[override]
        return frozenset({ALL} if self.params.rounds else ())

    def curate(self, rows: list[Row], ctx: Context) -> list[Row] | dict[str, list[Row]]:
        return filtered(rows, self.params, WAYS, ctx)

    def stages(self, ctx: Any) -> list[Stage]:
        return stages(self.params, self.correct)

    def correct(self, ctx: Context) -> list[Row]:
        """The rows of the second training."""
        return corrected(self.params, WAYS, ctx)


def by_tokens(compared: Sequence[tuple[str, str, str]], ctx: Context) -> list[float]:
    """s of each (x, y, sample): the F1 of the tokens of y and the sample."""
    return [token_f1(y, sample) for _, y, sample in compared]


WAYS = Ways(by_tokens, grade_by_label, agree_by_label)
