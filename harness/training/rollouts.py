"""On-policy batches: prompts from the rows, answers from the model that trains, rewards and advantages as columns.

What an engine sampled is trained on as it is: prompt ids and generated ids joined, never tokenised again. A batch is a
function of seed, stage, step and weights, so a resumed run draws the same. This file computes no loss; who answers is
`ctx.generator`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from harness.engines.base import Request, Response
from harness.errors import HarnessError, StepFailed
from harness.methods.base import NO_TARGET, Row, owner
from harness.methods.sampling import Sampling
from harness.training.sequences import NOT_COLUMNS, PAIR, Seq, encode_row
from harness.training.tokens import Tokens

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.training.context import Context

NONE = float("nan")  # the old log-probability of a token that nobody sampled


class Rolls(Tokens):
    """Sampled sequences, as `reward` and `advantage` see them: `Tokens` without a gradient, whose passes are billed.

    text: the answers.  source: the row of each.  finish: "stop" or "length", "" for a row's own answer.
    Columns: `old` [N], log-probabilities that the engine gave (NaN where it sampled nothing); `group` [R], equal for
    the answers to one prompt; `reference` [R], 1.0 for a row's own answer; then `reward`.
    """

    def __init__(self, ctx: Context, seqs: Sequence[Seq], texts: Sequence[str], finish: Sequence[str]) -> None:
        super().__init__(ctx, seqs, ctx.model, grad=False)
        self.text, self.finish = list(texts), list(finish)
        self.source: list[Row] = [dict(q.source) for q in seqs]

    def put(self, name: str, values: Any) -> None:
        """A column: [R], or [N] with one value a loss token."""
        values = torch.as_tensor(values, dtype=torch.float32).detach().cpu()
        counts = [sum(t != NO_TARGET for t in q.targets) for q in self.seqs]
        if len(values) == self.R:
            parts = values.tolist()
            self.seqs = tuple(q.but(columns={**q.columns, name: v}) for q, v in zip(self.seqs, parts, strict=True))
        elif len(values) == sum(counts):
            split = values.split(counts)
            self.seqs = tuple(q.but(per_token={**q.per_token, name: v}) for q, v in zip(self.seqs, split, strict=True))
        else:
            raise HarnessError(
                f"the column `{name}` has {len(values)} values, for {self.R} answers of {sum(counts)} tokens"
            )


class Rollouts:
    """Samples the batches of one stage. prompt_ids: the ids of a request as every engine sends them."""

    def __init__(self, ctx: Context, how: Sampling, prompt_ids: Callable[[Request], list[int]], where: str) -> None:
        self.ctx, self.how, self.prompt_ids, self.where = ctx, how, prompt_ids, where

    def gather(self, rows: Sequence[Row], first: int) -> list[Seq]:
        """Sampled sequences of some rows, group by group, with their columns. first: number of the first group."""
        ctx = self.ctx
        with ctx.meter.phase("rollout"):
            asked = [self.asked(row) for row in rows]
            answers = ctx.generate([request for request, _ in asked], "live", self.how.n)
        made: list[tuple[Seq, str, str]] = []
        for k, (row, (_, ids), given) in enumerate(zip(rows, asked, answers, strict=True)):
            made += self._group(row, ids, given, first + k)
        seqs, texts, finish = zip(*made, strict=True)
        rolls = Rolls(ctx, seqs, texts, finish)
        with ctx.meter.phase("reward"):
            rolls.put("reward", owner(ctx.stack, "reward").reward(rolls, ctx))
            values = owner(ctx.stack, "advantage").advantage(rolls, ctx)
        for name, value in (values if isinstance(values, Mapping) else {"advantage": values}).items():
            rolls.put(name, value)
        self._log(rolls)
        return list(rolls.seqs)

    def measure(self, tok: Tokens) -> None:
        """Log how far what the trainer says of the sampled tokens is from what the engine said."""
        old = tok["old"]
        drawn = ~old.isnan()
        if not bool(drawn.any()):
            return
        gap = tok.logp.detach()[drawn] - old[drawn]
        self.ctx.log_mean(gap_mean=gap.abs(), importance=gap.exp())
        self.ctx.log(gap_max=max(self.ctx.logged.get("gap_max", 0.0), float(gap.abs().max())))

    def asked(self, row: Row) -> tuple[Request, list[int]]:
        """What a row asks, and its ids. HarnessError for a row of another form, or one that leaves no room."""
        question, _ = self._parts(row)
        how = self.how
        request = self.ctx.prompted(
            Request(messages=question, max_tokens=how.max_tokens, temperature=how.temperature, top_p=how.top_p)
        )
        ids = self.prompt_ids(request)
        if len(ids) + how.max_tokens > self.ctx.limit:
            raise HarnessError(
                f"a prompt of {len(ids)} tokens and an answer of {how.max_tokens} are longer than the longest "
                f"row allowed, {self.ctx.limit}",
                where=f"{self.where}, row {row['id']}",
                todo="lower max_tokens, raise max_length (not above the model's context), or drop the row",
            )
        return request, ids

    def _parts(self, row: Row) -> tuple[tuple[Any, ...], str]:
        """The conversation before a row's last answer, and that answer. HarnessError for a row of another form."""
        messages = row.get("messages", row.get(PAIR[0])) or ()
        last = max((i for i, m in enumerate(messages) if m["role"] == "assistant"), default=0)
        if not last:
            raise HarnessError(
                "answers are sampled to questions, and this row has none",
                where=f"{self.where}, row {row.get('id', '?')}",
                todo="give it conversations that end with an assistant message",
            )
        return tuple(messages[:last]), str(messages[last]["content"])

    def _group(self, row: Row, asked: list[int], given: Sequence[Response], group: int) -> list[tuple[Seq, str, str]]:
        made = []
        for i, response in enumerate(given):
            self._same(asked, response, row)
            seq = self._seq(row, asked, response.tokens, torch.tensor(response.logprobs), group, i)
            made.append((seq, response.text, response.finish))
        if self.how.reference:
            made.append((self._own(row, group), self._parts(row)[1], ""))
        return made

    def _seq(self, row: Row, asked: list[int], said: Sequence[int], old: Tensor, group: int, i: int | str) -> Seq:
        targets = [NO_TARGET] * (len(asked) - 1) + list(said) + [NO_TARGET]
        return Seq(
            ids=(*asked, *said),
            targets=tuple(targets),
            row=f"{row['id']}#{i}",
            source=row,
            columns={**own_columns(row), "group": group, "reference": float(isinstance(i, str))},
            per_token={"old": old.float()},
        )

    def _own(self, row: Row, group: int) -> Seq:
        """The row's own last answer, as fine-tuning sees it."""
        key = PAIR[0] if "messages" not in row else "messages"
        last = max(i for i, m in enumerate(row[key]) if m["role"] == "assistant")
        turns = [{**m, "weight": int(i == last)} for i, m in enumerate(row[key])]
        (seq,) = encode_row(
            {"id": row["id"], "messages": turns}, self.ctx.tokenizer, self.ctx.prompted,
            limit=self.ctx.limit, where=self.where,
        )  # fmt: skip
        known = sum(t != NO_TARGET for t in seq.targets)
        columns = {**own_columns(row), "group": group, "reference": 1.0}
        old = torch.full((known,), NONE)
        return seq.but(row=f"{row['id']}#own", source=row, columns=columns, per_token={"old": old})

    def _same(self, asked: list[int], response: Response, row: Row) -> None:
        if response.prompt_tokens != len(asked) or len(response.tokens) != len(response.logprobs):
            raise StepFailed(
                f"the engine read {response.prompt_tokens} prompt tokens and the trainer {len(asked)}; it gave "
                f"{len(response.tokens)} tokens and {len(response.logprobs)} log-probabilities",
                kind="bug",
                where=f"{self.where}, row {row['id']}",
            )

    def _log(self, rolls: Rolls) -> None:
        drawn = rolls["reference"] == 0
        cut = torch.tensor([f == "length" for f, d in zip(rolls.finish, drawn.tolist(), strict=True) if d])
        lengths = torch.tensor([float(len(q.per_token["old"])) for q in rolls.seqs])[drawn.cpu()]
        self.ctx.log_mean(reward=rolls["reward"][drawn], length=lengths, cut=cut.float())


def own_columns(row: Row) -> dict[str, Any]:
    """The row's own columns, as a sequence carries them."""
    return {k: v for k, v in row.items() if k not in NOT_COLUMNS}
