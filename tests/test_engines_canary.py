"""The judgement of the canary, on made-up tables with the noise that bfloat16 was measured to have."""

from __future__ import annotations

import numpy as np
import pytest

from harness.engines.canary import PROMPTS, Canary, Sighting, Table
from harness.errors import StepFailed

NOISE = 0.07
SHAPE = (len(PROMPTS), 48)


def table(seed: int, size: float) -> Table:
    return np.random.default_rng(seed).normal(size=SHAPE) * size


BASE = table(0, 5.0)
CHANGES = {"large": table(1, 1.0), "other": table(2, 1.0), "small": table(3, 0.003)}


def sighting(name: str, seen: str | None = None, noise: int = 0) -> Sighting:
    """What an engine shows that was told to serve `name` and serves `seen`."""
    true = {"base": BASE, **{k: BASE + v for k, v in CHANGES.items()}}
    served = seen or name
    shown = true[served] + table(100 + noise + list(true).index(served), NOISE)
    return Sighting(name, shown, lambda: true[name])


@pytest.fixture
def canary() -> Canary:
    made = Canary()
    assert made.judge("base", sighting("base"))["verdict"] == "first"
    return made


def test_healthy_swaps_pass_and_come_back(canary: Canary) -> None:
    assert canary.judge("l", sighting("large"))["verdict"] == "matches"
    assert canary.judge("o", sighting("other"))["verdict"] == "matches"
    assert canary.judge("l", sighting("large"))["verdict"] == "same"
    assert canary.judge("base", sighting("base"))["verdict"] == "same"


def test_the_base_left_behind_is_caught(canary: Canary) -> None:
    with pytest.raises(StepFailed, match="still answers as base") as caught:
        canary.judge("x", sighting("large", seen="base"))
    assert "large" in caught.value.what


@pytest.mark.parametrize("seen", ["small", "base"])
def test_a_change_too_small_to_tell_is_not_believed_but_on_a_fresh_engine(canary: Canary, seen: str) -> None:
    assert canary.judge("s", sighting("small", seen=seen))["verdict"] == "too small to tell"
    assert canary.judge("s", sighting("small", seen=seen))["verdict"] == "too small to tell", "it was remembered"
    assert canary.judge_fresh("s", sighting("small"))["verdict"] == "fresh"
    assert canary.judge("s", sighting("small"))["verdict"] == "same"


def test_a_change_that_no_prompt_shows_is_too_small_to_tell(canary: Canary) -> None:
    unchanged = Sighting("unchanged", sighting("base").seen, lambda: BASE)
    assert canary.judge("u", unchanged)["verdict"] == "too small to tell"


def test_a_fresh_engine_that_answers_far_from_the_reference_is_caught(canary: Canary) -> None:
    with pytest.raises(StepFailed, match="only a part"):
        canary.judge_fresh("s", sighting("small", seen="large"))


def test_an_earlier_artifact_left_behind_is_caught(canary: Canary) -> None:
    canary.judge("l", sighting("large"))
    with pytest.raises(StepFailed):
        canary.judge("o", sighting("other", seen="large"))


def test_the_base_left_behind_is_caught_even_if_numerics_wobble(canary: Canary) -> None:
    with pytest.raises(StepFailed):
        canary.judge("l", sighting("large", seen="base", noise=50))


def test_weights_loaded_in_part_are_caught(canary: Canary) -> None:
    whole = sighting("large")
    part = Sighting("large", sighting("base").seen * 0.3 + whole.seen * 0.7, whole.expect)
    with pytest.raises(StepFailed, match="only a part"):
        canary.judge("l", part)


def test_a_digest_that_looks_otherwise_than_before_is_caught(canary: Canary) -> None:
    canary.judge("l", sighting("large"))
    canary.judge("o", sighting("other"))
    with pytest.raises(StepFailed, match="they are those of other"):
        canary.judge("l", sighting("large", seen="other"))


def test_weights_without_finite_answers_are_refused(canary: Canary) -> None:
    with pytest.raises(StepFailed, match="finite"):
        canary.judge("n", Sighting("nan", np.full(SHAPE, np.nan), lambda: BASE))


def test_the_failed_weights_are_not_remembered(canary: Canary) -> None:
    with pytest.raises(StepFailed):
        canary.judge("l", sighting("large", seen="base"))
    assert canary.judge("l", sighting("large"))["verdict"] == "matches"
