"""What can be done for an artifact before an engine is free for it: its weights, who they are, what they should say.

It needs no engine and may run in any process; a process of its own does it while the engine still answers for the
artifact before. It holds no judgement: `canary.py` compares.
"""

from __future__ import annotations

import functools
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.engines.base import Artifact
from harness.engines.canary import Table

if TYPE_CHECKING:
    from harness.engines.weights import Structure


@dataclass(frozen=True)
class Prepared:
    """folder: full weights, with all tensors of the base's.  made: the folder was written for this, and goes with
    `discard`.  structure: of these weights, which may have more tensors than the base.

    fingerprint: of the weights as the engine will hold them.  expected, base_expected: what a plain forward pass in
    float32 says of the artifact and of its base, [prompts, token ids].
    """

    folder: Path
    made: bool
    structure: Structure
    fingerprint: str
    expected: Table
    base_expected: Table

    def discard(self) -> None:
        """Remove what was made."""
        if self.made:
            shutil.rmtree(self.folder, ignore_errors=True)


def prepare(artifact: Artifact, dtype: str, prompts: Sequence[Sequence[int]], ids: Sequence[int]) -> Prepared:
    """Merge if need be, check the fit, read the fingerprint, run the reference. StepFailed if it does not fit."""
    from harness.engines.weights import check_built, check_fit, fingerprint, merge, structure

    made = artifact.kind == "adapter" and artifact.path is not None
    folder = artifact.path or artifact.base
    if made:
        folder = Path(tempfile.mkdtemp(prefix=f"merged-{artifact.digest[:12]}-"))
    try:
        if made:
            merge(artifact.base, artifact.path or artifact.base, folder)
        check_fit(artifact, folder)
        base = base_reference(artifact.base, prompts, ids)
        expected = reference(folder, prompts, ids, functools.partial(check_built, artifact, folder))
        return Prepared(folder, made, structure(folder), fingerprint(folder, dtype), expected, base)
    except BaseException:
        if made:
            shutil.rmtree(folder, ignore_errors=True)
        raise


def reference(
    folder: Path, prompts: Sequence[Sequence[int]], ids: Sequence[int], check: Callable[[Any], None] | None = None
) -> Table:
    """Log-probabilities by transformers, in float32: in bfloat16 its own noise would hide small changes.

    check: is given the report of the loading, and may refuse.
    """
    from harness.engines.hf import load_reported, next_logprobs

    model, report = load_reported(folder, "float32")
    if check:
        check(report)
    table: Table = next_logprobs(model, prompts, ids).double().numpy()
    return table


def base_reference(base: Path, prompts: Sequence[Sequence[int]], ids: Sequence[int]) -> Table:
    """The same of a base, worked out once a process."""
    return _once(base, tuple(tuple(prompt) for prompt in prompts), tuple(ids))


_once = functools.lru_cache(maxsize=1)(reference)
