"""CRUXEval: what a given function returns, or an input for which it returns a given value.

The answer is an assertion, `assert f(...) == ...`, or the missing part alone (Gu et al. 2024, arXiv 2401.03065). It is
read, never run: values are literals, or `dict(...)`, `set(...)` and `range(...)` of literals. An input is then given to
the data set's own function in the sandbox. So no answer can bring code that replaces the function.

Does not accept other expressions, which the published scorer would evaluate; seven of the 800 reference inputs are.
"""

from __future__ import annotations

import ast
import re
from typing import Any

from harness.evaluation.code import parse_quietly
from harness.evaluation.sandbox import Limits, Trial, judge
from harness.evaluation.verdict import Verdict

LONGEST = 20_000  # characters of an answer that are read
_TAG = re.compile(r"\[/?ANSWER\]")
_CALLS = {"dict": dict, "set": set, "range": range}


class NotLiteral(ValueError):
    """The answer is something else than a value."""


def score_output(output: str, answer: str) -> Verdict:
    """Outcomes: pass, wrong, no-code (nothing answered), syntax (not an assertion or a literal)."""
    try:
        tree = _parse(answer)
        if isinstance(tree, ast.Compare) and len(tree.ops) == 1 and isinstance(tree.ops[0], ast.Eq):
            tree = tree.comparators[0]
        said, shown = _value(tree), _text(tree)
    except NotLiteral as error:
        return _unread(answer, error)
    return Verdict("pass") if _equal(said, ast.literal_eval(output)) else Verdict("wrong", f"says {shown[:200]}")


def score_input(code: str, output: str, answer: str, *, limits: Limits | None = None) -> Verdict:
    """Outcomes as `code.score_humaneval`, of the given function with the answer's arguments."""
    if not _without_tags(answer):
        return Verdict("no-code", "the answer is empty")
    try:
        call = _call(answer)
    except NotLiteral as error:
        return _unread(answer, error)
    return judge(Trial(code, ("f",), "from math import inf, nan", f"assert {call} == {output}"), limits)


def _call(answer: str) -> str:
    """The call of an answer, or with an answer's arguments: `assert f(...) == ...`, `f(...)` or `...`, all literals."""
    try:
        tree = _parse(answer)
    except NotLiteral:
        tree = _parse(f"f({_without_tags(answer)})")  # `1, key=2`
    if isinstance(tree, ast.Compare):
        tree = tree.left
    if not (isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name) and tree.func.id == "f"):
        tree = ast.Call(ast.Name("f"), tree.elts if isinstance(tree, ast.Tuple) else [tree], [])
    for value in (*tree.args, *_named(tree).values()):
        _value(value)
    return _text(tree)


def _named(call: ast.Call) -> dict[str, ast.expr]:
    """The keyword arguments of a call."""
    if any(keyword.arg is None for keyword in call.keywords):
        raise NotLiteral("`**` is no literal")
    return {str(keyword.arg): keyword.value for keyword in call.keywords}


def _without_tags(answer: str) -> str:
    """What stands between the tags, or, as the prompt opens the first, before the closing one."""
    parts = _TAG.split(answer[:LONGEST])
    return next((part for part in parts if part.strip()), "").strip()


def _parse(answer: str) -> ast.expr:
    """The expression of an answer. NotLiteral if it is no Python."""
    text = _without_tags(answer)
    for attempt in (text, text.partition("\n")[0]):  # what follows the assertion may be prose
        try:
            steps = parse_quietly(attempt).body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        if steps and isinstance(steps[0], ast.Assert):
            return steps[0].test
        if steps and isinstance(steps[0], ast.Expr):
            return steps[0].value
    raise NotLiteral("neither an assertion nor a value")


def _value(tree: ast.expr) -> Any:
    """The value of a literal."""
    try:
        if isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name) and tree.func.id in _CALLS:
            given = [ast.literal_eval(a) for a in tree.args]
            named = {name: ast.literal_eval(value) for name, value in _named(tree).items()}
            return _CALLS[tree.func.id](*given, **named)
        return ast.literal_eval(tree)
    except (TypeError, ValueError, SyntaxError, RecursionError, MemoryError):
        raise NotLiteral(f"no literal but {type(tree).__name__}") from None


def _text(tree: ast.expr) -> str:
    try:
        return ast.unparse(tree)
    except (RecursionError, ValueError):  # a number of too many digits
        raise NotLiteral("too long to be written down") from None


def _equal(one: Any, other: Any) -> bool:
    try:
        return bool(one == other)
    except RecursionError:
        return False


def _unread(answer: str, error: NotLiteral) -> Verdict:
    return Verdict("syntax", str(error)) if answer.strip() else Verdict("no-code", "the answer is empty")
