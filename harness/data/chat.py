"""Training rows of the usual shapes -> {"id", "messages", ...columns}, the one shape that methods see.

    messages        {"messages": [{"role", "content"}, ...]}
    conversations   {"conversations": [{"from": "human", "value": ...}, ...]}, an optional "system"
    prompt          {"prompt", "completion"}
    instruction     {"instruction", "input"?, "output"}
    question        {"question", "answer"}
    response        {"prompt", "response"}
    (a template)    any fields, through a `prompt` and an `answer` template with {field} in them

A "system" column becomes the first turn. Every column that is not part of the conversation is kept. Nothing is
tokenised here.
"""

from __future__ import annotations

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
    """needs: fields that must be there.  uses: fields that become part of the conversation."""

    needs: tuple[str, ...]
    uses: tuple[str, ...]
    turns: Callable[[Row], list[Row]]


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
    try:
        turns = shape.turns(row)
    except (KeyError, TypeError, AttributeError) as error:
        raise HarnessError(
            f"row {number} does not fit", why=f"{type(error).__name__}: {error}; its fields are {', '.join(row)}"
        ) from None
    if row.get("system") and turns[0]["role"] != "system":
        turns = [{"role": "system", "content": row["system"]}, *turns]
    if turns[-1]["role"] != "assistant" or not str(turns[-1]["content"]).strip():
        raise HarnessError(f"row {number} has no answer to learn", why="its last turn is not a text of the assistant")
    columns = {k: v for k, v in row.items() if k not in shape.uses and k not in ("id", "system", "messages")}
    return {"id": str(row.get("id", number)), "messages": turns, **columns}


def _pair(prompt: str, answer: Any) -> list[Row]:
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": str(answer)}]


def _messages(row: Row) -> list[Row]:
    return [{**turn, "role": ROLES[turn["role"]], "content": turn["content"]} for turn in row["messages"]]


def _conversations(row: Row) -> list[Row]:
    return [{"role": ROLES[turn["from"]], "content": turn["value"]} for turn in row["conversations"]]


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
    "messages": Shape(("messages",), ("messages",), _messages),
    "conversations": Shape(("conversations",), ("conversations",), _conversations),
    "instruction": Shape(("instruction", "output"), ("instruction", "input", "output"), _instruction),
    "question": Shape(("question", "answer"), ("question",), lambda r: _pair(r["question"], r["answer"])),
    "prompt": Shape(("prompt", "completion"), ("prompt", "completion"), lambda r: _pair(r["prompt"], r["completion"])),
    "response": Shape(("prompt", "response"), ("prompt", "response"), lambda r: _pair(r["prompt"], r["response"])),
}
