"""A row of data -> token sequences with their targets.

A conversation is rendered by the model's chat template and cut into pieces at the assistant's turns; each piece is
tokenised by itself, exactly as an engine tokenises a prompt and then generates, so training and generation see the
same tokens. Which positions carry loss follows from the lengths of these pieces, never from token ids: a model's pad
token is often its end token. This file does no batching and no padding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError

from harness.engines.base import Request
from harness.errors import HarnessError, Refused
from harness.methods.base import NO_TARGET

if TYPE_CHECKING:
    from torch import Tensor

    from harness.methods.base import Row

PAIR = ("chosen", "rejected")
NOT_COLUMNS = ("id", "messages", *PAIR, "text", "ids", "targets")


@dataclass(frozen=True)
class Seq:
    """One token sequence. Frozen, since it is kept over epochs; `collate` returns `seq.but(ids=...)`.

    ids: what the model reads.  targets: what each position is to predict, as long as ids; -100 where nothing is.
    row: id of the row it came from.  view: "chosen" or "rejected" where a row holds several.  source: the row.
    columns: the row's other columns, one value a row.  per_token: columns with one value a loss token.
    weight: one a loss token; None is all ones.  positions, mask ([length, length], True = seen): None is causal.
    extra: whatever a method's own hooks hand on to each other.
    """

    ids: tuple[int, ...]
    targets: tuple[int, ...]
    row: str
    view: str = ""
    columns: Mapping[str, Any] = field(default_factory=dict)
    source: Mapping[str, Any] = field(default_factory=dict)
    per_token: Mapping[str, Tensor] = field(default_factory=dict)
    weight: Tensor | None = None
    positions: tuple[int, ...] | None = None
    mask: Tensor | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    def but(self, **changes: Any) -> Seq:
        """The same sequence with some fields changed."""
        return replace(self, **changes)

    @property
    def loss_tokens(self) -> int:
        """Targets that count: those of weight other than zero."""
        if self.weight is not None:
            return int((self.weight != 0).sum())
        return sum(t != NO_TARGET for t in self.targets)


def without_dropped(seq: Seq) -> Seq:
    """A sequence without the tokens of weight 0 that it was to learn: what stood after them moves up. Tokens that carry
    no loss, such as a prompt's, stay.

    Refused for a sequence with positions or a mask of its own, which would have to be cut as well.
    """
    if seq.weight is None or bool((seq.weight != 0).all()):
        return seq
    if seq.positions is not None or seq.mask is not None:
        raise Refused("tokens cannot leave a sequence that has positions or a mask of its own")
    weights = iter(seq.weight.tolist())
    live = [target == NO_TARGET or next(weights) != 0 for target in seq.targets]  # of what each position is to predict
    stays = [True, *live[:-1]]  # the token at a position is what the one before it predicts
    wanted = [NO_TARGET, *seq.targets]  # the same, by the token itself
    kept = [i for i, here in enumerate(stays) if here]
    targets = [*(wanted[i] for i in kept[1:]), seq.targets[-1] if live[-1] else NO_TARGET]
    counted = seq.weight != 0
    return seq.but(
        ids=tuple(seq.ids[i] for i in kept),
        targets=tuple(targets),
        weight=seq.weight[counted],
        per_token={name: values[counted] for name, values in seq.per_token.items()},
    )


def is_pair(row: Row) -> bool:
    """Whether a row has two answers, of which one is preferred."""
    return all(view in row for view in PAIR)


def encode_row(
    row: Row,
    tokenizer: Any,
    prompt: Callable[[Request], Request],
    *,
    limit: int,
    where: str = "",
    pairs: bool = False,
) -> list[Seq]:
    """The sequences of one row: one, or the views of a pair.

    A row has `messages`; or `text`; or `ids` and `targets`; one with `chosen` and `rejected`, both conversations, is a
    pair. limit: tokens at most.  where: the file, for messages.  pairs: whether a pair is wanted; where it is not, its
    rejected answer is left alone, since whoever does not ask for pairs would learn it.
    HarnessError naming the row for anything that cannot be.
    """
    at = f"{where}, row {row.get('id', '?')}" if where else f"row {row.get('id', '?')}"
    columns = {k: v for k, v in row.items() if k not in NOT_COLUMNS}
    views = PAIR if pairs and is_pair(row) else ("",)
    made = []
    for view in views:
        ids, targets = _tokens(row, view, tokenizer, prompt, at)
        if len(ids) > limit:
            raise HarnessError(
                f"{len(ids)} tokens long, and the longest row allowed is {limit}",
                where=at,
                todo="raise max_length (not above the model's context), or drop the row",
            )
        if all(t == NO_TARGET for t in targets):
            raise HarnessError(
                "nothing to learn: no assistant message carries loss",
                where=at,
                todo='end the conversation with {"role": "assistant", ...} of weight 1',
            )
        made.append(
            Seq(ids=tuple(ids), targets=tuple(targets), row=str(row["id"]), view=view, columns=columns, source=row)
        )
    return made


def _tokens(
    row: Row, view: str, tokenizer: Any, prompt: Callable[[Request], Request], at: str
) -> tuple[list[int], list[int]]:
    messages = row.get(view) if view else row.get("messages", row.get("chosen"))
    if "ids" in row and not view:
        if len(row["ids"]) != len(row.get("targets", ())):
            raise HarnessError("`ids` and `targets` differ in length", where=at)
        return list(row["ids"]), list(row["targets"])
    if "text" in row and messages is None:  # beside a conversation, `text` is a column that it was made from
        ids = list(tokenizer(row["text"])["input_ids"])
        ids += [tokenizer.eos_token_id] if ids[-1:] != [tokenizer.eos_token_id] else []
        return ids, [*ids[1:], NO_TARGET]
    if not messages:
        raise HarnessError("the row has no `messages`", where=at, todo="each row needs `id` and `messages`")
    if not all(isinstance(m, dict) and {"role", "content"} <= m.keys() for m in messages):
        raise HarnessError("every message is an object with `role` and `content`", where=at)
    if not tokenizer.chat_template:
        raise HarnessError(
            "the model has no chat template, and the row is a conversation",
            where=at,
            todo="choose an instruction-tuned model, or rows with `text`",
        )
    told = prompt(Request(messages=tuple(messages))).messages or ()
    return conversation(list(told), tokenizer, at)


def conversation(messages: list[Mapping[str, Any]], tokenizer: Any, at: str) -> tuple[list[int], list[int]]:
    """ids and targets of a conversation. Loss on the assistant's messages of weight 1, their end token included.

    Messages after the assistant's last carry no loss and are left out.
    """
    ids: list[int] = []
    learned: list[bool] = []
    done = ""
    turns = [i for i, m in enumerate(messages) if m["role"] == "assistant"]
    for i in turns:
        before = _render(tokenizer, messages[:i], at, ask=True)
        after = _render(tokenizer, messages[: i + 1], at, ask=False)
        if not (before.startswith(done) and after.startswith(before)):
            raise HarnessError(
                f"the chat template rewrites what came before message {i + 1}, so what is learned is not what is asked",
                where=at,
                todo="keep one assistant message a row",
            )
        asked, said = _pieces(tokenizer, before[len(done) :]), _pieces(tokenizer, after[len(before) :])
        end = _end(said, tokenizer)
        if end == 0 and i == turns[-1]:
            said, end = [*said, tokenizer.eos_token_id], len(said) + 1
        end = end or len(said)
        ids += asked + said
        learned += [False] * len(asked) + [_weight(messages[i], at)] * end + [False] * (len(said) - end)
        done = after
    targets = [t if on else NO_TARGET for t, on in zip(ids[1:], learned[1:], strict=True)]
    return ids, [*targets, NO_TARGET]


def _weight(message: Mapping[str, Any], at: str) -> bool:
    weight = message.get("weight", 1)
    if weight not in (0, 1):
        raise HarnessError(f"a message's `weight` is 0 or 1, not {weight!r}", where=at)
    return bool(weight)


def _end(said: list[int], tokenizer: Any) -> int:
    """Length of an answer up to and with its last special token (the end of the turn); 0 if it has none.

    Templates put a line break after the end token, which no engine ever generates.
    """
    special = set(tokenizer.all_special_ids)
    return next((i + 1 for i in reversed(range(len(said))) if said[i] in special), 0)


def _render(tokenizer: Any, messages: list[Mapping[str, Any]], at: str, *, ask: bool) -> str:
    plain = [{k: v for k, v in m.items() if k != "weight"} for m in messages]
    try:
        text: str = tokenizer.apply_chat_template(plain, tokenize=False, add_generation_prompt=ask)
    except TemplateError as error:
        raise HarnessError("the model's chat template refuses the conversation", where=at, why=str(error)) from error
    return text


def _pieces(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids
