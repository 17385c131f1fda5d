"""The candidate's side: runs the model's program and answers calls to its functions. It holds no test.

Messages, each a plain value: first ("ready", "", "") or ("failed", exception, detail) for the program itself, then for
each call (name, args, kwargs) one answer ("value", result, args afterwards) or ("raised", exception, detail).
Everything sent from here may be forged by the program; it is an answer, never a verdict.
"""

from __future__ import annotations

import sys
import types
from typing import Any

from . import wire

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
    while True:
        name, args, kwargs = wire.decode(wire.receive(channel))
        wire.send(channel, _answer(module, name, args, kwargs))


def _answer(module: types.ModuleType, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
    try:
        result = module.__dict__[name](*args, **kwargs)
        message = wire.encode(("value", result, args), opaque=True)
    except BaseException as error:
        return wire.encode(("raised", _kind(error), _text(error)))
    if len(message) > wire.MAX_MESSAGE:
        return wire.encode(("raised", "MemoryError", f"an answer of {len(message)} bytes"))
    return message


def _kind(error: BaseException) -> str:
    if isinstance(error, OSError) and error.errno in FORBIDDEN:
        return "PermissionError"
    return type(error).__name__


def _text(error: BaseException) -> str:
    try:
        return str(error)[:300]
    except BaseException:
        return ""
