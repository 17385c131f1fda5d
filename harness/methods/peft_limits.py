"""What peft 0.21 asks of a layer's widths and of its parameters together, a row for each type that asks anything.

Checked when a matrix is planned. Rules that peft itself bends are held here: it takes another block for OFT where the
one asked for does not divide, and it says so in a warning only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from harness.errors import Refused
from harness.methods.facts import Widths

P = Mapping[str, Any]


@dataclass(frozen=True)
class Limit:
    """about: the parameter.  holds: of (parameters, output width, input width).  says: what must hold."""

    about: str
    holds: Callable[[P, int, int], bool]
    says: str


@dataclass(frozen=True)
class Rule:
    """The same for parameters alone, whatever the layer."""

    about: str
    holds: Callable[[P], bool]
    says: str


def _divides(name: str, *, output: bool = True, input: bool = True) -> Limit:
    which = "both widths" if output and input else "the output width" if output else "the input width"
    return Limit(
        name,
        lambda p, o, i: not (output and o % p[name]) and not (input and i % p[name]),
        f"must divide {which} of every layer",
    )


def _boft(p: P, o: int, i: int) -> bool:
    size, factor = p["boft_block_size"], p["boft_n_butterfly_factor"]
    return not i % (size * 2 ** (factor - 1)) and (factor == 1 or not (size % 2 or i // size % 2))


_SMALLER = Limit("r", lambda p, o, i: bool(p["r"] <= min(o, i)), "must not be above the smaller width of any layer")
_COEFFICIENTS = Limit(
    "n_frequency", lambda p, o, i: bool(p["n_frequency"] <= o * i), "must not be above the number of weights of a layer"
)
LIMITS: Mapping[str, tuple[Limit, ...]] = {
    "mica": (_SMALLER,),
    "psoft": (_SMALLER,),
    "oft": (_divides("oft_block_size", output=False),),
    "boft": (Limit("boft_block_size", _boft, "times 2 ^ (boft_n_butterfly_factor - 1) must divide the input width"),),
    "vblora": (_divides("vector_length"),),
    "c3a": (_divides("block_size"),),
    "miss": (Limit("r", lambda p, o, i: bool(p["r"] <= i), "must not be above the input width of any layer"),),
    "shira": (
        Limit("r", lambda p, o, i: bool(p["r"] * (o + i) <= o * i), "must not give more entries than a layer has"),
    ),
    "fourierft": (_COEFFICIENTS,),
    "waveft": (_COEFFICIENTS,),
    "road": (_divides("group_size", input=False),),
    "gralora": (_divides("gralora_k"),),
}
RULES: Mapping[str, tuple[Rule, ...]] = {
    "lora_orthogonal": (Rule("r", lambda p: p["r"] % 2 == 0, "must be even"),),
    "hra": (Rule("r", lambda p: p["r"] % 2 == 0, "must be even, for reflections cancel in pairs at the start"),),
    "adalora": (
        Rule("target_r", lambda p: bool(p["target_r"] <= p["init_r"]), "must not be above `init_r`"),
        Rule("warm", lambda p: bool(p["warm"] + p["settled"] < 1), "and `settled` must be below 1 together"),
    ),
    "vblora": (Rule("topk", lambda p: bool(p["topk"] <= p["num_vectors"]), "must not be above `num_vectors`"),),
    "road": (Rule("group_size", lambda p: p["group_size"] % 2 == 0, "must be even"),),
    "gralora": (Rule("r", lambda p: p["r"] % p["gralora_k"] == 0, "must be a multiple of `gralora_k`"),),
}


def check_limits(name: str, params: P, layers: Mapping[str, Widths]) -> None:
    """Refused for parameters that do not go together, and for the first layer whose widths do not allow them."""
    for rule in RULES.get(name, ()):
        if not rule.holds(params):
            raise Refused(
                f"`{rule.about}` of `{name}` {rule.says}, and it is {params[rule.about]}",
                todo=f"choose another `{rule.about}`",
            )
    for limit in LIMITS.get(name, ()):
        for layer, (o, i) in layers.items():
            if not limit.holds(params, o, i):
                raise Refused(
                    f"`{limit.about}` of `{name}` {limit.says}, and it is {params[limit.about]}",
                    why=f"`{layer}` maps a width of {i} to one of {o}",
                    todo=f"choose another `{limit.about}`, or leave such layers out of `target_modules`",
                )
