"""The checker's side: runs the data set's own tests, with stand-ins for the candidate's functions.

A stand-in ships its arguments over the channel and returns what comes back, as plain values (`wire`). Arguments that
the candidate changed in place are changed here too. Objects of the candidate's own classes stay with it: here is a
handle, to get and set attributes, call, and test for truth. To compare one, or to make text of it, ends the test, since
its equality would be the candidate's word. The verdict is written to a descriptor that only this process has.
"""

from __future__ import annotations

import builtins

from . import wire

TYPE_CHECKING = False  # `typing` would double the time that a sandboxed process takes to start
if TYPE_CHECKING:
    from typing import Any, NoReturn


class Raised(Exception):
    """The candidate raised an exception of a class that is not built in."""


class Ended(BaseException):
    """The candidate can answer no more: it is gone, sends nonsense, or left with SystemExit. No test can catch this."""


class Untestable(BaseException):
    """The test passes something that cannot cross: our failure, not the candidate's."""


class Conversation:
    """The calls to one candidate, and what went wrong in them."""

    def __init__(self, channel: int) -> None:
        self.channel = channel
        self.raised: BaseException | None = None
        self.ended = False
        self.outcome = ""
        self.detail = ""

    def ask(self) -> tuple[Any, ...]:
        """The candidate's next message: its kind and two fields."""
        try:
            reply = wire.decode(wire.receive(self.channel), lambda handle: StandIn(self, handle._handle))
        except (EOFError, OSError):
            self.end("gone", "the program ended without an answer")
        except (wire.Malformed, RecursionError) as error:
            self.end("exception", f"a malformed answer: {error}")
        if not isinstance(reply, tuple) or len(reply) != 3 or not isinstance(reply[0], str):
            self.end("exception", "a malformed answer")
        return reply

    def end(self, outcome: str, detail: str) -> NoReturn:
        """No pass is possible any more, whatever the test makes of it."""
        self.ended, self.outcome, self.detail = True, outcome, detail
        raise Ended

    def start(self) -> None:
        """Wait until the program has run."""
        reply = self.ask()
        if reply[0] != "ready":
            self.end(_outcome(str(reply[1])), f"{reply[1]}: {reply[2]}")

    def request(self, do: str, target: int | str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Have the candidate do something, and return or raise what it says."""
        try:
            wire.send(self.channel, wire.encode((do, target, args, kwargs)))
        except (wire.Unsendable, wire.Malformed) as error:
            raise Untestable(f"the test passes a value that cannot cross: {error}") from None
        except OSError:
            self.end("gone", "the program ended without an answer")
        status, *rest = self.ask()
        if status != "value":
            self.raise_here(str(rest[0]), str(rest[1]))
        result, after = rest
        _change_in_place(args, after)
        return result

    def raise_here(self, kind: str, detail: str) -> NoReturn:
        outcome, detail = _outcome(kind), f"{kind}: {detail}"
        known = getattr(builtins, kind, None)
        if isinstance(known, type) and issubclass(known, BaseException) and not issubclass(known, Exception):
            self.end(outcome, detail)
        self.outcome, self.detail = outcome, detail
        try:
            self.raised = known(detail) if isinstance(known, type) and issubclass(known, Exception) else Raised(detail)
        except TypeError:  # the few built-in exceptions that take other arguments
            self.raised = Raised(detail)
        raise self.raised


class StandIn(wire.Handle):
    """A function, class or object of the candidate."""

    __slots__ = ("_talk",)
    _talk: Conversation

    def __init__(self, talk: Conversation, handle: tuple[str, bool, int | str]) -> None:
        super().__init__(handle)
        object.__setattr__(self, "_talk", talk)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._talk.request("call", self._handle[2], args, kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)  # asked by `copy` and the like, not by a test
        return self._talk.request("get", self._handle[2], (name,), {})

    def __setattr__(self, name: str, value: Any) -> None:
        self._talk.request("set", self._handle[2], (name, value), {})

    def __bool__(self) -> bool:
        return self._handle[1]

    def _refuse(self, *_: object) -> Any:
        self._talk.end("wrong", f"the answer is an object of the class {self._handle[0]}")

    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = __hash__ = _refuse
    __repr__ = __str__ = __format__ = __reduce_ex__ = _refuse  # text of two objects could be equal


def _outcome(kind: str) -> str:
    """The name of the outcome for an exception's class."""
    return {
        "SyntaxError": "syntax",
        "IndentationError": "syntax",
        "MemoryError": "memory",
        "PermissionError": "forbidden",
    }.get(kind, "exception")


def _change_in_place(args: tuple[Any, ...], after: Any) -> None:
    if not isinstance(after, tuple) or len(after) != len(args):
        return
    for mine, theirs in zip(args, after, strict=True):
        if type(mine) is not type(theirs):
            continue
        if isinstance(mine, list | bytearray):
            mine[:] = theirs
        elif isinstance(mine, dict | set):
            mine.clear()
            mine.update(theirs)


def judge(channel: int, verdict: int, names: list[str], preamble: str, test: str) -> None:
    """Run preamble and test with the stand-ins in place; write (outcome, detail) to the descriptor `verdict`."""
    wire.send(verdict, wire.encode(_verdict(Conversation(channel), names, preamble, test)))


def _verdict(talk: Conversation, names: list[str], preamble: str, test: str) -> tuple[str, str]:
    space: dict[str, Any] = {"__name__": "test"}
    try:
        exec(compile(preamble, "<preamble>", "exec", dont_inherit=True), space)
        code = compile(test, "<test>", "exec", dont_inherit=True)
    except Exception as error:
        return "sandbox-error", f"the data set's own text does not run: {type(error).__name__}: {error}"[:500]
    if "random" in test:
        _seed()
    space.update({name: StandIn(talk, ("function", True, name)) for name in names})
    try:
        talk.start()
        exec(code, space)
    except Ended:
        return talk.outcome, talk.detail
    except Untestable as error:
        return "sandbox-error", str(error)
    except MemoryError:
        return "memory", "the answers do not fit"
    except Exception as error:
        if error is talk.raised:
            return talk.outcome, talk.detail
        return "wrong", f"{type(error).__name__}: {error}"[:500]
    return (talk.outcome, talk.detail) if talk.ended else ("pass", "")


def _seed() -> None:
    """Tests that draw their inputs draw the same ones each time."""
    import random

    random.seed(0)
