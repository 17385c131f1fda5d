"""Starts vLLM in this process, without a child, and keeps what it prints to what a reader of a log can use.

It does not know about requests, artifacts or activation.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness.engines import INSTALL_VLLM
from harness.engines.base import EngineSpec
from harness.errors import HarnessError, MissingExtra

SEQUENCES = 64  # answered side by side on a CPU
_HARMLESS = (
    "The global random seed is set to",
    "Enforce eager set",
    "Inductor compilation was disabled",
    "Triton is not installed",
    "Reset SSM cache type",
    "Model Runner V2 requires Triton",
    "is not found in LD_PRELOAD",
    "`torch.set_num_threads`",
    "leaving Torch threads at",
    "is already registered. Overwriting",  # its kernels, by a second engine in this process
    "officially support disabling chunked prefill",  # said of every model that generates
    "VLLM_DIST_IDENT",  # a variable of its own, which a second engine finds
    "Failed to load weights",  # of tied or buffer-only layers; missing weights are refused before a swap
)


def set_environment() -> None:
    """Set what torch and vLLM read from the environment when they are imported; call it before either is.

    Threads that wait for each other spin for a moment only: endless spinning was ten times slower on busy cores. On
    idle cores the settings are alike (`benchmarks/threads.py`).
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # an engine process of its own would survive our kill -9
    os.environ["VLLM_CONFIGURE_LOGGING"] = "0"  # `_log_warnings` does it
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")


def start(folder: Path, spec: EngineSpec, limit: int, tokenizer: Path | None = None) -> Any:
    """A `vllm.LLM` that serves the weights of `folder` with a context of `limit` tokens. HarnessError if it cannot.

    tokenizer: the folder of one, where the weights come without.
    """
    import torch

    on_gpu = torch.cuda.is_available()
    if not on_gpu:  # one small function would be compiled at the first log-probability: 14 s, the same numbers
        os.environ["TORCHDYNAMO_DISABLE"] = "1"
    with _quiet():
        try:
            from vllm import LLM
        except ModuleNotFoundError as error:
            raise MissingExtra(error.name or "vllm", "the engine `vllm`", INSTALL_VLLM) from error
        _log_warnings()
        _only_numbers()
        on_cpu = {
            "enforce_eager": True,
            "kv_cache_memory_bytes": int(spec.memory * 2**30),
            "max_num_seqs": SEQUENCES,
            "enable_chunked_prefill": False,  # a sampled answer to a prompt in parts rewinds a GPU's random numbers
        }
        try:
            return LLM(
                str(folder),
                tokenizer=str(tokenizer or folder),
                dtype=spec.dtype,
                max_model_len=limit,
                seed=0,
                generation_config="vllm",
                disable_log_stats=True,
                use_tqdm_on_load=False,
                **({} if on_gpu else on_cpu),
            )
        except (ValueError, RuntimeError, MemoryError) as error:
            raise HarnessError("vLLM cannot open the model", where=str(folder), why=str(error)) from error


def stop(llm: Any) -> None:
    """Shut an engine down. Most of its memory comes back once nothing refers to it, the rest when the process ends."""
    from vllm.distributed import cleanup_dist_env_and_memory

    llm.llm_engine.engine_core.shutdown()
    with _quiet():
        cleanup_dist_env_and_memory()


def repack_tied(model: Any) -> None:
    """Let layers that share another layer's weight take it up again after a reload.

    On a CPU vLLM keeps a packed copy of every matrix it multiplies with. A reload renews the copy of a layer whose
    weight was in the file; an output head tied to the embedding has none there and would go on with the old copy.
    """
    seen: set[int] = set()
    for layer in model.modules():
        weight = getattr(layer, "weight", None)
        if weight is None:
            continue
        if weight.data_ptr() in seen and hasattr(layer, "quant_method"):
            layer.quant_method.process_weights_after_loading(layer)
        seen.add(weight.data_ptr())


def _only_numbers() -> None:
    """Let vLLM give log-probabilities without what nobody asks for: a sampled token's rank, and every token's text.

    On a CPU these are most of what log-probabilities cost; `benchmarks/evaluation.py` shows what is left.
    """
    from vllm.v1.engine import logprobs as texts
    from vllm.v1.outputs import LogprobsTensors
    from vllm.v1.sample.sampler import Sampler

    whole = Sampler.gather_logprobs
    if whole.__name__ == "gather":  # an engine was started before
        return

    def gather(logprobs: Any, number: int, token_ids: Any) -> Any:
        if number:
            return whole(logprobs, number, token_ids)
        ids = token_ids.unsqueeze(-1)
        return LogprobsTensors(ids.int(), logprobs.gather(-1, ids), token_ids.new_zeros(len(token_ids)))

    Sampler.gather_logprobs = staticmethod(gather)
    texts.convert_ids_list_to_tokens = lambda _, ids: [""] * len(ids)


def _log_warnings() -> None:
    """Warnings of vLLM go to stderr, but for those that say nothing about this use of it."""
    logger, handler = logging.getLogger("vllm"), logging.StreamHandler()
    handler.setFormatter(logging.Formatter("vllm: %(levelname)s: %(message)s"))
    handler.addFilter(lambda record: not any(text in record.getMessage() for text in _HARMLESS))
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(logging.WARNING)


@contextmanager
def _quiet() -> Iterator[None]:
    """vLLM and what it imports warn of their own deprecations while they load."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
