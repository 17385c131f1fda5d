"""Dependencies point down the list of layers, and nothing heavy is imported before it is needed."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "harness"

# From the top down. A module may import from its own layer and from those below it.
LAYERS: list[set[str]] = [
    {"cli", "commands", "demo", "__main__"},
    {"replan"},
    {"nightly"},
    {"jobs", "runs", "doctor", "runners", "boards", "trackers"},
    {"planning.pending", "steps"},
    {"planning"},
    {"training", "evaluation", "engines", "data", "results"},
    {"methods", "engines.base", "training.blocks"},
    {"store", "digest", "matrix", "config", "errors", "packaged", "machine", "source"},
]
HEAVY = (
    "matplotlib",
    "torch",
    "transformers",
    "vllm",
    "lm_eval",
    "datasets",
    "pandas",
    "scipy",
    "statsmodels",
    "peft",
    "reasoning_gym",
    "nltk",
    "optuna",
)


def modules() -> list[Path]:
    return sorted(p for p in PACKAGE.rglob("*.py") if p.name != "__init__.py" or p.parent != PACKAGE)


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def layer_of(name: str) -> int:
    for number, layer in enumerate(LAYERS):
        if name in layer:
            return number
    for number, layer in enumerate(LAYERS):
        if name.split(".")[0] in layer:
            return number
    raise AssertionError(f"harness.{name} is in no layer: add it to LAYERS in {Path(__file__).name}")


def imports_of(path: Path) -> set[str]:
    """Modules of ours that a file imports at run time, wherever in the file; types-only imports do not count."""
    found = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("harness"):
            base = node.module.removeprefix("harness").lstrip(".")
            for alias in node.names:
                whole = f"{base}.{alias.name}".lstrip(".")
                found.add(whole if (PACKAGE / whole.replace(".", "/")).with_suffix(".py").exists() else base)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text()))
    return {n for n in found if n}


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_a_module_imports_only_from_its_own_layer_and_below(path: Path) -> None:
    mine = layer_of(name_of(path))
    above = {other for other in imports_of(path) if layer_of(other) < mine}
    assert not above, f"{name_of(path)} imports from a layer above it: {sorted(above)}"


def test_every_file_is_one_idea_long() -> None:
    long = {name_of(p): n for p in modules() if (n := len(p.read_text().splitlines())) > 400}
    assert not long, f"over 400 lines: {long}"


@pytest.mark.parametrize(
    "module", ["harness.cli", "harness.planning.plan", "harness.results.table", "harness.methods.base"]
)
def test_planning_and_tables_load_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print([m for m in {HEAVY!r} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_training_loads_no_engine_and_no_evaluation() -> None:
    code = (
        "import sys, harness.training.stage, harness.training.adapters.native\n"
        "print([m for m in ('vllm', 'lm_eval', 'harness.engines.vllm') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
