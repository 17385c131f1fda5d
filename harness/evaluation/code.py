"""Score code that a model wrote: HumanEval's completions, in the sandbox.

From the model's text to a program: the fenced block that defines the function, if there is one (the first block
otherwise), or the whole text. A program that defines the function follows the prompt, whose imports and given functions
it may use; any other text continues the prompt and ends where the published protocol stops it (Chen et al. 2021,
arXiv 2107.03374: at the next class, function, comment, `if` or `print` in the first column).

Does not repair indentation, close brackets or drop prose from the middle of an answer: such an answer is what it is.
"""

from __future__ import annotations

import re

from harness.evaluation.sandbox import Limits, Trial, judge
from harness.evaluation.verdict import Verdict

SCORER = 1  # part of a task's protocol: change it whenever the same text may get another verdict

_FENCE = re.compile(r"^[ \t]*(?:```|~~~)[ \t]*([\w+-]*)[^\n]*$", re.MULTILINE)
_INDENTED = re.compile(r"(?:[ \t]*\n)*(?:  |\t)[ \t]*\S")  # a function's body, not prose after a stray space
_STOP = re.compile(r"^(?:class|def|#|if|print|```|~~~)", re.MULTILINE)


def score_humaneval(
    prompt: str, completion: str, test: str, entry_point: str, *, limits: Limits | None = None
) -> Verdict:
    """Outcomes: pass, wrong, exception, syntax, timeout, memory, forbidden, no-code, sandbox-error (our failure)."""
    program = build_program(prompt, completion, entry_point)
    if program is None:
        return Verdict("no-code", "the answer holds no code")
    trial = Trial(program, (entry_point,), prompt, f"{test}\ncheck({entry_point})\n")
    return judge(trial, limits)


def build_program(prompt: str, completion: str, entry_point: str) -> str | None:
    """The program to run, or None where the answer holds no code."""
    code = _extract(completion, entry_point)
    if not code.strip():
        return None
    if _defines(code, entry_point):
        return f"{prompt}\n\n{code}\n"
    stop = _STOP.search(code)
    body = code[: stop.start()] if stop else code
    return prompt + body + "\n" if body.strip() else None


def _defines(code: str, name: str) -> bool:
    return re.search(rf"^(?:async +)?def +{re.escape(name)}\b|^{re.escape(name)} *=", code, re.MULTILINE) is not None


def _extract(text: str, entry_point: str) -> str:
    """The part of an answer that is code."""
    fences = list(_FENCE.finditer(text))
    if not fences or _INDENTED.match(text[: fences[0].start()]):
        return text  # no block, or a body that a fence ends because the prompt opened it
    blocks = []
    for opening, closing in zip(fences[::2], [*fences[1::2], None], strict=False):
        blocks.append(text[opening.end() + 1 : closing.start() if closing else len(text)])
    return next((block for block in blocks if _defines(block, entry_point)), blocks[0])
