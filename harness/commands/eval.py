"""`harness eval MODEL`: evaluate any checkpoint or adapter, without training.

It is a matrix made on the fly, with the one method `base`; its run is stored, resumed and shown like any other.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from harness.commands.named import plan_of, store_of
from harness.commands.plan import print_plan
from harness.commands.run import carry_out
from harness.errors import HarnessError, Problems

if TYPE_CHECKING:
    from harness.planning.plan import Plan
    from harness.store import Store


def evaluate(args: argparse.Namespace) -> int:
    """The command."""
    from harness.jobs.execute import Asked

    store = store_of(args)
    matrix = make_matrix(args)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "eval.yaml"
        file.write_text(yaml.safe_dump(matrix, sort_keys=False), encoding="utf-8")
        plan = _plan(args, file)
        _check_free(store, matrix)
        if args.dry_run:
            return print_plan(plan, store, verbose=args.verbose, json_wanted=args.json)
        asked = Asked(file, args.set, args.seeds, args.limit, args.runner, args.jobs, args.verbose)
        return carry_out(plan, plan, store, asked, json_wanted=args.json)


def make_matrix(args: argparse.Namespace) -> dict[str, Any]:
    """The content of a matrix file: one model, the method `base`, the suites that were named, or all of them."""
    from harness.evaluation.suite import suite_names

    label = re.sub(r"[^A-Za-z0-9_.+-]+", "-", _name_of(args.model)).strip("-.+") or "model"
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*", args.name or label):
        todo = "use letters, digits, `_`, `.`, `+` and `-`"
        raise HarnessError(f"`{args.name}` is no name for a run", todo=todo)
    suites = suites_of(args.suites) if args.suites else {name: {} for name in suite_names()}
    return {
        "version": 1,
        "name": args.name or f"eval-{label}",
        "models": {label: {"source": _absolute(args.model)} | ({"base": _absolute(args.base)} if args.base else {})},
        "methods": {"base": {}},
        "suites": {name: form | ({"made": True} if args.made else {}) for name, form in suites.items()},
        "engine": {"name": args.engine},
    }


def suites_of(text: str) -> dict[str, dict[str, Any]]:
    """`math,code:humaneval,code:mbpp,glue:all` as the `suites:` of a matrix. HarnessError for an empty name."""
    found: dict[str, dict[str, Any]] = {}
    named: set[str] = set()
    for part in text.split(","):
        suite, colon, task = part.strip().rpartition(":") if ":" in part else (part.strip(), "", "")
        if not suite or (colon and not task):
            todo = "write --suites SUITE,SUITE:TASK,SUITE:all"
            raise HarnessError(f"`{part}` names no suite" if not suite else f"`{part}` names no task", todo=todo)
        form = found.setdefault(suite, {})
        if suite in named and bool(task) != bool(form):
            raise HarnessError(
                f"`{suite}` is named both whole and by its tasks", todo=f"write {suite}:all, or only tasks"
            )
        named.add(suite)
        if task == "all":
            form["tasks"] = "all"
        elif task and form.get("tasks") != "all":
            form["tasks"] = [*form.get("tasks", []), task]
    return found


def _name_of(source: str) -> str:
    """The last part of a path, of a hub id or of a package's name, without `.gguf`."""
    return source.rstrip("/").partition("@")[0].rpartition("/")[2].rpartition(":")[2].removesuffix(".gguf")


def _absolute(source: str) -> str:
    """A path that is there, in full, since the run may be scored again from another folder."""
    path = Path(source.removeprefix("file:")).expanduser()
    return str(path.resolve()) if path.exists() else source


def _plan(args: argparse.Namespace, file: Path) -> Plan:
    """The plan; places in a file that the user never wrote are named after the command."""
    try:
        return plan_of(argparse.Namespace(**{**vars(args), "matrix": file, "only": [], "seeds": None}))
    except HarnessError as error:
        for problem in error.problems if isinstance(error, Problems) else [error]:
            if problem.where.startswith(str(file)):
                problem.where = "harness eval"
        raise


def _check_free(store: Store, matrix: dict[str, Any]) -> None:
    """A name stands for one model: a run of that name that is of another would be lost from sight."""
    from harness.replan import MATRIX
    from harness.runs import run_folder

    folder = run_folder(store, matrix["name"])
    if not (folder / "run.json").exists():
        return
    known = yaml.safe_load((folder / MATRIX).read_text(encoding="utf-8")) if (folder / MATRIX).exists() else {}
    if known.get("models") != matrix["models"] or known.get("methods") != matrix["methods"]:
        raise HarnessError(
            f"there is a run `{matrix['name']}` of something else in this store",
            where=str(folder),
            todo="give this one a name with --name",
        )
