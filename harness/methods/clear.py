"""`clear`: a model cleans the data it will learn from, by how sure it is of each answer. Texts are compared by NLI."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, field_validator

from harness.errors import HarnessError
from harness.methods.base import Method, Row, Stage
from harness.methods.clear_steps import (
    ALL,
    Settings,
    Ways,
    agree_by_text,
    corrected,
    filtered,
    grade_by_text,
    stages,
)
from harness.methods.confidence import agreement
from harness.methods.nli import check_folder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.training.context import Context


class Params(Settings):
    """Those of `Settings`, and
    nli: folder (absolute) of a sequence classification model that knows contradiction.
    span: words of an answer that are shown to it."""

    nli: str = ""
    span: int = Field(default=256, ge=1)

    @field_validator("nli")
    @classmethod
    def _is_a_model(cls, value: str) -> str:
        if value and not Path(value).is_absolute():
            raise ValueError("give the folder's absolute path")
        if value:
            try:
                check_folder(Path(value))
            except HarnessError as error:
                raise ValueError(f"{error.what}{f' ({error.why})' if error.why else ''}") from error
        return value


class Clear(Method):
    """Automated Data Curation for Robust Language Model Fine-Tuning, arXiv 2403.12776, with the confidence of
    BSDetector, arXiv 2308.16175.

    C(x, y) = beta O + (1 - beta) S for each row's answer y to x. O is the mean over k sampled answers y_i of
    alpha s_i + (1 - alpha) r_i, where s_i = 1 - (P_contradiction(y, y_i) + P_contradiction(y_i, y)) / 2 with x before
    both texts, and r_i = 1 if y and y_i are equal. S is the mean of two grades that the model gives y: correct 1,
    incorrect 0, not sure or unreadable 1/2. Shapes: samples [rows, k], grades [rows, 2].
    Auto-Filter: the rows of C above its median train the base, stage `filter`. Auto-Correct: that model answers the
    other rows, greedily; the base compares old and new, and p is the same confidence in the verdict that the new one
    is better; above eta it replaces the old answer, at eta or below the row stays out. Stage `correct` trains the base
    again on what results. The base scores and judges, the tuned model only proposes. The budget is shared equally by
    the stages. The ledgers of the data step and of stage `correct` have action, c, O, S and p of every row, and the
    old answer where it was replaced.

    UNVERIFIED as the paper's: `k` 5, `temperature` 1, `alpha` 0.8, `beta` 0.7; `swap_order`, both orders of a pair and
    their mean; `scope`, whether new answers are tried for all rows or for those of low confidence only. `gamma`
    (median) and `eta` (0.8) are the paper's; of equal scores `tie_rule` decides, and its half is ours. A row of which
    no sample can be read counts as the median. Wordings of all prompts are ours.

    Deviations: verdicts are letters, so they agree if they are equal, and no NLI is asked. NLI sees the first `span`
    words of both answers, and loses the beginning of x where it is too long. An empty, unfinished or equal new answer
    changes nothing. Learning rate and budget are the matrix's (the paper: Adam, 1e-5). The step's key has the folder of
    the NLI model, not its content. The ablation by a direct rating from 1 to 5 is not offered.
    """

    name: ClassVar[str] = "clear"
    paper: ClassVar[str] = "arXiv 2403.12776"
    verified: ClassVar[str] = "worked example; planted noise; gamma -1 without rounds equals `sft`"
    family: ClassVar[str] = "curation"
    Params: ClassVar[type[Settings]] = Params
    knobs: ClassVar[dict[str, tuple[float, float]]] = {"eta": (0.5, 0.95), "beta": (0.5, 0.9)}
    needs = frozenset({"answer", "generator", "nli"})

    params: Settings
    nli: str
    span: int

    @property
    def sets(self) -> frozenset[str]:  # type: ignore[override]
        return frozenset({ALL} if self.params.rounds else ())

    def curate(self, rows: list[Row], ctx: Context) -> list[Row] | dict[str, list[Row]]:
        return filtered(rows, self.params, self._ways(), ctx)

    def stages(self, ctx: Any) -> list[Stage]:
        return stages(self.params, self.correct)

    def correct(self, ctx: Context) -> list[Row]:
        """The rows of the second training."""
        return corrected(self.params, self._ways(), ctx)

    def _ways(self) -> Ways:
        return Ways(self._similar, grade_by_text, agree_by_text)

    def _similar(self, compared: Sequence[tuple[str, str, str]], ctx: Context) -> list[float]:
        pairs = []
        for x, y, sample in compared:
            one, other = (f"{x}\n{cut(text, self.span)}" for text in (y, sample))
            pairs += [(one, other), (other, one)]
        found = ctx.contradiction(pairs, self.nli)
        return [agreement(*found[i : i + 2]) for i in range(0, len(found), 2)]


def cut(text: str, words: int) -> str:
    """The first words of a text; all of it, unchanged, where there are no more."""
    parts = text.split()
    return text if len(parts) <= words else " ".join(parts[:words])
