"""Training rows of the usual shapes -> {"id", "messages", ...columns}, the one shape that methods see.

    messages        {"messages": [{"role", "content"}, ...]}
    conversations   {"conversations": [{"from": "human", "value": ...}, ...]}, an optional "system"
    prompt          {"prompt", "completion"}
    instruction     {"instruction", "input"?, "output"}
    question        {"question", "answer"}
    response        {"prompt", "response"}
    pair            {"chosen", "rejected"}: two answers to the same conversation, which stands in a column
                    `conversations`, `messages` or `prompt`, or within both. Each is a text, a turn or a list of turns;
                    a text that begins with "Human:" is a whole conversation.
    (a template)    any fields, through a `prompt` and an `answer` template with {field} in them

A "system" column becomes the first turn. Every column that is not part of the conversation is kept. A pair's row has
`messages`, the conversation with the better answer, for methods that learn from one; and `chosen` and `rejected`, in
which only what differs carries loss. Nothing is tokenised here.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.errors import HarnessError, nearest
from harness.matrix.schema import DataEntry

Row = dict[str, Any]
ROLES = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
    "tool": "tool",
    "function": "tool",
    "function_call": "assistant",
    "observation": "tool",
}


@dataclass(frozen=True)
class Shape:
    """needs: fields that must be there.  uses: fields that become part of the conversation.  turns: the conversation.
    worse: that with the rejected answer, where a row has two."""

    needs: tuple[str, ...]
    uses: tuple[str, ...]
    turns: Callable[[Row], list[Row]]
    worse: Callable[[Row], list[Row]] | None = None


def to_rows(rows: Sequence[Mapping[str, Any]], entry: DataEntry) -> list[Row]:
    """Conversations from rows; ids are kept, or numbered from 0.

    entry.format: one of the names above, or "auto", which looks at the first row.
    entry.prompt, entry.answer: templates such as "{question} Think first.", instead of a format.
    HarnessError naming the row and its fields where a row does not fit.
    """
    shape = shape_of(entry) or _detected(rows[0])
    return [_converted(dict(row), number, shape) for number, row in enumerate(rows)]


def shape_of(entry: DataEntry) -> Shape | None:
    """The shape that an entry names, None for "auto". HarnessError for an unknown name or half a template."""
    if entry.prompt is not None and entry.answer is not None:
        return _templated(entry.prompt, entry.answer)
    if entry.prompt is not None or entry.answer is not None:
        missing = "answer" if entry.answer is None else "prompt"
        raise HarnessError(f"`{entry.source}` has a template without `{missing}`", todo="give `prompt` and `answer`")
    if entry.format == "auto":
        return None
    if entry.format not in SHAPES:
        raise HarnessError(f"no data format `{entry.format}`", todo=nearest(entry.format, [*SHAPES, "auto"]))
    return SHAPES[entry.format]


def gives_pairs(first: Mapping[str, Any], entry: DataEntry) -> bool:
    """Whether rows like the first are pairs of answers. HarnessError where `to_rows` could not tell either."""
    return (shape_of(entry) or _detected(first)).worse is not None


def columns(first: Mapping[str, Any], entry: DataEntry) -> set[str]:
    """The columns that rows like the first keep beside their conversation. HarnessError as for `gives_pairs`."""
    shape = shape_of(entry) or _detected(first)
    return {name for name in first if name not in (*shape.uses, "id", "system", "messages")}


def _detected(row: Mapping[str, Any]) -> Shape:
    for shape in SHAPES.values():
        if all(name in row for name in shape.needs):
            return shape
    raise HarnessError(
        "cannot tell which fields are the prompt and the answer",
        why=f"the first row has the fields {', '.join(row)}",
        todo='give templates: `prompt: "...{field}..."` and `answer: "...{field}..."`',
    )


def _converted(row: Row, number: int, shape: Shape) -> Row:
    missing = [name for name in shape.needs if row.get(name) is None]
    if missing:
        raise HarnessError(
            f"row {number} has no {', '.join(f'`{m}`' for m in missing)}", why=f"its fields are {', '.join(row)}"
        )
    turns = _conversation(row, number, shape.turns)
    if not (shape.worse or str(turns[-1]["content"]).strip()):  # of two answers, saying nothing may be the better one
        raise HarnessError(f"row {number} has no answer to learn", why="its last turn is empty")
    columns = {k: v for k, v in row.items() if k not in shape.uses and k not in ("id", "system", "messages")}
    made = {"id": str(row.get("id", number)), "messages": turns, **columns}
    if shape.worse:
        made |= _contrast(turns, _conversation(row, number, shape.worse), number)
    return made


def _conversation(row: Row, number: int, read: Callable[[Row], list[Row]]) -> list[Row]:
    """The turns of a row, which end with the assistant's."""
    try:
        turns = read(row)
    except (KeyError, TypeError, AttributeError) as error:
        raise HarnessError(
            f"row {number} does not fit", why=f"{type(error).__name__}: {error}; its fields are {', '.join(row)}"
        ) from None
    if row.get("system") and turns[0]["role"] != "system":
        turns = [{"role": "system", "content": row["system"]}, *turns]
    if not turns or turns[-1]["role"] != "assistant":
        raise HarnessError(f"row {number} has no answer to learn", why="its last turn is not a text of the assistant")
    return turns


def _contrast(chosen: list[Row], rejected: list[Row], number: int) -> Row:
    """Both conversations of a pair. Turns that they share carry no loss: there is nothing to prefer in them."""
    if chosen == rejected:
        raise HarnessError(f"row {number} prefers nothing", why="its chosen and its rejected answer are the same")
    shared = 0
    while shared < min(len(chosen), len(rejected)) - 1 and chosen[shared] == rejected[shared]:
        shared += 1
    asked = [{**turn, "weight": 0} if turn["role"] == "assistant" else turn for turn in chosen[:shared]]
    return {"chosen": [*asked, *chosen[shared:]], "rejected": [*asked, *rejected[shared:]]}


def _pair(prompt: str, answer: Any) -> list[Row]:
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": str(answer)}]


def _messages(row: Row) -> list[Row]:
    return [_turn(turn) for turn in row["messages"]]


def _conversations(row: Row) -> list[Row]:
    return [_turn(turn) for turn in row["conversations"]]


def _side(name: str) -> Callable[[Row], list[Row]]:
    """The conversation that ends with one of a pair's answers."""

    def turns(row: Row) -> list[Row]:
        asked, said = _asked(row), row[name]
        if isinstance(said, str) and not asked:
            return _transcript(said)
        if isinstance(said, str):
            return [*asked, {"role": "assistant", "content": said}]
        last = [_turn(dict(turn)) for turn in ([said] if isinstance(said, Mapping) else said)]
        return last if len(last) > 1 and last[0]["role"] != "assistant" else [*asked, *last]

    return turns


def _asked(row: Row) -> list[Row]:
    """What a pair's answers reply to, where it has a column of its own."""
    if "conversations" in row:
        return _conversations(row)
    asked = row.get("prompt")
    if isinstance(asked, str):
        return [{"role": "user", "content": asked}]
    return [_turn(turn) for turn in asked or row.get("messages") or ()]


def _turn(turn: Mapping[str, Any]) -> Row:
    if "from" in turn:
        return {"role": ROLES[turn["from"]], "content": turn["value"]}
    return {**turn, "role": ROLES[turn["role"]], "content": turn["content"]}


def _transcript(text: str) -> list[Row]:
    """Turns of a text that marks its speakers. One who speaks twice in succession has one turn."""
    first, *parts = re.split(r"(?:^|\n\n)(Human|Assistant):", text)
    if first.strip() or not parts:
        raise TypeError('an answer that stands alone begins with "Human:", or the row has a `prompt`')
    turns: list[Row] = []
    for speaker, said in zip(parts[::2], parts[1::2], strict=True):
        role = "user" if speaker == "Human" else "assistant"
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += f"\n\n{said.strip()}"
        else:
            turns.append({"role": role, "content": said.strip()})
    return turns


def _instruction(row: Row) -> list[Row]:
    prompt = f"{row['instruction']}\n\n{row['input']}" if row.get("input") else row["instruction"]
    return _pair(prompt, row["output"])


def _templated(prompt: str, answer: str) -> Shape:
    try:
        fields = [f for text in (prompt, answer) for _, f, _, _ in string.Formatter().parse(text) if f]
    except ValueError as error:
        raise HarnessError(
            "a template is not well formed", why=str(error), todo="write {field}, and {{ for a brace"
        ) from None
    return Shape(tuple(dict.fromkeys(fields)), (), lambda r: _pair(prompt.format_map(r), answer.format_map(r)))


SHAPES: Mapping[str, Shape] = {
    "pair": Shape(
        ("chosen", "rejected"), ("chosen", "rejected", "conversations", "prompt"), _side("chosen"), _side("rejected")
    ),
    "messages": Shape(("messages",), ("messages",), _messages),
    "conversations": Shape(("conversations",), ("conversations",), _conversations),
    "instruction": Shape(("instruction", "output"), ("instruction", "input", "output"), _instruction),
    "question": Shape(("question", "answer"), ("question",), lambda r: _pair(r["question"], r["answer"])),
    "prompt": Shape(("prompt", "completion"), ("prompt", "completion"), lambda r: _pair(r["prompt"], r["completion"])),
    "response": Shape(("prompt", "response"), ("prompt", "response"), lambda r: _pair(r["prompt"], r["response"])),
}
