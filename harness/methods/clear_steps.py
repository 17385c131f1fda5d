"""The course of CLEAR: score the rows, filter them, let a tuned model propose answers, judge these, correct the rows.

`clear` and `clear_logit` differ in how they compare texts, grade and reach a verdict (`Ways`); the rest is here, as
functions of `ctx`. The base scores and judges, and the model of the stage before proposes. Nothing here trains.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from harness.methods import clear_asking as asking
from harness.methods.base import Row, Stage
from harness.methods.confidence import action, confidence, expected, kept, observed, with_median

if TYPE_CHECKING:
    from harness.engines.base import Response
    from harness.training.context import Context

ALL = "all"  # the set of all rows, for stages of correction
COLUMN = "confidence"  # of the rows in it
DECIMALS = 6  # in columns and ledgers


class Settings(BaseModel):
    """k: samples for each row.  temperature: of the samples.  alpha: weight of similarity against equality.
    beta: weight of agreement against the model's own grades.  new_tokens: of an answer at most.
    reason: samples give reasons and then an answer, which is what is compared.

    gamma: rows above it stay, a number or "median".  tie_rule: at the median, the better "half" or the "strict" test.
    eta: a new answer replaces the old one if it is better with more confidence than this.  scope: rows for which new
    answers are tried, "low_confidence" or "all".  rounds: of correction; 0 leaves the filter alone.
    swap_order: judge a pair in both orders and take the mean.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    k: int = Field(default=5, ge=1)
    temperature: float = Field(default=1.0, gt=0)
    alpha: float = Field(default=0.8, ge=0, le=1)
    beta: float = Field(default=0.7, ge=0, le=1)
    new_tokens: int = Field(default=512, ge=1)
    reason: bool = True
    gamma: float | Literal["median"] = "median"
    tie_rule: Literal["half", "strict"] = "half"
    eta: float = Field(default=0.8, ge=0, le=1)
    scope: Literal["low_confidence", "all"] = "low_confidence"
    rounds: int = Field(default=1, ge=0)
    swap_order: bool = True


class Pair(NamedTuple):
    """A question and an answer to it."""

    x: str
    y: str


class Ways(NamedTuple):
    """similar: s of (x, y, sample), each.  grade: S of pairs.  agree: O of the verdict with that letter, each."""

    similar: Callable[[Sequence[tuple[str, str, str]], Context], list[float]]
    grade: Callable[[Sequence[Pair], Context], list[float]]
    agree: Callable[[Sequence[tuple[str, str]], Settings, Context], list[float]]


@dataclass(frozen=True)
class Score:
    """C, O and S of a row's answer; C and O are None where no sample could be read.  read: samples that could."""

    c: float | None
    o: float | None
    s: float
    read: int

    def shown(self) -> dict[str, float | None]:
        """As ledgers and columns have it."""
        c, o, s = (v if v is None else round(v, DECIMALS) for v in (self.c, self.o, self.s))
        return {"c": c, "O": o, "S": s, "read": self.read}


def stages(settings: Settings, correct: Callable[[Context], list[Row]]) -> list[Stage]:
    """Every stage starts from the base. Without correction it is the one stage that `sft` has."""
    return [Stage(name, rows=correct if i else "train") for i, name in enumerate(_names(settings))]


def _names(settings: Settings) -> list[str]:
    if not settings.rounds:
        return [Stage().name]
    return ["filter", "correct", *(f"correct{i}" for i in range(2, settings.rounds + 1))]


def filtered(rows: list[Row], settings: Settings, ways: Ways, ctx: Context) -> list[Row] | dict[str, list[Row]]:
    """The rows that the base is surer of; and, where they are to be corrected, all rows with their scores."""
    scores = score(rows, settings, ways, ctx)
    stay = kept(with_median({i: s.c for i, s in scores.items()}), settings.gamma, settings.tie_rule)
    for i, s in scores.items():
        ctx.note(i, action=action(i in stay, None, settings.eta), **s.shown())
    train = [row for row in rows if row["id"] in stay]
    if not settings.rounds:
        return train
    return {"train": train, ALL: [{**row, COLUMN: scores[row["id"]].shown()} for row in rows]}


def score(rows: Sequence[Row], settings: Settings, ways: Ways, ctx: Context) -> dict[str, Score]:
    """How sure the base is of every row's answer, by row."""
    requests = [
        asking.answer_request(
            row, reason=settings.reason, temperature=settings.temperature, max_tokens=settings.new_tokens
        )
        for row in rows
    ]
    pairs = [Pair(asking.question(row), asking.target(row)) for row in rows]
    sampled = [
        [found for r in several if (found := asking.answer_part(r.text, reason=settings.reason)) is not None]
        for several in ctx.generate(requests, model="base", n=settings.k)
    ]
    compared = [(p.x, p.y, sample) for p, samples in zip(pairs, sampled, strict=True) for sample in samples]
    similar = iter(ways.similar(compared, ctx))
    grades = ways.grade(pairs, ctx)
    scores = {}
    for row, pair, samples, s in zip(rows, pairs, sampled, grades, strict=True):
        equal = [sample == pair.y.strip() for sample in samples]
        o = observed([next(similar) for _ in samples], equal, settings.alpha)
        c = None if o is None else confidence(o, s, settings.beta)
        scores[row["id"]] = Score(c, o, s, len(samples))
    return scores


def corrected(settings: Settings, ways: Ways, ctx: Context) -> list[Row]:
    """The rows of a stage of correction: kept, with the answer of the stage before in place of theirs, or left out."""
    names = _names(settings)
    model = names[names.index(ctx.stage.name) - 1]
    stay, rows = {row["id"] for row in ctx.rows("train")}, ctx.rows(ALL)
    tried = [row for row in rows if settings.scope == "all" or row["id"] not in stay]
    proposals = propose(tried, model, settings, ctx)
    better = judge([row for row in tried if row["id"] in proposals], proposals, settings, ways, ctx)
    made = []
    for row in rows:
        p = better.get(row["id"])
        done = action(row["id"] in stay, p, settings.eta)
        was = {"was": asking.target(row)} if done == "replace" else {}
        ctx.note(row["id"], action=done, **row[COLUMN], p=p if p is None else round(p, DECIMALS), **was)
        plain = {name: value for name, value in row.items() if name != COLUMN}
        if done == "replace":
            new = {**row["messages"][-1], "content": proposals[row["id"]]}
            plain["messages"] = [*row["messages"][:-1], new]
        if done != "drop":
            made.append(plain)
    return made


def propose(rows: Sequence[Row], model: str, settings: Settings, ctx: Context) -> dict[str, str]:
    """New answers by row, greedy. None where it is empty, cut short, or what the row has already."""
    requests = [asking.answer_request(row, reason=False, max_tokens=settings.new_tokens) for row in rows]
    found = {}
    for row, (said,) in zip(rows, ctx.generate(requests, model=model), strict=True):
        new = said.text.strip()
        if new and said.finish != "length" and new != asking.target(row).strip():
            found[row["id"]] = new
    return found


def judge(
    rows: Sequence[Row], proposals: dict[str, str], settings: Settings, ways: Ways, ctx: Context
) -> dict[str, float]:
    """p by row: how sure the base is that the new answer is better than the row's own."""
    asked = []
    for row in rows:
        x, old, new = asking.question(row), asking.target(row), proposals[row["id"]]
        asked.append((asking.comparison(x, old, new), "B"))
        if settings.swap_order:
            asked.append((asking.comparison(x, new, old), "A"))
    seen = ways.agree(asked, settings, ctx)
    said = ways.grade([Pair(compared, f"{letter} is the better one.") for compared, letter in asked], ctx)
    sure = [confidence(o, s, settings.beta) for o, s in zip(seen, said, strict=True)]
    each = 2 if settings.swap_order else 1
    return {row["id"]: sum(sure[each * i : each * (i + 1)]) / each for i, row in enumerate(rows)}


def grade_by_text(pairs: Sequence[Pair], ctx: Context) -> list[float]:
    """S: the mean of two grades that the base writes."""
    requests = [asking.grade_prompt(x, y, asked) for x, y in pairs for asked in asking.QUESTIONS]
    said = [_value(response) for (response,) in ctx.generate(requests, model="base")]
    return _means(said, len(asking.QUESTIONS))


def grade_by_label(pairs: Sequence[Pair], ctx: Context) -> list[float]:
    """S: the mean value of the grades under the probabilities of their letters, over both questions and all orders."""
    forms = [(asked, order) for asked in asking.QUESTIONS for order in asking.ORDERS]
    requests = [
        asking.grade_prompt(x, y, *form).but(kind="choose", choices=asking.LETTERS) for x, y in pairs for form in forms
    ]
    values = [[asking.GRADES[grade] for grade in order] for _, order in forms]
    said = [
        expected(response.logprobs, values[i % len(forms)])
        for i, response in enumerate(ctx.choose(requests, model="base"))
    ]
    return _means(said, len(forms))


def agree_by_text(asked: Sequence[tuple[str, str]], settings: Settings, ctx: Context) -> list[float]:
    """O of a verdict: the share of the base's sampled verdicts that are the same."""
    requests = [asking.verdict_prompt(compared, temperature=settings.temperature) for compared, _ in asked]
    shares = []
    for several, (_, wanted) in zip(ctx.generate(requests, model="base", n=settings.k), asked, strict=True):
        letters = [asking.letter(response.text) for response in several]
        shares.append(
            sum(found == wanted if found in ("A", "B") else asking.UNREAD for found in letters) / len(letters)
        )
    return shares


def agree_by_label(asked: Sequence[tuple[str, str]], settings: Settings, ctx: Context) -> list[float]:
    """O of a verdict: what that share is on average over samples, the probability of its letter."""
    letters = asking.LETTERS[:2]
    requests = [asking.verdict_prompt(compared).but(kind="choose", choices=letters) for compared, _ in asked]
    return [
        expected(response.logprobs, [float(each == wanted) for each in letters])
        for response, (_, wanted) in zip(ctx.choose(requests, model="base"), asked, strict=True)
    ]


def _value(response: Response) -> float:
    found = asking.letter(response.text)
    return dict(zip(asking.LETTERS, asking.GRADES.values(), strict=True))[found] if found else asking.UNREAD


def _means(values: Sequence[float], each: int) -> list[float]:
    return [sum(values[i : i + each]) / each for i in range(0, len(values), each)]
