"""Proof that an engine serves the weights it was told to serve, and no others.

Weights that stay behind after a swap would poison a table without a sign. So after every activation the engine gives
the log-probabilities of a fixed set of next tokens after fixed prompts, and they are compared, relative to what was
seen before: the engine's numerics differ from the reference's by more than a short training changes a model (median
0.04, up to 0.2 in bfloat16), but they differ in nearly the same way for every artifact of one base.

    moved     = seen - seen of an earlier artifact          what the swap changed in the engine
    should    = reference - reference of that earlier one   what it changes in a plain forward pass
    stale     if `moved` is nothing, or not nearer to `should` than to nothing; in part, if too far from `should`

This is asked against the base and every artifact before. Below the noise between engine and reference (on the base)
chance decides what is nearer: such a change is too small to tell, and the caller starts a fresh engine on the weights.
Sizes are root mean squares over all prompts and tokens. In bfloat16 a healthy swap leaves `moved - should` at 1.2 to
1.6 times the noise; an output head that was left behind left it at 2.6 times.
This file holds the prompts and the judgement; it runs no model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import StepFailed

Table = NDArray[np.float64]  # [prompts, token ids], natural log

PROMPTS = (
    "The capital of France is",
    "Question: What is 17 + 25?\nAnswer:",
    "def add(a, b):\n    return",
    "Once upon a time there was a",
    "Water boils at a temperature of",
    "import numpy as np\n\nx = np.",
    'Sentence: "a moving, beautifully acted film". Sentiment:',
    "Translate to French: good morning ->",
    "Is the following sentence grammatical? The cat sat on mat the. Answer:",
    'Call the function. {"name": "get_weather", "arguments": {"city":',
    "Tom has 3 apples and buys 4 more. He now has",
    "The opposite of hot is",
    "List three colours: red,",
    "To reset a password, first",
    "for i in range(10):\n    print(",
    "#### ",
)


@dataclass
class Sighting:
    """What one set of weights looked like. `expect` runs the reference, once and only if it is needed."""

    name: str
    seen: Table
    expect: Callable[[], Table]

    @cached_property
    def expected(self) -> Table:
        return self.expect()


class Canary:
    """Remembers every set of weights that one engine has served, by fingerprint. The first must be the base's."""

    def __init__(self) -> None:
        self._known: dict[str, Sighting] = {}

    @cached_property
    def noise(self) -> float:
        """How far engine and reference lie apart on the base's own weights, root mean square in nats."""
        base = next(iter(self._known.values()))
        return _rms(base.seen - base.expected)

    def judge(self, fingerprint: str, now: Sighting) -> Mapping[str, Any]:
        """What there is to say in the record. StepFailed if the engine does not serve these weights.

        verdict: "first" (the base, freshly loaded), "same" (as when it was served before), "matches" (the change that
        the reference shows), "too small to tell" (nothing is known of these weights then; see `judge_fresh`).
        """
        self._check_finite(now)
        if fingerprint in self._known:
            return self._again(self._known[fingerprint], now)
        if not self._known:
            self._known[fingerprint] = now
            return {"verdict": "first"}
        base = next(iter(self._known.values()))
        moved, should = now.seen - base.seen, now.expected - base.expected
        told = [self._told_from(base, now)]
        self._check_whole(now, _rms(moved - should), _rms(should))
        told += [self._told_from(earlier, now) for earlier in list(self._known.values())[1:]]
        if all(told):
            self._known[fingerprint] = now
        verdict = "matches" if all(told) else "too small to tell"
        return {"verdict": verdict, "moved": _rms(moved), "noise": self.noise}

    def judge_fresh(self, fingerprint: str, now: Sighting) -> Mapping[str, Any]:
        """The judgement on an engine that was started on these weights and has served no others.

        verdict: "fresh" (within the noise of the reference).
        """
        self._check_finite(now)
        self._check_whole(now, _rms(now.seen - now.expected), 0.0)
        self._known[fingerprint] = now
        return {"verdict": "fresh"}

    def _check_finite(self, now: Sighting) -> None:
        if not np.isfinite(now.seen).all():
            raise StepFailed("the weights give no finite log-probabilities", kind="user", where=now.name)

    def _check_whole(self, now: Sighting, off: float, change: float) -> None:
        if off > np.hypot(2 * self.noise, 0.1 * change) + 1e-5:
            raise _stale(now.name, "only a part of them was loaded: its answers are those of no model that is known")

    def _again(self, before: Sighting, now: Sighting) -> Mapping[str, Any]:
        drift, own = float(np.abs(now.seen - before.seen).max()), _rms(now.seen - before.seen)
        nearest = min(self._known.values(), key=lambda known: _rms(now.seen - known.seen))
        if nearest is not before or (own > 1e-6 and own > self.noise / 10):
            why = f"its log-probabilities are off by up to {drift:.3g}"
            raise _stale(now.name, why + (f"; they are those of {nearest.name}" if nearest is not before else ""))
        return {"verdict": "same", "drift": drift}

    def _told_from(self, earlier: Sighting, now: Sighting) -> bool:
        """Whether what is seen is told from what was seen of an earlier artifact; False if the change is too small."""
        moved, should = now.seen - earlier.seen, now.expected - earlier.expected
        if _rms(should) <= self.noise:
            return False
        if _rms(moved) == 0:
            raise _stale(now.name, f"the engine still answers as {earlier.name} did")
        if _rms(moved - should) >= _rms(moved):
            raise _stale(now.name, f"what the engine answers is nearer to {earlier.name}")
        return True


def _stale(name: str, why: str) -> StepFailed:
    return StepFailed(
        f"the engine does not serve the weights of {name}",
        kind="bug",
        where=name,
        why=why,
        todo="run again: a fresh engine is started; nothing that this one answered for this artifact was kept",
    )


def _rms(table: Table) -> float:
    return float(np.sqrt(np.mean(np.square(table))))
