"""A PEFT adapter as a model: a folder with `adapter_config.json`, its base, and the two merged into one model.

Whether it fits its base is told from the headers of the weight files, before anything is loaded, because PEFT passes
over weights that it finds no layer for, and what it would then serve is the base.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from harness.data import checkpoint
from harness.errors import HarnessError

CONFIG = "adapter_config.json"
_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
_TOKENIZER = ("tokenizer*", "special_tokens_map.json", "added_tokens.json", "chat_template*", "vocab*", "merges.txt")
_PREFIX = "base_model.model."


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter and no model."""
    return (folder / CONFIG).exists() and not (folder / "config.json").exists()


def named_base(folder: Path) -> str:
    """The model that the adapter says it was trained on: a hub id or a path; "" if it does not say."""
    return str((checkpoint.read_json(folder / CONFIG) or {}).get("base_model_name_or_path") or "")


def content(folder: Path) -> list[Path]:
    """The files that make the adapter what it is: weights, and a tokenizer of its own. HarnessError without weights."""
    weights = [folder / name for name in _WEIGHTS if (folder / name).exists()][:1]
    if not weights:
        raise HarnessError(
            "the adapter has no weights", where=str(folder), todo=f"it needs {' or '.join(_WEIGHTS)} beside {CONFIG}"
        )
    return [*weights, *_tokenizer(folder)]


def _tokenizer(folder: Path) -> list[Path]:
    return sorted({path for pattern in _TOKENIZER for path in folder.glob(pattern)})


def check_fit(folder: Path, base: Path) -> None:
    """HarnessError unless every low-rank pair of the adapter has a layer of its shape in the base.

    base: a folder with safetensors. A transposed layer (GPT-2) fits too; other kinds of adapters are left to PEFT.
    """
    weights = content(folder)[0]
    if weights.suffix != ".safetensors":
        return
    mine = {name: entry["shape"] for name, entry in checkpoint.tensors(weights).items()}
    files = checkpoint.weight_files(base)
    theirs = {name: entry["shape"] for path in files for name, entry in checkpoint.tensors(path).items()}
    wrong = []
    for name, down in mine.items():
        up = mine.get(name.replace(".lora_A.", ".lora_B."))
        if ".lora_A." not in name or up is None or len(down) != 2 or len(up) != 2:
            continue
        layer = name.removeprefix(_PREFIX).partition(".lora_A.")[0]
        want = theirs.get(f"{layer}.weight") or theirs.get(f"{layer.partition('.')[2]}.weight")
        if want is None and layer != "lm_head":
            wrong.append(f"the base has no layer `{layer}`")
        elif want is not None and sorted(want) != sorted((up[0], down[1])):
            wrong.append(f"`{layer}` is {'x'.join(map(str, want))} in the base, {up[0]}x{down[1]} in the adapter")
    if wrong:
        some = "; ".join(wrong[:3]) + (f"; and {len(wrong) - 3} more" if len(wrong) > 3 else "")
        raise HarnessError(
            "the adapter does not fit its base", where=str(folder), why=some, todo=f"name the right base ({base.name}?)"
        )


def merge_into(base: Path, adapter: Path, work: Path) -> None:
    """Write base plus adapter to `work`, as the engines merge a trained one, with the tokenizer of the adapter if any.

    HarnessError if PEFT cannot.
    """
    from harness.engines.weights import merge

    check_fit(adapter, base)
    try:
        merge(base, adapter, work)
    except (ValueError, RuntimeError, KeyError, TypeError) as error:
        why = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise HarnessError("the adapter cannot be merged into its base", where=str(adapter), why=why) from error
    weights = set(checkpoint.weight_files(base))
    for path in (*checkpoint.content(base), *_tokenizer(adapter)):
        ours = path.parent == adapter
        if ours or not (path in weights or path.name.endswith(".index.json") or (work / path.name).exists()):
            shutil.copyfile(path, work / path.name)
