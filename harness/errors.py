"""What the user sees when something is wrong: what, where, why, and what to do.

    HarnessError            the user can mend it; exit code 2, no traceback
    |-- Problems            several of them, found together and reported together
    |-- MissingExtra        a package that an optional feature needs; names the command that installs it
    |-- Refused             a combination that cannot be run (two owners of a hook, a method without what it needs)
    `-- StepFailed          one step of a cell failed; the matrix goes on; exit code 1

Anything else that escapes is a bug of ours and shows its traceback with `--debug`.
Never use `assert` for input.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class HarnessError(Exception):
    """A mistake that the user can mend.

    what: one sentence, the fact.  where: `file:line`, a cell or a path.  why: the cause, when it is not plain.
    todo: what to do about it.
    """

    exit_code = 2

    def __init__(self, what: str, *, where: str = "", why: str = "", todo: str = "") -> None:
        super().__init__(what)
        self.what, self.where, self.why, self.todo = what, where, why, todo

    def __str__(self) -> str:
        head = f"{self.where}: {self.what}" if self.where else self.what
        tail = [f"  why: {self.why}"] if self.why else []
        tail += [f"  do:  {self.todo}"] if self.todo else []
        return "\n".join([head, *tail])

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.__dict__, self.args)


def _rebuild(cls: type[HarnessError], state: dict[str, object], args: tuple[object, ...]) -> HarnessError:
    error = cls.__new__(cls)
    error.args = args
    error.__dict__.update(state)
    return error


class Problems(HarnessError):
    """Several mistakes, reported together."""

    def __init__(self, problems: Iterable[HarnessError]) -> None:
        self.problems = tuple(problems)
        super().__init__(f"{len(self.problems)} problems")

    def __str__(self) -> str:
        return "\n".join(str(p) for p in self.problems)


class MissingExtra(HarnessError):
    """A package is missing that only some features need."""

    def __init__(self, package: str, needed_for: str, install: str) -> None:
        super().__init__(f"{needed_for} needs the package `{package}`, which is not installed", todo=install)


class Refused(HarnessError):
    """A combination that cannot be run, found before anything starts."""


class StepFailed(HarnessError):
    """One step failed. `kind` is a failure class: user, oom, killed, bug."""

    exit_code = 1

    def __init__(self, what: str, *, kind: str, where: str = "", why: str = "", todo: str = "") -> None:
        super().__init__(what, where=where, why=why, todo=todo)
        self.kind = kind


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint for a mistyped name: `did you mean "lora"?`, else the known names, else nothing."""
    names = sorted(set(known))
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        return f'did you mean "{close[0]}"?'
    return f"known: {', '.join(names)}" if 0 < len(names) <= 12 else ""
