"""From an answer to a program, and HumanEval.

From the model's text to a program: the fenced block that defines the function, if there is one (the first block
otherwise), or the whole text. A program that defines the function follows the prompt, whose imports and given functions
it may use; any other text continues the prompt and ends where the published protocol stops it (Chen et al. 2021,
arXiv 2107.03374: at the next class, function, comment, `if` or `print` in the first column).

Does not repair indentation, close brackets or drop prose from the middle of an answer: such an answer is what it is.
"""

from __future__ import annotations

import ast
import re
import threading
import warnings

from harness.evaluation.sandbox import Limits, Trial, judge
from harness.evaluation.verdict import Verdict

_FENCE = re.compile(r"^[ \t]*(?:```|~~~)[ \t]*([\w+-]*)[^\n]*$", re.MULTILINE)
_INDENTED = re.compile(r"(?:[ \t]*\n)*(?:  |\t)[ \t]*\S")  # a function's body, not prose after a stray space
_PARSING = threading.Lock()  # filters of warnings belong to all threads
_STOP = re.compile(r"^(?:class|def|#|if|print|```|~~~)", re.MULTILINE)


def score_humaneval(
    prompt: str, completion: str, test: str, entry_point: str, *, reference: str = "", limits: Limits | None = None
) -> Verdict:
    """Outcomes: pass, wrong, exception, syntax, timeout, memory, forbidden, no-code, sandbox-error (our failure).

    reference: the data set's own completion.
    """
    program = build_program(prompt, completion, entry_point)
    if program is None:
        return Verdict("no-code", "the answer holds no code")
    trial = Trial(program, (entry_point,), prompt, f"{test}\ncheck({entry_point})\n", prompt + reference)
    return judge(trial, limits)


def parse_quietly(text: str) -> ast.Module:
    """The syntax tree of Python that somebody else wrote, without its warnings (a `\\d` in a plain string)."""
    with _PARSING, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(text)


def find_program(answer: str, names: tuple[str, ...]) -> str | None:
    """An answer that is a whole program: the block that defines one of the names, or all of it; None without code."""
    code = _extract(answer, names)
    return code if code.strip() else None


def build_program(prompt: str, completion: str, entry_point: str) -> str | None:
    """The program to run, or None where the answer holds no code."""
    code = _extract(completion, (entry_point,))
    if not code.strip():
        return None
    if _defines(code, entry_point):
        return f"{prompt}\n\n{code}\n"
    stop = _STOP.search(code)
    body = code[: stop.start()] if stop else code
    return prompt + body + "\n" if body.strip() else None


def _defines(code: str, name: str) -> bool:
    """Whether a function of this name, or the name itself, is made in the first column."""
    return re.search(rf"^(?:async +)?def +{re.escape(name)}\b|^{re.escape(name)} *=", code, re.MULTILINE) is not None


def _extract(text: str, names: tuple[str, ...]) -> str:
    """The part of an answer that is code. names: what it should define."""
    fences = list(_FENCE.finditer(text))
    if not fences or _INDENTED.match(text[: fences[0].start()]):
        return text  # no block, or a body that a fence ends because the prompt opened it
    blocks = []
    for opening, closing in zip(fences[::2], [*fences[1::2], None], strict=False):
        blocks.append(text[opening.end() + 1 : closing.start() if closing else len(text)])
    return next((block for block in blocks if any(_defines(block, name) for name in names)), blocks[0])
