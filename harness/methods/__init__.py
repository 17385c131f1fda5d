"""The methods by name: ours and those of other packages, found the same way.

A package offers a method through the entry point group `harness.methods`. Only the file of a named method is
imported. This file knows nothing of what methods do.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from harness.config.schema_errors import explain
from harness.config.yaml_reader import Tree
from harness.errors import HarnessError, Problems, nearest
from harness.methods.base import Method, check_stack
from harness.methods.peft_types import WHY_NOT

GROUP = "harness.methods"
OURS = {  # also in pyproject.toml; repeated here so that a checkout works before it is installed anew
    "base": "harness.methods.base_model:BaseModel",
    "urial": "harness.methods.urial:URIAL",
    "sft": "harness.methods.sft:SFT",
    "lora": "harness.methods.lora:LoRA",
    "dft": "harness.methods.dft:DFT",
    "otr": "harness.methods.otr:OTR",
    "otr_exact": "harness.methods.otr_exact:OTRExact",
    "q_tuning": "harness.methods.q_tuning:QTuning",
    "bitfit": "harness.methods.bitfit:BitFit",
    "adapters": "harness.methods.adapters:Adapters",
    "rslora": "harness.methods.peft_family:rslora",
    "lora_orthogonal": "harness.methods.peft_family:lora_orthogonal",
    "mica": "harness.methods.peft_family:mica",
    "dora": "harness.methods.peft_family:dora",
    "pissa": "harness.methods.peft_family:pissa",
    "olora": "harness.methods.peft_family:olora",
    "adalora": "harness.methods.peft_family:adalora",
    "loha": "harness.methods.peft_family:loha",
    "lokr": "harness.methods.peft_family:lokr",
    "oft": "harness.methods.peft_family:oft",
    "boft": "harness.methods.peft_family:boft",
    "hra": "harness.methods.peft_family:hra",
    "psoft": "harness.methods.peft_family:psoft",
    "ia3": "harness.methods.peft_family:ia3",
    "vera": "harness.methods.peft_family:vera",
    "pvera": "harness.methods.peft_family:pvera",
    "vblora": "harness.methods.peft_family:vblora",
    "unilora": "harness.methods.peft_family:unilora",
    "randlora": "harness.methods.peft_family:randlora",
    "tinylora": "harness.methods.peft_family:tinylora",
    "fourierft": "harness.methods.peft_family:fourierft",
    "waveft": "harness.methods.peft_family:waveft",
    "c3a": "harness.methods.peft_family:c3a",
    "miss": "harness.methods.peft_family:miss",
    "shira": "harness.methods.peft_family:shira",
    "supertuning": "harness.methods.peft_family:supertuning",
    "road": "harness.methods.peft_family:road",
    "hira": "harness.methods.peft_family:hira",
    "delora": "harness.methods.peft_family:delora",
    "gralora": "harness.methods.peft_family:gralora",
    "glora": "harness.methods.peft_family:glora",
    "frod": "harness.methods.peft_family:frod",
    "adamss": "harness.methods.peft_family:adamss",
    "deft": "harness.methods.peft_family:deft",
    "peanut": "harness.methods.peft_family:peanut",
    "osf": "harness.methods.peft_family:osf",
    "ln_tuning": "harness.methods.peft_family:ln_tuning",
    "trainable_tokens": "harness.methods.peft_family:trainable_tokens",
    "beft": "harness.methods.peft_family:beft",
    "prompt": "harness.methods.peft_family:prompt",
    "p_tuning": "harness.methods.peft_family:p_tuning",
    "prefix": "harness.methods.peft_family:prefix",
    "leo": "harness.methods.leo:LEO",
    "lldb": "harness.methods.lldb:LLDB",
    "keep_best": "harness.methods.keep_best:KeepBest",
    "lt_sft": "harness.methods.lt_sft:LTSFT",
    "lofit": "harness.methods.lofit:LoFiT",
    "hft": "harness.methods.hft:HFT",
    "caft": "harness.methods.caft:CAFT",
    "dpo": "harness.methods.dpo:DPO",
    "grpo": "harness.methods.grpo:GRPO",
    "ppo": "harness.methods.ppo:PPO",
    "grao": "harness.methods.grao:GRAO",
    "mft": "harness.methods.mft:MFT",
    "sstoken": "harness.methods.sstoken:SsToken",
    "clear": "harness.methods.clear:Clear",
    "clear_logit": "harness.methods.clear_logit:ClearLogit",
}


@functools.cache
def _table() -> dict[str, EntryPoint]:
    table = {name: EntryPoint(name=name, value=value, group=GROUP) for name, value in OURS.items()}
    for point in entry_points(group=GROUP):
        have = table.setdefault(point.name, point)
        if have.value != point.value:
            raise HarnessError(
                f"two packages offer a method named `{point.name}`: {have.value} and {point.value}",
                todo="uninstall one of them, or rename its entry point",
            )
    return table


def names() -> list[str]:
    """The names of all methods, sorted. Imports none of them."""
    return sorted(_table())


def load(name: str) -> type[Method]:
    """The class of a method; imports its file and no other. HarnessError if there is none or it cannot be imported."""
    table = _table()
    if name not in table:
        why = WHY_NOT.get(name.upper(), "")
        if why:
            raise HarnessError(f"peft's `{name}` is not offered as a method", why=f"it {why}")
        raise HarnessError(f"unknown method `{name}`", todo=nearest(name, table))
    point = table[name]
    try:
        found = point.load()
    except (ImportError, AttributeError, SyntaxError) as error:
        raise HarnessError(f"method `{name}` cannot be imported from {point.value}", why=str(error)) from error
    if not (isinstance(found, type) and issubclass(found, Method)):
        raise HarnessError(f"method `{name}`: {point.value} is not a subclass of harness.methods.base.Method")
    if found.name != name:
        raise HarnessError(
            f"method `{name}`: {point.value} calls itself `{found.name}`", todo="give both the same name"
        )
    return found


def make(name: str, params: Mapping[str, Any]) -> Method:
    """One method with its parameters checked and its defaults filled in (`.params`). HarnessError or Problems."""
    kind = load(name)
    try:
        return kind(**params)
    except ValidationError as error:
        problems = _explained(name, kind, error.errors(), params)
    raise problems[0] if len(problems) == 1 else Problems(problems)


def build(stack: Sequence[tuple[str, Mapping[str, Any]]]) -> tuple[Method, ...]:
    """The members of a stack, in order. HarnessError for a wrong name or parameter, Refused if they cannot stand
    together."""
    members, problems = list[Method](), list[HarnessError]()
    for name, params in stack:
        try:
            members.append(make(name, params))
        except Problems as several:
            problems += several.problems
        except HarnessError as one:
            problems.append(one)
    if problems:
        raise problems[0] if len(problems) == 1 else Problems(problems)
    check_stack(members)
    return tuple(members)


def _explained(
    name: str, kind: type[Method], errors: Sequence[ErrorDetails], params: Mapping[str, Any]
) -> list[HarnessError]:
    """pydantic's findings in our words, each with the method's name and what to do."""
    known = list(kind.Params.model_fields)
    found = []
    for path, problem in explain(errors, kind.Params, Tree(dict(params))):
        if len(path) == 1 and path[0] not in known:
            hint = nearest(str(path[0]), known) if known else f"`{name}` has no parameters"
            found.append(HarnessError(f"method `{name}` has no parameter `{path[0]}`", todo=hint))
            continue
        shown = f"`harness methods {name}` shows its parameters and their bounds"
        named = bool(path) and problem.what.startswith("`")
        what = f"method `{name}`{', parameter' if named else ':'} {problem.what}"
        found.append(HarnessError(what, why=problem.why, todo=problem.todo or shown))
    return found
