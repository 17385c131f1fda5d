"""The reference engine, on transformers: slow, plain, and what the other engines are compared with.

It also serves what vLLM cannot (adapters unmerged, artifacts with a tokenizer or shapes of their own). What all
prompts of a batch begin with goes through the model once, and a row leaves its batch with its last token; there is no
continuous batching: the next batch waits for the longest answer.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness.data import checkpoint
from harness.data.convert import quiet
from harness.engines.base import DECIMALS, Activation, Artifact, EngineSpec, Request, Response
from harness.engines.prompts import Prompts
from harness.engines.unmerged import attach
from harness.errors import HarnessError, Refused

_BATCH = 16  # sequences in a pass, at least where they are answered
_MOST = 64  # answered side by side, where the memory for keys and values allows it


def context_limit(folder: Path, spec: EngineSpec) -> int:
    """Tokens a prompt and its answer may have together: the specification's, at most the model's."""
    return min(spec.max_model_len, checkpoint.context(folder) or spec.max_model_len)


def load(folder: Path, dtype: str) -> Any:
    """The model of a folder, for inference, on the GPU if there is one. HarnessError if it cannot be opened."""
    return _open(folder, dtype)[0]


def load_reported(folder: Path, dtype: str) -> tuple[Any, Mapping[str, Collection[Any]]]:
    """The same, and how the files differ from what the configuration builds.

    missing_keys, unexpected_keys: names of tensors that only the configuration or only the files have.
    mismatched_keys: (name, shape, shape) of those whose shapes differ; `load` refuses these.
    """
    return _open(folder, dtype, ignore_mismatched_sizes=True)


def _open(folder: Path, dtype: str, **how: Any) -> tuple[Any, Mapping[str, Collection[Any]]]:
    from transformers import AutoModelForCausalLM

    how.update(dtype=getattr(torch, dtype), local_files_only=True, output_loading_info=True)
    try:
        with quiet():
            model, report = AutoModelForCausalLM.from_pretrained(folder, **how)
    except (OSError, ValueError, KeyError) as error:
        raise HarnessError("transformers cannot open the model", where=str(folder), why=str(error)) from error
    return model.eval().to("cuda" if torch.cuda.is_available() else "cpu"), report


def next_logprobs(model: Any, prompts: Sequence[Sequence[int]], ids: Sequence[int]) -> Tensor:
    """Log-probability of every one of `ids` as the next token of every prompt: [prompts, ids], float32.

    One pass for all prompts, padded on the right, where a causal model does not look.
    """
    lengths = torch.tensor([len(prompt) for prompt in prompts])
    width = int(lengths.max())
    padded = torch.tensor([[*prompt, *[0] * (width - len(prompt))] for prompt in prompts], device=model.device)
    with torch.inference_mode():
        hidden = model(padded, output_hidden_states=True, logits_to_keep=1).hidden_states[-1]
        last = hidden[torch.arange(len(prompts)), lengths.to(hidden.device) - 1]
        logits = model.get_output_embeddings()(last)
    return logits.float().log_softmax(-1)[:, list(ids)].cpu()


@dataclass
class _Row:
    """One request while it is being answered."""

    request: Request
    prompt: list[int]
    room: int
    dice: torch.Generator
    new: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    text: str = ""
    finish: str = ""


class HFEngine:
    name = "hf"

    def __init__(self) -> None:
        self._model: Any = None
        self._active = ""

    def open(self, base: Path, spec: EngineSpec) -> None:
        self._base, self._spec = base, spec
        self._prompts = Prompts(base, context_limit(base, spec))

    def ahead(self, artifact: Artifact) -> None:
        return None

    def activate(self, artifact: Artifact, prepared: Any = None) -> Activation:
        started = time.perf_counter()
        if artifact.digest != self._active or self._model is None:
            self._model = None  # give its memory back before the next one is loaded
            self._model = self._load(artifact)
            own = artifact.path if artifact.path and (artifact.path / "tokenizer_config.json").exists() else None
            self._prompts = Prompts(own or artifact.base, context_limit(artifact.base, self._spec))
            self._active = artifact.digest
        return Activation(artifact.digest, "load", time.perf_counter() - started, {"verdict": "loaded afresh"})

    def _load(self, artifact: Artifact) -> Any:
        if artifact.kind == "full" and artifact.path is not None:
            return load(artifact.path, self._spec.dtype)
        model = load(artifact.base, self._spec.dtype)
        if artifact.kind == "adapter" and artifact.path is not None:
            model = attach(model, artifact.path)
        return model

    def prompt_tokens(self, request: Request) -> int:
        return len(self._prompts.encode(request))

    def generate(self, requests: Sequence[Request]) -> Iterator[Response]:
        if any(request.grammar for request in requests):
            raise Refused("the engine `hf` has no grammars", todo="use the engine `vllm` for this task")
        encoded = self._prompts.checked(requests)
        todo = [
            _Row(r, ids, self._prompts.room(r, ids), torch.Generator().manual_seed(r.seed))
            for r, ids in zip(requests, encoded, strict=True)
        ]
        todo.sort(key=lambda row: -len(row.prompt))
        batch = self.side_by_side(max((len(row.prompt) + row.room for row in todo), default=1))
        for first in range(0, len(todo), batch):
            rows = todo[first : first + batch]
            self._answer(rows)
            for row in rows:
                yield Response(
                    row.request.key,
                    row.text,
                    row.finish,
                    tuple(row.new),
                    tuple(row.logprobs),
                    prompt_tokens=len(row.prompt),
                    generated_tokens=len(row.new),
                )

    def side_by_side(self, longest: int) -> int:
        """How many sequences of so many tokens are answered in a batch."""
        config = self._model.config.get_text_config(decoder=True)
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        token = 2 * config.num_hidden_layers * heads * size * self._model.dtype.itemsize
        fit = int(self._spec.memory * 2**30 / (token * longest))
        return min(_MOST, max(_BATCH, fit))

    def _answer(self, rows: Sequence[_Row]) -> None:
        """Decode token by token; a row that has its `finish` leaves the batch."""
        ids, mask, cache = self._begun([row.prompt for row in rows])
        out = self._forward(ids, mask, cache, keep=1)
        with _decoding(self._model):
            while True:
                for row, scores in zip(rows, out.logits[:, -1].float().cpu(), strict=True):
                    token = _sample(scores, row)
                    row.logprobs.append(round(float(scores.log_softmax(-1)[token]), DECIMALS))
                    self._append(row, token)
                going = torch.tensor([not row.finish for row in rows])
                if not going.any():
                    return
                cache = out.past_key_values
                if not going.all():
                    rows, mask = [row for row in rows if not row.finish], mask[going]
                    cache.batch_select_indices(going)
                ids = mask.new_tensor([[row.new[-1]] for row in rows])
                mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
                out = self._forward(ids, mask, cache, keep=1)

    def _forward(self, ids: Tensor, mask: Tensor, cache: Any, *, keep: int) -> Any:
        """One pass over ids [rows, new] that continue a cache, if there is one. mask: [rows, cached + new]."""
        places = (mask.cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        with torch.inference_mode():
            return self._model(
                ids, mask, position_ids=places, past_key_values=cache, use_cache=True, logits_to_keep=keep
            )

    def _append(self, row: _Row, token: int) -> None:
        row.new.append(token)
        ended = token in self._prompts.ends
        row.text = self._decode(row.prompt, row.new[: -1 if ended else None])
        cut = min((row.text.index(stop) for stop in row.request.stop if stop in row.text), default=None)
        if cut is not None:
            row.text = row.text[:cut]
        if ended or cut is not None:
            row.finish = "stop"
        elif len(row.new) >= row.room:
            row.finish = "length"

    def _decode(self, prompt: list[int], new: list[int]) -> str:
        """What the new tokens add to the prompt's last ones: some tokenizers drop a leading space otherwise."""
        tail, decode = prompt[-4:], self._prompts.tokenizer.decode
        before = decode(tail, skip_special_tokens=True)
        return str(decode([*tail, *new], skip_special_tokens=True))[len(before) :]

    def loglikelihood(self, requests: Sequence[Request]) -> Iterator[Response]:
        encoded = self._prompts.checked_pairs(requests)
        for request, pairs in zip(requests, encoded, strict=True):
            scored = [s for i in range(0, len(pairs), _BATCH) for s in self._score(pairs[i : i + _BATCH])]
            logprobs, greedy = zip(*scored, strict=True)
            yield Response(request.key, logprobs=logprobs, greedy=greedy, prompt_tokens=len(pairs[0][0]))

    def _score(self, pairs: Sequence[tuple[list[int], list[int]]]) -> list[tuple[float, bool]]:
        """For each (context, choice): the choice's log-probability, and whether no token of it had a likelier rival."""
        keep = max(len(choice) for _, choice in pairs) + 1
        logits = self._forward(*self._begun([[*context, *choice] for context, choice in pairs], keep), keep=keep).logits
        scored = []
        for row, (_, choice) in zip(logits, pairs, strict=True):
            logprobs = row[-len(choice) - 1 : -1].float().log_softmax(-1).cpu()
            own = logprobs.gather(1, torch.tensor(choice)[:, None])[:, 0]
            scored.append((float(own.sum()), bool((own >= logprobs.max(-1).values).all())))
        return scored

    def _begun(self, rows: Sequence[list[int]], keep: int = 1) -> tuple[Tensor, Tensor, Any]:
        """Ids still to be read, at least `keep` of every row, the mask over all, and the cache of what all begin with.

        The ids are padded between that and their own; padding is masked, so its value does not matter.
        """
        several = len(rows) > 1 and _attends_to_all(self._model)
        shared = _shared(rows, min(len(row) for row in rows) - keep) if several else 0
        rest = [row[shared:] for row in rows]
        length = max(len(row) for row in rest)
        device = self._model.device
        ids = torch.tensor([[0] * (length - len(row)) + row for row in rest], device=device)
        mask = torch.tensor([[1] * shared + [0] * (length - len(row)) + [1] * len(row) for row in rest], device=device)
        cache = None
        if shared:
            start = torch.tensor([rows[0][:shared]], device=device)
            cache = self._forward(start, torch.ones_like(start), None, keep=1).past_key_values
            cache.batch_repeat_interleave(len(rows))
        return ids, mask, cache

    def close(self) -> None:
        self._model = None


@contextmanager
def _decoding(model: Any) -> Iterator[None]:
    """Plain products instead of torch's fused attention, which on a CPU takes up to nine times as long for one query
    (bfloat16, 16 rows of 500 tokens). Prompts are read with the fused one: plain products need the square of their
    length in memory."""
    usual = model.config._attn_implementation
    if model.device.type != "cpu" or usual != "sdpa":
        yield
        return
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(usual)


def _attends_to_all(model: Any) -> bool:
    """Whether every layer sees all earlier tokens: a window would be filled by padding after a shared beginning."""
    from transformers.cache_utils import DynamicCache, DynamicLayer

    return all(type(layer) is DynamicLayer for layer in DynamicCache(config=model.config).layers)


def _shared(rows: Sequence[list[int]], most: int) -> int:
    """How many tokens all rows begin with; at most `most`."""
    low, high = min(rows), max(rows)  # what these two share, all between them do
    return next((i for i in range(max(most, 0)) if low[i] != high[i]), max(most, 0))


def _sample(logits: Tensor, row: _Row) -> int:
    """The next token of one row: the likeliest at temperature 0, else drawn from the top-p nucleus."""
    request = row.request
    if request.temperature == 0:
        return int(logits.argmax())
    values, order = (logits / request.temperature).softmax(-1).sort(descending=True)
    values[values.cumsum(-1) - values >= request.top_p] = 0
    return int(order[torch.multinomial(values, 1, generator=row.dice)])
