"""The candidate's side: runs the model's program and answers calls to its functions. It holds no test.

Messages, each a plain value: first ("ready", "", "") or ("failed", exception, detail) for the program itself, then for
each request one answer ("value", result, args afterwards) or ("raised", exception, detail). A request is ("call",
target, args, kwargs), ("get", target, (name,), {}) or ("set", target, (name, value), {}); the target is the name of
something in the program or the number of an object that was answered before. Objects without a plain form stay here and
cross as their number. Everything sent from here may be forged by the program; it is an answer, never a verdict.
"""

from __future__ import annotations

import sys
import types

from . import wire

TYPE_CHECKING = False  # `typing` would double the time that a sandboxed process takes to start
if TYPE_CHECKING:
    from typing import Any

FORBIDDEN = {1, 13, 30, 101}  # EPERM, EACCES, EROFS, ENETUNREACH


def serve(channel: int, program: str) -> None:
    """Run the program, then answer calls until the checker is gone."""
    module = types.ModuleType("solution")
    sys.modules["solution"] = module
    try:
        code = compile(program, "<solution>", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return wire.send(channel, wire.encode(("failed", "SyntaxError", f"{type(error).__name__}: {_text(error)}")))
    try:
        exec(code, module.__dict__)
    except BaseException as error:
        return wire.send(channel, wire.encode(("failed", _kind(error), _text(error))))
    wire.send(channel, wire.encode(("ready", "", "")))
    known = Known(module)
    while True:
        wire.send(channel, _answer(known, wire.receive(channel)))


class Known:
    """What handles stand for: objects answered before by number, and what the program defines by name."""

    def __init__(self, module: types.ModuleType) -> None:
        self.module = module
        self.objects: list[Any] = []
        self.numbers: dict[int, int] = {}

    def handle(self, value: Any) -> wire.Handle:
        if id(value) not in self.numbers:
            self.numbers[id(value)] = len(self.objects)
            self.objects.append(value)  # kept, so that its id is not given to another
        return wire.Handle((type(value).__name__, bool(value), self.numbers[id(value)]))

    def find(self, target: int | str) -> Any:
        if isinstance(target, int):
            return self.objects[target]
        if target not in self.module.__dict__:
            raise NameError(f"name '{target}' is not defined")
        return self.module.__dict__[target]


def _answer(known: Known, request: bytes) -> bytes:
    try:
        do, target, args, kwargs = wire.decode(request, lambda handle: known.find(handle._handle[2]))
        result = _do(do, known.find(target), args, kwargs)
        message = wire.encode(("value", result, args), handle=known.handle)
    except BaseException as error:
        return wire.encode(("raised", _kind(error), _text(error)))
    if len(message) > wire.MAX_MESSAGE:
        return wire.encode(("raised", "MemoryError", f"an answer of {len(message)} bytes"))
    return message


def _do(what: str, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if what == "get":
        return getattr(target, *args)
    if what == "set":
        return setattr(target, *args)
    return target(*args, **kwargs)


def _kind(error: BaseException) -> str:
    if isinstance(error, OSError) and error.errno in FORBIDDEN:
        return "PermissionError"
    return type(error).__name__


def _text(error: BaseException) -> str:
    try:
        return str(error)[:300]
    except BaseException:
        return ""
