"""The resident engine: vLLM in this process, one base model, weights swapped in place for every artifact.

In place only where names and shapes are those that the engine was started for: in a model with another structure a
bias would stay behind, or find no place. An artifact with more tensors than its base is served by a fresh engine,
started on its folder, and so is the next one without them.
Adapters are merged before they are served; on a CPU vLLM runs them unmerged ten times slower. On a GPU the same code
lets vLLM choose its memory and its CUDA graphs; that way has not been run by our tests. Tokenising and rendering are
ours (`prompts.py`), so that every engine sends the same ids, and nothing is taken from a model's sampling defaults.
"""

from __future__ import annotations

import functools
import gc
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.engines import canary, choices
from harness.engines.base import DECIMALS, Activation, Artifact, EngineSpec, Request, Response
from harness.engines.choices import Pairs
from harness.engines.prepared import Prepared, base_reference, prepare
from harness.engines.prompts import Prompts
from harness.engines.vllm_start import repack_tied, set_environment, start, stop
from harness.errors import HarnessError, StepFailed

if TYPE_CHECKING:
    from harness.engines.weights import Structure

_WAYS = {"base": "reload", "full": "reload", "adapter": "merge+reload"}


class VLLMEngine:
    name = "vllm"

    def __init__(self) -> None:
        self._llm: Any = None
        self._serial = count()
        self._serving: str | None = None  # fingerprint of the weights that are loaded; None if unknown
        self._structure: Structure | None = None  # that the engine was started for; None while there is none
        self._base_expected: canary.Table | None = None

    # --- opening ----------------------------------------------------------------------------------------------
    def open(self, base: Path, spec: EngineSpec) -> None:
        """Start vLLM without a child process. MissingExtra if it is not installed."""
        set_environment()
        from harness.engines.hf import context_limit
        from harness.engines.weights import fingerprint, structure

        self._base, self._spec = base, spec
        self._prompts = Prompts(base, context_limit(base, spec))
        self._llm = start(base, spec, self._prompts.limit)
        self._structure = self._base_structure = structure(base)
        self._serving = self._base_print = fingerprint(base, spec.dtype)
        self._canary = canary.Canary()
        self._canary_prompts = [self._prompts.tokenizer(text)["input_ids"] for text in canary.PROMPTS]
        self._canary_ids = self._likely_ids()
        self._canary.judge(self._base_print, self._sight("base"))

    # --- activation -------------------------------------------------------------------------------------------
    def ahead(self, artifact: Artifact) -> Callable[[], Prepared] | None:
        if artifact.kind == "base":
            return None
        return functools.partial(prepare, artifact, self._spec.dtype, self._canary_prompts, self._canary_ids)

    def activate(self, artifact: Artifact, prepared: Prepared | None = None) -> Activation:
        """The only way to other weights, and each way ends with the canary.

        Weights of another structure, and an update that is too small for the canary to tell from other weights, are
        served by a fresh engine.
        """
        started = time.perf_counter()
        if artifact.base.resolve() != self._base.resolve():
            raise HarnessError("an engine serves artifacts of one base", where=artifact.name or str(artifact.path))
        if prepared is None and (work := self.ahead(artifact)):
            prepared = work()
        try:
            way, verdict = self._activate(artifact, prepared)
        finally:
            if prepared:
                prepared.discard()
        return Activation(artifact.digest, way, time.perf_counter() - started, verdict)

    def _activate(self, artifact: Artifact, prepared: Prepared | None) -> tuple[str, Mapping[str, Any]]:
        name = artifact.name or (artifact.kind if artifact.kind == "base" else artifact.digest[:12])
        weights, folder, expected = self._base_print, self._base, self._base_expected
        structure = self._base_structure
        if prepared:
            weights, folder, expected = prepared.fingerprint, prepared.folder, prepared.expected
            structure, self._base_expected = prepared.structure, prepared.base_expected
        way, fresh = "kept", False
        if weights != self._serving:
            self._serving = None  # until the canary has spoken
            way, fresh = _WAYS[artifact.kind], structure != self._structure
            if fresh:
                self._restart(folder, structure)
            else:
                self._sentinel()
                self._swap(folder)
                self._check_prefix_cache(name)
            self._check_held(name, folder, structure)
        verdict = self._canary.judge(weights, self._sight(name, expected))
        if verdict["verdict"] == "too small to tell":
            if not fresh:
                fresh = True
                self._restart(folder, structure)
                self._check_held(name, folder, structure)
            verdict = {**verdict, **self._canary.judge_fresh(weights, self._sight(name, expected))}
        self._serving = weights
        if fresh:
            way = way.replace("reload", "restart")
        if prepared and weights == self._base_print:
            verdict = {**verdict, "no_op": True}
        return way, verdict

    def refresh(self, artifact: Artifact) -> Activation:
        """Serve full weights that a few training steps have moved since they were last served.

        Such steps are too small for the canary; whoever trains compares what the engine says of its own samples.
        """
        started = time.perf_counter()
        name, folder = artifact.name or artifact.digest[:12], artifact.path or artifact.base
        from harness.engines.weights import check_fit

        check_fit(artifact, folder)
        self._serving = None  # until an activation says otherwise
        self._sentinel()
        self._swap(folder)
        self._check_prefix_cache(name)
        return Activation(artifact.digest, "refresh", time.perf_counter() - started, {"verdict": "not asked"})

    def _swap(self, folder: Path) -> None:
        """Load other weights and forget all that was made with the old ones. Nothing else may do any part of it."""
        self._llm.collective_rpc("reload_weights", kwargs={"weights_path": str(folder)})
        self._llm.apply_model(repack_tied)
        if not self._llm.reset_prefix_cache():
            raise StepFailed("vLLM did not reset its prefix cache", kind="bug", why="requests were still running")

    def _restart(self, folder: Path, structure: Structure) -> None:
        """A fresh engine on these weights: nothing of earlier ones can have stayed."""
        self.close()
        self._llm = start(folder, self._spec, self._prompts.limit, tokenizer=self._base)
        self._structure = structure

    def _check_held(self, name: str, folder: Path, structure: Structure) -> None:
        """StepFailed unless the engine has all tensors that the base has not, with their values."""
        from harness.engines.vllm_held import not_held
        from harness.engines.weights import OTHER

        names = sorted(structure.keys() - self._base_structure.keys())
        if not names:
            return
        [(homeless, other)] = self._llm.apply_model(
            functools.partial(not_held, folder=folder, names=names, dtype=self._spec.dtype)
        )
        if homeless or other:
            self._structure = None  # whatever it was started for: the next one gets a fresh engine
        if homeless:
            what = f"vLLM's model has no place for {len(homeless)} tensors of the artifact"
            raise StepFailed(what, kind="user", where=name, why=", ".join(homeless[:3]), todo=OTHER)
        if other:
            what = f"the engine holds other values of {len(other)} tensors than the artifact has"
            raise StepFailed(what, kind="bug", where=name, why=", ".join(other[:3]))

    def _sight(self, name: str, expected: canary.Table | None = None) -> canary.Sighting:
        """What the engine says to the canary's prompts, without its prefix cache."""
        params = self._params(max_tokens=1, logprob_token_ids=self._canary_ids, skip_reading_prefix_cache=True)
        seen = np.zeros((len(self._canary_prompts), len(self._canary_ids)))
        for row, output in self._run([(ids, params) for ids in self._canary_prompts]):
            table = output.outputs[0].logprobs[0]
            seen[row] = [table[i].logprob for i in self._canary_ids]
        return canary.Sighting(name, seen, self._expect_base if expected is None else lambda: expected)

    def _expect_base(self) -> canary.Table:
        """Comes with every artifact that was prepared."""
        if self._base_expected is None:
            self._base_expected = base_reference(self._base, self._canary_prompts, self._canary_ids)
        return self._base_expected

    def _likely_ids(self) -> list[int]:
        """The tokens that the base thinks likeliest after the canary prompts, four each: there numerics are finest."""
        params = self._params(max_tokens=1, logprobs=4)
        tables = [out.outputs[0].logprobs[0] for _, out in self._run([(ids, params) for ids in self._canary_prompts])]
        return sorted({token for table in tables for token in table})[: choices.MOST]

    def _sentinel(self) -> int:
        """Send one fixed prompt that fills a block of the prefix cache; how many of its tokens were cached."""
        block = self._llm.llm_engine.vllm_config.cache_config.block_size
        ids = [i for prompt in self._canary_prompts for i in prompt]
        ids = (ids * (block // len(ids) + 1))[: min(block + 1, self._prompts.limit - 1)]
        [(_, output)] = self._run([(ids, self._params(max_tokens=1))])
        return int(output.num_cached_tokens or 0)

    def _check_prefix_cache(self, name: str) -> None:
        cached = self._sentinel()
        if cached:
            raise StepFailed(
                f"the engine kept its prefix cache when {name} was loaded",
                kind="bug",
                where=name,
                why=f"{cached} tokens of a prompt came from the weights before it",
            )

    # --- requests ---------------------------------------------------------------------------------------------
    def prompt_tokens(self, request: Request) -> int:
        return len(self._prompts.encode(request))

    def generate(self, requests: Sequence[Request]) -> Iterator[Response]:
        encoded = self._prompts.checked(requests)
        work = [(ids, self._sampling(r, self._prompts.room(r, ids))) for r, ids in zip(requests, encoded, strict=True)]
        for number, output in self._run(work):
            answer = output.outputs[0]
            if answer.finish_reason not in ("stop", "length"):
                raise StepFailed(f"vLLM ended a request with `{answer.finish_reason}`", kind="bug")
            yield Response(
                requests[number].key,
                answer.text,
                answer.finish_reason,
                tuple(answer.token_ids),
                tuple(round(value, DECIMALS) for value in answer.logprobs.logprobs),
                prompt_tokens=len(encoded[number]),
                generated_tokens=len(answer.token_ids),
            )

    def loglikelihood(self, requests: Sequence[Request]) -> Iterator[Response]:
        """Choices after one context take single steps, which may use the prefix cache; others are scored in full."""
        encoded = self._prompts.checked_pairs(requests)
        stepped = [i for i, pairs in enumerate(encoded) if choices.in_steps(pairs)]
        yield from self._choose_in_steps(requests, encoded, stepped)
        yield from self._choose_in_full(requests, encoded, sorted(set(range(len(requests))) - set(stepped)))

    def _choose_in_steps(
        self, requests: Sequence[Request], encoded: list[Pairs], chosen: list[int]
    ) -> Iterator[Response]:
        places, work = [], []
        for i, node, ways in choices.order(encoded, chosen):
            places.append((i, node))
            work.append(([*encoded[i][0][0], *node], self._params(max_tokens=1, logprob_token_ids=ways)))
        left = Counter(i for i, _ in places)
        tables: dict[int, dict[choices.Node, dict[int, float]]] = {i: {} for i in chosen}
        for number, output in self._run(work):
            i, node = places[number]
            tables[i][node] = {token: entry.logprob for token, entry in output.outputs[0].logprobs[0].items()}
            if len(tables[i]) == left[i]:
                values, greedy = choices.scores(encoded[i], tables.pop(i))
                length = len(encoded[i][0][0])
                yield Response(requests[i].key, logprobs=values, greedy=greedy, prompt_tokens=length)

    def _choose_in_full(
        self, requests: Sequence[Request], encoded: list[Pairs], chosen: list[int]
    ) -> Iterator[Response]:
        params = self._params(max_tokens=1, prompt_logprobs=1)
        places = [(i, j) for i in chosen for j in range(len(encoded[i]))]
        work = [([*context, *choice], params) for i in chosen for context, choice in encoded[i]]
        scored: dict[int, dict[int, tuple[float, bool]]] = {i: {} for i in chosen}
        for number, output in self._run(work):
            i, j = places[number]
            scored[i][j] = _score(output.prompt_logprobs, *encoded[i][j])
            if len(scored[i]) == len(encoded[i]):
                logprobs, greedy = zip(*(scored[i][j] for j in range(len(encoded[i]))), strict=True)
                length = len(encoded[i][0][0])
                yield Response(requests[i].key, logprobs=logprobs, greedy=greedy, prompt_tokens=length)

    def _sampling(self, request: Request, room: int) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

        return SamplingParams(
            temperature=request.temperature,
            top_p=request.top_p,
            max_tokens=room,
            stop=list(request.stop),
            stop_token_ids=list(self._prompts.ends),
            seed=request.seed,
            logprobs=0,  # of the sampled token alone
            flat_logprobs=True,
            structured_outputs=StructuredOutputsParams(grammar=request.grammar) if request.grammar else None,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )

    def _params(self, **options: Any) -> Any:
        """Greedy, without text: for requests that ask for log-probabilities only."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        return SamplingParams(
            temperature=0.0, seed=0, detokenize=False, output_kind=RequestOutputKind.FINAL_ONLY, **options
        )

    def _run(self, work: Sequence[tuple[list[int], Any]]) -> Iterator[tuple[int, Any]]:
        """Submit everything, then give (index, output) of each request as it ends. What is left is aborted on exit."""
        from vllm.inputs.engine import tokens_input

        engine = self._llm.llm_engine
        pending: dict[str, int] = {}
        try:
            for index, (ids, params) in enumerate(work):
                name = str(next(self._serial))
                engine.add_request(name, tokens_input(ids), params)
                pending[name] = index
            while pending:
                for output in engine.step():
                    if output.finished:
                        yield pending.pop(output.request_id), output
        finally:
            if pending:
                engine.abort_request(list(pending))

    def close(self) -> None:
        """Stop the engine."""
        if self._llm is not None:
            stop(self._llm)
            self._llm = self._structure = None
            gc.collect()


def _score(table: Sequence[Any], context: list[int], choice: list[int]) -> tuple[float, bool]:
    """The sum of a choice's token log-probabilities, and whether no token of it had a likelier rival."""
    rows = table[len(context) : len(context) + len(choice)]
    own = [row[token].logprob for row, token in zip(rows, choice, strict=True)]
    return sum(own), all(o >= max(e.logprob for e in row.values()) for o, row in zip(own, rows, strict=True))
