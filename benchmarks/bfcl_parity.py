"""Does our BFCL checker give the verdicts of the bfcl-eval package? Run by hand.

    python benchmarks/bfcl_parity.py [--write] [--env DIR]

Every item of every category present is compared on the gold answer and its systematic changes (tests/bfcl_answers.py),
and on many more changes of single values. The package judges in an environment of its own, with its Java and
JavaScript parsers (`bfcl_upstream.py`); it is made in DIR, or in a temporary folder. The Java and JavaScript categories
are not measured here. Prints one line for each kind of change, then every kind of disagreement with an example; exit
status 1 if there is one. `--write` keeps the package's verdicts on the systematic answers in
tests/bfcl_verdicts.json.gz, against which the tests compare.
"""

from __future__ import annotations

import argparse
import gzip
import json
import subprocess
import sys
import tempfile
import venv
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from harness.evaluation.tool_answers import as_python, gold_calls  # noqa: E402 (after the path to tests/)
from harness.evaluation.tool_calls import Call  # noqa: E402
from tests.bfcl_answers import ANSWERED, CATEGORIES, answers, fingerprint, ours, rows_of  # noqa: E402

VERDICTS = ROOT / "tests" / "bfcl_verdicts.json.gz"
# Without their dependencies; the parsers are of the versions that the package's old tree-sitter reads.
PACKAGES = (
    f"bfcl-eval=={version('bfcl-eval')}",
    f"filelock=={version('filelock')}",
    "tenacity==9.2.1",
    "tree-sitter==0.21.3",
    "tree-sitter-java==0.21.0",
    "tree-sitter-javascript==0.21.4",
)
Asked = tuple[str, dict[str, Any], list[tuple[str, str]]]  # category, row, (kind of change, text) of each answer


def make_environment(folder: Path) -> Path:
    """An environment with the package in it; its interpreter."""
    if not (folder / "bin" / "python").exists():
        venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", *PACKAGES], check=True)
    return python


def upstream(asked: Sequence[Asked], python: Path, folder: Path) -> str:
    """The package's verdicts on all answers in order, a 0 or 1 each."""
    questions, verdicts = folder / "questions.jsonl", folder / "verdicts"
    with questions.open("w", encoding="utf-8") as file:
        for category, row, texts in asked:
            file.write(json.dumps({"category": category, "row": row}) + "\n")
            file.writelines(json.dumps({"text": text}) + "\n" for _, text in texts)
    subprocess.run([python, Path(__file__).with_name("bfcl_upstream.py"), questions, verdicts], check=True)
    return verdicts.read_text()


def all_answers() -> Iterator[Asked]:
    """Every item with its answers, the systematic ones first."""
    for category in CATEGORIES:
        for row in rows_of(category):
            more = more_answers(row) if category in ANSWERED else ()
            yield category, row, [*answers(category, row), *more]


def changed_values(value: Any) -> Iterator[tuple[str, Any]]:
    """Changes of one value, with their names."""
    yield from (("as text", str(value)), ("as a number", 7), ("as none", None), ("in a list", [value]))
    match value:
        case bool():
            yield from (("flipped", not value), ("bool as int", int(value)))
        case int():
            yield from (("plus one", value + 1), ("int as float", float(value)), ("negative", -value - 1))
        case float():
            yield from (("plus a half", value + 0.5), ("float as int", int(value)))
        case str():
            yield from (("upper case", value.upper()), ("punctuation", f"{value}."), ("longer", f"{value}zz"))
            yield from (("spaces", value.replace(" ", "")), ("quotes", value.replace("'", '"')), ("empty", ""))
        case list():
            yield from (("as a tuple", tuple(value)), ("emptied", []), ("reversed", value[::-1]))
            yield from (("shorter", value[:-1]), ("doubled", value + value), ("plus none", [*value, None]))
            for first in value[:1]:
                yield from ((f"item {name}", [item, *value[1:]]) for name, item in changed_values(first))
        case dict():
            yield from (("emptied", {}), ("one key more", {**value, "zz": 1}))
            for key in list(value)[:3]:
                yield "one key less", {k: v for k, v in value.items() if k != key}
                for name, item in changed_values(value[key]):
                    yield f"key {name}", {**value, key: item}


def more_answers(row: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Changes of each call of the gold answer, one at a time, with their names."""
    gold = gold_calls(row["function"], row["ground_truth"])
    for place, call in enumerate(gold):
        for how, changed in changed_calls(call, next(iter(row["ground_truth"][place].values()))):
            text = as_python([*gold[:place], changed, *gold[place + 1 :]])
            yield f"value: {how}", text.replace("'\\x00", "").replace("\\x00'", "")  # what is no text but a variable
        others = as_python(gold[:place] + gold[place + 1 :])[1:-1]
        bare = f"{call.name}({', '.join(map(repr, call.arguments.values()))})"
        yield "value: positional", f"[{others}, {bare}]" if others else f"[{bare}]"


def changed_calls(call: Call, allowed: dict[str, list[Any]]) -> Iterator[tuple[str, Call]]:
    yield "underscore", replace(call, name=call.name.replace(".", "_"))
    for key, value in call.arguments.items():
        yield "left out", replace(call, arguments={k: v for k, v in call.arguments.items() if k != key})
        tried = [("variable", "\0some_name\0"), *changed_values(value), *(("allowed", other) for other in allowed[key])]
        for how, other in tried:
            yield how, replace(call, arguments={**call.arguments, key: other})


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--env", type=Path)
    args = parser.parse_args()
    asked = list(all_answers())
    with tempfile.TemporaryDirectory() as folder:
        python = make_environment(args.env or Path(folder, "env"))
        bits = iter(upstream(asked, python, Path(folder)))
    compared, agreed, passed, gold_fails = Counter[str](), Counter[str](), Counter[str](), []
    sizes, disagreements = Counter[str](), dict[str, str]()
    kept: dict[str, dict[str, list[str]]] = {}
    for category, row, texts in asked:
        sizes[category] += len(texts)
        given = ""
        for how, text in texts:
            mine, bit = ours(category, row, text), next(bits)
            given += bit
            theirs = bit == "1"
            compared[how] += 1
            agreed[how] += mine.passed == theirs
            passed[how] += theirs
            if mine.passed != theirs:
                disagreements.setdefault(how, f"{row['id']}: {text}\n  ours {mine}, upstream passes: {theirs}")
            if how == "gold" and not theirs:
                gold_fails.append(f"{row['id']}: {text}")
        systematic = [text for _, text in answers(category, row)]
        kept.setdefault(category, {})[row["id"]] = [fingerprint(systematic), given[: len(systematic)]]
    for category, count in sizes.items():
        print(f"{category:24} {len(kept[category]):5} items {count:8} answers")
    print(f"\n{'change':32} {'compared':>8} {'agree':>8} {'pass upstream':>14}")
    for how, count in [*sorted(compared.items()), ("all", compared.total())]:
        both = (agreed.total(), passed.total()) if how == "all" else (agreed[how], passed[how])
        print(f"{how:32} {count:8} {both[0]:8} {both[1]:14}")
    for how, example in disagreements.items():
        print(f"\n{how}: {example}")
    print("\n".join(["", f"{len(gold_fails)} gold answers fail upstream", *gold_fails]))
    if args.write:
        body = json.dumps({"package": f"bfcl-eval {version('bfcl-eval')}", "verdicts": kept}, separators=(",", ":"))
        VERDICTS.write_bytes(gzip.compress(body.encode(), mtime=0))
    return int(agreed != compared)


if __name__ == "__main__":
    sys.exit(main())
