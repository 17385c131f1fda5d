r"""Find the answer in a model's text, and compare answers as text and as numbers.

`boxed` takes what the prompt asked for, `stated` what a reader would take for the answer where there is no box. Answers
are compared here after removing what is only form: delimiters, spacing, units, the two ways of writing a fraction.
Mathematical equality is `symbolic`'s business. Everything takes time in proportion to the text.
"""

from __future__ import annotations

import re
from fractions import Fraction

LONGEST = 4_000  # characters of a text's end in which a stated answer is sought, and of an answer
_NUMBER = r"[-+]?(?:\d[\d,]*(?:\.\d*)?|\.\d+)"
_STATES = re.compile(r"(?i:answer)(?:\s+(?:is|was|of)\b|\s*[:=])[\s:*]*([^\n]+)")
_MATH = re.compile(r"\$\$?([^$]+)\$|\\\(((?:[^\\]|\\[^)])+)\\\)|\\\[((?:[^\\]|\\[^\]])+)\\\]")
_ENDS = re.compile(r"(?<!\d)[.;](?:\s|$)|\.\s|\.?\**\s*$")
_LETTER = re.compile(r"\(?([A-E])\)?(?![A-Za-z0-9])")
_LONE_LETTER = re.compile(r"(?<![A-Za-z0-9\\])\(?([A-E])\)?(?![A-Za-z0-9'’])")

_GROUPED = re.compile(r"(?<![\d,])\d{1,3}(?:(?:,|\{,\}|\\!,|,\\!)\d{3})+(?![\d,])")
_CLOTHED = re.compile(r"\\(?:text|mbox|mathrm|textbf|mathbf|operatorname|textit|bf)\s*\{([^{}]*)\}")
_SPACING = re.compile(r"\\[!,;:> ]|~|\\quad|\\qquad|\\left(?![a-z])|\\right(?![a-z])|\\displaystyle|\s")
_SIGNS = re.compile(r"\\?[$%]|\^?\{?\\(?:circ|degree)\}?|°|[€£]")
_UNIT = re.compile(
    r"(?<=[\d}])(?:(?:square|cubic)?(?:degrees?|dollars?|cents?|hours?|minutes?|seconds?|days?|weeks?|years?|units?|"
    r"(?:centi|kilo|milli)?met(?:er|re)s?|inches|inch|feet|foot|miles?|mph|pounds?|grams?|percent|points?|[ckm]m|cm\^?2|"
    r"km/h|min|kg))(?:\^\{?[23]\}?)?$"
)
_SHORT_FRACTION = re.compile(r"\\[dt]?frac(?:\{([^{}]+)\}|(\w))(?:\{([^{}]+)\}|(\w))")
_E_NOTATION = re.compile(r"(?<![\w\\])(\d+\.?\d*|\.\d+)[eE]([-+]?\d+)(?!\w)")
_POWER_OF_TEN = re.compile(rf"({_NUMBER})(?:\\times|\\cdot|\*|×|x)10(?:\^|\*\*)(?:\{{([-+]?\d+)\}}|([-+]?\d+))")
_QUOTIENT = re.compile(rf"([-+]?)\(?({_NUMBER})\)?/\(?({_NUMBER})\)?")
_TEX_QUOTIENT = re.compile(rf"([-+]?)\\frac\{{({_NUMBER})\}}\{{({_NUMBER})\}}")


def boxed(text: str) -> str:
    r"""What the last `\boxed{...}` or `\fbox{...}` holds; "" where there is none, or it is not closed."""
    at = max(text.rfind(r"\boxed"), text.rfind(r"\fbox"))
    if at < 0:
        return ""
    begin = text.find("{", at, at + 20)
    if begin < 0 or text[at:begin].rstrip() not in (r"\boxed", r"\fbox"):
        return ""
    depth = 0
    for position in range(begin, min(len(text), begin + LONGEST)):
        escaped = text[position - 1] == "\\"
        depth += 0 if escaped else (text[position] == "{") - (text[position] == "}")
        if depth == 0:
            return text[begin + 1 : position].strip()
    return ""


def stated(text: str) -> str:
    """The box; else what follows the last `####`, or "answer is"; else the last formula, or the last number; or ""."""
    if found := boxed(text):
        return found
    text = text[-LONGEST:]
    if "####" in text:
        return text.rpartition("####")[2].strip().split("\n")[0]
    said = _STATES.findall(text)
    if said:
        formula = _MATH.match(said[-1].strip())
        return _one_of(formula) if formula else _ENDS.split(said[-1], maxsplit=1)[0].strip(" *")
    formulas = list(_MATH.finditer(text))
    if formulas:
        return _one_of(formulas[-1])
    return last_number(text)


def _one_of(match: re.Match[str]) -> str:
    return next(group for group in match.groups() if group is not None).strip()


def last_number(text: str) -> str:
    """The last number of a text, without the punctuation that follows it; "" where there is none."""
    numbers = re.findall(_NUMBER, text[-LONGEST:])
    return numbers[-1].rstrip(".,") if numbers else ""


def letter(answer: str) -> str:
    """The choice that an answer such as `(B)`, `B)` or `B: 12` names; "" where it names none."""
    found = _LETTER.match(_undressed(answer))
    return found[1] if found else ""


def stated_letter(text: str) -> str:
    """The choice in the box; else the one after "answer is"; else the last letter that stands alone; or ""."""
    if found := letter(boxed(text)):
        return found
    text = text[-LONGEST:]
    for said in reversed(_STATES.findall(text)):
        if named := letter(said):
            return named
    alone = _LONE_LETTER.findall(text)
    return alone[-1] if alone else ""


def plain(answer: str) -> str:
    """The answer without what is only form, and a number in lowest terms: `\\dfrac12` and `0.5` both give `1/2`."""
    answer = _undressed(answer[:LONGEST])
    answer = re.sub(r"^[A-Za-z]\w?(?:\([a-z]\))?=(?=[^=]+$)", "", answer)
    answer = re.sub(r"\\([lg]e)q(?![a-z])", r"\\\1", answer)
    answer = re.sub(r"\\sqrt(\w)", r"\\sqrt{\1}", answer)
    exact = number(answer)
    if exact is not None:
        return str(exact)
    return answer if "\\" in answer else answer.casefold()


def _undressed(answer: str) -> str:
    answer = answer.replace("{,}", ",")
    for _ in range(3):  # clothes in clothes
        answer = _CLOTHED.sub(r"\1", answer)
    answer = _SIGNS.sub("", _GROUPED.sub(lambda m: re.sub(r"[^\d]", "", m[0]), answer))
    answer = _SHORT_FRACTION.sub(_written_out, _SPACING.sub("", answer))
    answer = _UNIT.sub("", answer.replace("−", "-").replace("–", "-").rstrip("."))
    while answer[:1] == "{" and answer[-1:] == "}" and "{" not in answer[1:]:
        answer = answer[1:-1]
    return answer


def _written_out(match: re.Match[str]) -> str:
    above, below = match[1] or match[2], match[3] or match[4]
    return rf"\frac{{{above}}}{{{below}}}"


def number(answer: str) -> Fraction | None:
    """The number that an answer is, exactly; None where it is anything else. Units and delimiters are ignored."""
    if len(answer) > 200:
        return None
    text = _undressed(answer)
    power = 0
    if match := _POWER_OF_TEN.fullmatch(text):
        text, power = match[1], int(match[2] or match[3])
    elif match := _E_NOTATION.fullmatch(text.lstrip("+-")):
        text, power = text[: len(text) - len(text.lstrip("+-"))] + match[1], int(match[2])
    if abs(power) > 400:
        return None
    if re.fullmatch(_NUMBER, text) and "," not in text:
        return Fraction(text.rstrip(".")) * Fraction(10) ** power
    quotient = _QUOTIENT.fullmatch(text) or _TEX_QUOTIENT.fullmatch(text)
    if quotient is None or power or "," in text:
        return None
    above, below = (Fraction(part.rstrip(".")) for part in quotient.groups()[1:])
    return (-above if quotient[1] == "-" else above) / below if below else None


def near(gold: str, answer: str, tolerance: float) -> bool:
    """Whether both are numbers and at most `tolerance` apart."""
    one, other = number(gold), number(answer)
    return one is not None and other is not None and abs(one - other) <= Fraction(tolerance)


def as_latex(answer: str) -> str:
    r"""The answer as `symbolic` reads it: `4.5e33` as a power of ten, `3./2` as `3/2`, no percent and dollar signs."""
    answer = re.sub(r"\\?[$%]", "", answer[: 2 * LONGEST]).replace("np.", "\\").replace("**", "^")
    answer = re.sub(r"(?<=\d)\.(?!\d)", "", answer)
    return _E_NOTATION.sub(r"\1 \\times 10^{\2}", answer).strip()
