"""The bfcl-eval package's own verdicts on answers; started by `bfcl_parity.py` in an environment made for it.

    python bfcl_upstream.py QUESTIONS VERDICTS

QUESTIONS: JSON lines, {"category", "row"} followed by {"text"} for each answer to it. VERDICTS: one 0 or 1 for each
answer. The package's list of models, which would pull in the clients of every provider, is the only part replaced.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

Judge = Callable[[str, dict[str, Any], str], bool]


def upstream() -> Judge:
    """The package's verdict on an answer's text: True if it counts as right."""
    sys.modules["bfcl_eval.constants.model_config"] = models = MagicMock()
    models.MODEL_CONFIG_MAPPING.__getitem__.return_value.underscore_to_dot = (
        False  # as for every model that is prompted
    )
    from bfcl_eval.constants.enums import Language
    from bfcl_eval.eval_checker.ast_eval.ast_checker import ast_checker
    from bfcl_eval.model_handler.utils import default_decode_ast_prompting
    from bfcl_eval.utils import is_empty_output, is_function_calling_format_output

    def verdict(category: str, row: dict[str, Any], text: str) -> bool:
        try:
            calls = default_decode_ast_prompting(text)
        except Exception:  # the package counts an answer that it cannot decode as no call
            return "irrelevance" in category
        if "relevance" in category:  # nothing but whether there is a call counts
            return bool(is_empty_output(calls)) == ("irrelevance" in category)
        if not is_function_calling_format_output(calls):
            return False
        try:
            result = ast_checker(row["function"], calls, row["ground_truth"], Language.PYTHON, category, "any")
        except Exception:  # which ends the package's own run; no answer can be right there
            return False
        return bool(result["valid"])

    return verdict


def main(questions: Path, verdicts: Path) -> None:
    judge = upstream()
    category, row = "", dict[str, Any]()
    with questions.open(encoding="utf-8") as lines, verdicts.open("w") as out:
        for line in map(json.loads, lines):
            if "row" in line:
                category, row = line["category"], line["row"]
            else:
                out.write("01"[judge(category, row, line["text"])])


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
