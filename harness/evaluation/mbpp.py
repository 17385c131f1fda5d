"""MBPP: a program judged by the data set's assertions, in the sandbox.

As in the published protocol (Austin et al. 2021, arXiv 2108.07732) the test's own imports come before the solution and
its set-up code after it, so that the set-up may use the solution's classes. Which names of a test are the program's is
read from the data set's reference, never from the answer: a `set` of the answer's own does not reach the test.

Does not run the "challenge" assertions, which no published number counts.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Mapping
from typing import Any

from harness.evaluation.code import find_program, parse_quietly
from harness.evaluation.sandbox import Limits, Trial, judge
from harness.evaluation.verdict import Verdict


def score_mbpp(doc: Mapping[str, Any], answer: str, *, limits: Limits | None = None) -> Verdict:
    """doc: a row of MBPP or of its sanitised edition. Outcomes as `code.score_humaneval`."""
    imports = "\n".join(doc.get("test_imports") or [])
    test = "\n".join([doc.get("test_setup_code") or "", *doc["test_list"]])
    names, modules = tested_names(doc["code"], test)
    program = find_program(answer, names)
    if program is None:
        return Verdict("no-code", "the answer holds no code")
    reference = f"{imports}\n{doc['code']}"
    return judge(Trial(f"{imports}\n{program}", names, f"{imports}\n{modules}", test, reference), limits)


@functools.lru_cache(maxsize=4096)
def tested_names(reference: str, test: str) -> tuple[tuple[str, ...], str]:
    """(names of the program that a test uses, imports of the reference that it relies on)."""
    tree = parse_quietly(test)
    used = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
    made = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    names, imports = set(), []
    for step in parse_quietly(reference).body:
        if isinstance(step, ast.FunctionDef | ast.ClassDef):
            names.add(step.name)
        elif isinstance(step, ast.Import | ast.ImportFrom):
            own = {(alias.asname or alias.name).partition(".")[0] for alias in step.names}
            imports += [ast.unparse(step)] if own & used else []
    return tuple(sorted(names & used - made)), "\n".join(imports)
