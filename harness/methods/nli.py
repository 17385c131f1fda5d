"""Natural language inference: how likely one text contradicts another. Methods reach it through `ctx.contradiction`.

Any sequence classification model of transformers serves; which of its classes means contradiction is read from its
configuration, since models differ in it. Nothing is downloaded.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from harness.errors import HarnessError

BATCH = 32
POSITIONS_KEPT = 2  # some families begin to count positions after their pad token


class Nli(Protocol):
    """Whoever judges pairs of texts. read: tokens of them so far."""

    read: int

    def contradiction(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """P(contradiction) of each (premise, hypothesis), 0 to 1, in their order."""


def contradiction_label(config: Mapping[str, Any]) -> int:
    """Which class of a model means contradiction, by the names in its configuration. HarnessError if none does."""
    names = {int(number): str(name) for number, name in (config.get("id2label") or {}).items()}
    found = [number for number, name in names.items() if name.casefold().startswith("contradict")]
    if len(found) != 1:
        listed = ", ".join(names[number] for number in sorted(names)) or "none"
        raise HarnessError(
            "the model does not say which of its classes means contradiction",
            why=f"its labels are {listed}",
            todo="take a model for natural language inference, or name the labels in its config.json (`id2label`)",
        )
    return found[0]


def check_folder(folder: Path) -> None:
    """HarnessError unless a folder has the configuration of an NLI model. Opens no model."""
    file = folder / "config.json"
    if not file.is_file():
        raise HarnessError("there is no model in this folder", where=str(folder), todo="give a Hugging Face folder")
    contradiction_label(json.loads(file.read_text(encoding="utf-8")))


class Classifier:
    """A sequence classification model in fp32. Pairs that are too long lose their beginnings, where the context is.

    read: tokens it has read.
    """

    def __init__(self, folder: Path, device: Any) -> None:
        """HarnessError if it cannot be opened as one."""
        import torch
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        check_folder(folder)
        try:
            model, found = AutoModelForSequenceClassification.from_pretrained(
                folder, dtype=torch.float32, local_files_only=True, output_loading_info=True
            )
        except (OSError, ValueError, KeyError) as error:
            why = str(error).splitlines()[0]
            raise HarnessError("the NLI model cannot be opened", where=str(folder), why=why) from error
        if found["missing_keys"]:
            names = ", ".join(sorted(found["missing_keys"])[:3])
            raise HarnessError("the NLI model lacks weights, which would be random", where=str(folder), why=names)
        self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, truncation_side="left")
        self.model = model.eval().to(device)
        self.label = contradiction_label(model.config.to_dict())
        positions = getattr(model.config, "max_position_embeddings", None) or 2**31
        self.read = 0
        self.limit = min(self.tokenizer.model_max_length, positions - POSITIONS_KEPT)

    def contradiction(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """P(contradiction) of each (premise, hypothesis), in their order."""
        return [p for start in range(0, len(pairs), BATCH) for p in self._batch(pairs[start : start + BATCH])]

    def _batch(self, pairs: Sequence[tuple[str, str]]) -> Iterator[float]:
        import torch

        premises, hypotheses = map(list, zip(*pairs, strict=True))
        given = self.tokenizer(
            premises, hypotheses, padding=True, truncation=True, max_length=self.limit, return_tensors="pt"
        ).to(self.model.device)
        self.read += int(given["attention_mask"].sum())
        with torch.no_grad():
            shares = self.model(**given).logits.softmax(-1)[:, self.label]
        yield from shares.tolist()
