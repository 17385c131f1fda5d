"""Plain values as bytes: what may cross between a candidate and its checker.

A tagged binary format rather than JSON, which loses tuples, sets and non-text keys, or pickle, which runs code.
Decoding makes exact built-in types only, so a value's own `__eq__` or `__hash__` cannot cross: subclasses are flattened
to the built-in they extend, iterators arrive as iterators over the list of their items, other objects as `Handle`.
Keeps: None, bool, int, float, complex, str, bytes, bytearray, list, tuple, dict, set, frozenset, range, deque, and the
built-in types themselves.
Does not keep: identity (two references to one list become two lists), cycles, the classes of objects.
"""

from __future__ import annotations

import os
import struct
from collections import deque

TYPE_CHECKING = False  # `typing` would double the time that a sandboxed process takes to start
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

MAX_DEPTH = 150
MAX_MESSAGE = 32 << 20  # bytes


class Malformed(ValueError):
    """Bytes that are not a message of this format."""


class Unsendable(TypeError):
    """A value that has no plain form: an object that is not one of the built-in types, or one nested too deeply."""


class Handle:
    """Stands for an object without a plain form: (class name, truth value, number or name on the candidate's side)."""

    __slots__ = ("_handle",)
    _handle: tuple[str, bool, int | str]

    def __init__(self, handle: tuple[str, bool, int | str]) -> None:
        object.__setattr__(self, "_handle", handle)  # subclasses send attributes elsewhere


_SEQUENCES: tuple[tuple[type, bytes, Callable[[Iterable[Any]], Any]], ...] = (
    (list, b"l", list),
    (tuple, b"t", tuple),
    (set, b"S", set),
    (frozenset, b"Z", frozenset),
    (deque, b"q", deque),
)
_MAKERS: dict[bytes, Callable[[Iterable[Any]], Any]] = {tag: make for _, tag, make in _SEQUENCES} | {b"I": iter}


_TYPES: dict[str, type] = {
    kind.__name__: kind
    for kind in (bool, int, float, complex, str, bytes, bytearray, list, tuple, dict, set, frozenset, range, type(None))
}


def encode(value: Any, *, handle: Callable[[Any], Handle] | None = None) -> bytes:
    """Bytes of a value. `handle` makes the handle of an object without a plain form; without it, `Unsendable`."""
    out: list[bytes] = []
    _encode(value, out, handle, 0)
    return b"".join(out)


def _encode(value: Any, out: list[bytes], handle: Callable[[Any], Handle] | None, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise Unsendable("nested too deeply")
    if _encode_scalar(value, out):
        return
    plain = _items(value)
    if plain:
        tag, items = plain
        out.append(tag + struct.pack(">I", len(items)))
        for item in items:
            _encode(item, out, handle, depth + 1)
    elif type(value).__base__ is Handle or type(value) is Handle:
        out.append(b"h")
        _encode(value._handle, out, None, depth + 1)
    elif handle is not None:
        _encode(handle(value), out, None, depth)
    else:
        raise Unsendable(type(value).__name__)


def _items(value: Any) -> tuple[bytes, list[Any]] | None:
    """Tag and items of a container; keys and values of a dict alternate."""
    for kind, tag, _ in _SEQUENCES:
        if isinstance(value, kind):
            return tag, list(kind.__iter__(value))  # type: ignore[attr-defined]
    if isinstance(value, dict):
        return b"D", [part for item in dict.items(value) for part in item]
    if hasattr(type(value), "__next__"):
        return b"I", list(value)
    return None


def _encode_scalar(value: Any, out: list[bytes]) -> bool:
    if value is None or value is True or value is False:
        out.append(b"N" if value is None else b"T" if value else b"F")
    elif isinstance(value, int):
        _text(b"i", int.to_bytes(value, int.bit_length(value) // 8 + 1, "big", signed=True), out)
    elif isinstance(value, float):
        out.append(b"d" + struct.pack(">d", value))
    elif isinstance(value, complex):
        out.append(b"c" + struct.pack(">dd", value.real, value.imag))
    elif isinstance(value, str):
        _text(b"s", str.encode(value, "utf-8", "surrogatepass"), out)
    elif isinstance(value, bytes | bytearray):
        _text(b"b" if isinstance(value, bytes) else b"B", bytes(value), out)
    elif isinstance(value, range):
        out.append(b"r")
        for number in (value.start, value.stop, value.step):
            _encode_scalar(number, out)
    elif type(value) is type and _TYPES.get(value.__name__) is value:
        _text(b"y", value.__name__.encode(), out)
    else:
        return False
    return True


def _text(tag: bytes, data: bytes, out: list[bytes]) -> None:
    out.append(tag + struct.pack(">I", len(data)) + data)


def decode(data: bytes, found: Callable[[Handle], Any] | None = None) -> Any:
    """The value of a whole message, each handle replaced by what `found` says.

    Raises `Malformed` for anything that `encode` could not have made.
    """
    try:
        value, end = _decode(data, 0, 0, found or _as_it_is)
    except (struct.error, TypeError, ValueError, OverflowError) as error:
        raise Malformed(str(error)) from None
    if end != len(data):
        raise Malformed("bytes after the value")
    return value


def _as_it_is(handle: Handle) -> Handle:
    return handle


def _decode(data: bytes, at: int, depth: int, found: Callable[[Handle], Any]) -> tuple[Any, int]:
    if depth > MAX_DEPTH:
        raise Malformed("nested too deeply")
    tag = data[at : at + 1]
    at += 1
    if tag in (b"N", b"T", b"F"):
        return (None if tag == b"N" else tag == b"T"), at
    if tag == b"d":
        return struct.unpack_from(">d", data, at)[0], at + 8
    if tag == b"c":
        return complex(*struct.unpack_from(">dd", data, at)), at + 16
    if tag == b"r":
        return _decode_range(data, at, depth)
    if tag == b"h":
        handle, at = _decode(data, at, depth + 1, found)
        if not isinstance(handle, tuple) or [type(part) for part in handle[:2]] != [str, bool] or len(handle) != 3:
            raise Malformed("no handle")
        return found(Handle(handle)), at
    (size,) = struct.unpack_from(">I", data, at)
    at += 4
    if tag in _MAKERS or tag == b"D":
        return _decode_items(tag, size, data, at, depth, found)
    if len(data) < at + size:
        raise Malformed("cut off")
    return _decode_text(tag, data[at : at + size]), at + size


def _decode_text(tag: bytes, part: bytes) -> Any:
    if tag == b"i":
        return int.from_bytes(part, "big", signed=True)
    if tag == b"s":
        return part.decode("utf-8", "surrogatepass")
    if tag == b"b":
        return part
    if tag == b"B":
        return bytearray(part)
    if tag == b"y" and part.decode("utf-8", "replace") in _TYPES:
        return _TYPES[part.decode()]
    raise Malformed(f"unknown tag {tag!r}")


def _decode_range(data: bytes, at: int, depth: int) -> tuple[range, int]:
    parts = []
    for _ in range(3):
        part, at = _decode(data, at, depth + 1, _as_it_is)
        parts.append(part)
    return range(*parts), at


def _decode_items(
    tag: bytes, size: int, data: bytes, at: int, depth: int, found: Callable[[Handle], Any]
) -> tuple[Any, int]:
    items = []
    for _ in range(size):
        item, at = _decode(data, at, depth + 1, found)
        items.append(item)
    if tag == b"D":
        return dict(zip(items[::2], items[1::2], strict=True)), at
    return _MAKERS[tag](items), at


def send(fd: int, message: bytes) -> None:
    """Write one framed message; blocks. `Malformed` if it is larger than the other side accepts."""
    if len(message) > MAX_MESSAGE:
        raise Malformed(f"{len(message)} bytes are more than a message may have")
    view = memoryview(struct.pack(">I", len(message)) + message)
    while view:
        view = view[os.write(fd, view) :]


def receive(fd: int) -> bytes:
    """Read one framed message; blocks. EOFError when the other side is gone."""
    (size,) = struct.unpack(">I", _exactly(fd, 4))
    if size > MAX_MESSAGE:
        raise Malformed(f"{size} bytes are more than a message may have")
    return _exactly(fd, size)


def _exactly(fd: int, size: int) -> bytes:
    parts = []
    while size:
        part = os.read(fd, min(size, 1 << 20))
        if not part:
            raise EOFError
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
