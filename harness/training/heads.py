"""Heads: a classifier or a regression trained on a model for one task, and what it says of other rows.

The model is opened by `transformers` as a sequence classifier: an encoder by the token its family pools, a causal model
by an end token after the row, since how a row happens to end should not count. Everything is in fp32, and the same
recipe, rows and seed give the same numbers. Nothing is stored here, no checkpoint is written, and what the outputs mean
is the caller's business.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from harness.data import checkpoint
from harness.data.convert import quiet
from harness.errors import HarnessError, StepFailed
from harness.training.batches import Order
from harness.training.opening import open_tokenizer
from harness.training.randomness import seeded
from harness.training.schedule import lr_factor

if TYPE_CHECKING:
    from harness.evaluation.suite_file import Recipe

PASS = 4096  # tokens of a forward pass at most, padding counted; part of what the trainer's version stands for
BETWEEN = "\n"  # between the sentences of a pair, where the tokenizer has no token of its own for it

Texts = tuple[str, ...]  # the sentence, or the two sentences, of a row
Report = Callable[[float, float, str], None]


@dataclass(frozen=True)
class Encoded:
    """One row as the model reads it. kinds: which sentence a token is of, for models that want to know."""

    ids: list[int]
    kinds: list[int]
    cut: bool


@dataclass
class Head:
    """A model with its head. outputs: classes, or 1 for a regression.

    losses: the mean loss of each optimiser step.  trained_tokens: put through forward and backward, without padding.
    cut: training rows that were longer than the recipe allows.
    """

    model: Any
    tokenizer: Any
    encoder: bool
    outputs: int
    limit: int
    losses: list[float] = field(default_factory=list)
    trained_tokens: int = 0
    cut: int = 0

    def encode(self, rows: Sequence[Texts]) -> list[Encoded]:
        """Token ids of every row, cut at the limit: of a pair the longer sentence, of a causal model's text the end."""
        texts = [list(row) if self.encoder else [BETWEEN.join(row)] for row in rows]
        columns = list(zip(*texts, strict=True))
        whole = self.tokenizer(*map(list, columns), return_token_type_ids=True)
        end = [] if self.encoder or self.tokenizer.eos_token_id is None else [self.tokenizer.eos_token_id]
        room = {"truncation": True, "max_length": self.limit - len(end)}
        cut = self.tokenizer(*map(list, columns), **room, return_token_type_ids=True)
        lengths = map(len, whole["input_ids"])
        return [
            Encoded([*ids, *end], [*kinds, *[0] * len(end)], len(ids) < length)
            for ids, kinds, length in zip(cut["input_ids"], cut["token_type_ids"], lengths, strict=True)
        ]

    def logits(self, rows: Sequence[Encoded]) -> Tensor:
        """One forward pass: [rows, outputs]."""
        longest = max(len(row.ids) for row in rows)
        padding = self.model.config.pad_token_id
        device = self.model.device

        def pad(values: Sequence[int], filler: int) -> list[int]:
            return [*values, *[filler] * (longest - len(values))]

        given = {
            "input_ids": torch.tensor([pad(row.ids, padding) for row in rows], device=device),
            "attention_mask": torch.tensor([pad([1] * len(row.ids), 0) for row in rows], device=device),
        }
        if self.encoder and getattr(self.model.config, "type_vocab_size", 0) > 1:
            given["token_type_ids"] = torch.tensor([pad(row.kinds, 0) for row in rows], device=device)
        found: Tensor = self.model(**given).logits
        return found


def open_head(folder: Path, tokenizer: Path, *, encoder: bool, outputs: int, recipe: Recipe) -> Head:
    """The model of a folder with a fresh head, whose first weights come from the recipe's seed.

    tokenizer: the folder of its tokenizer.

    HarnessError if its family has no classifier in `transformers`, or its files lack weights.
    """
    from transformers import AutoModelForSequenceClassification

    words = open_tokenizer(tokenizer)
    try:
        with quiet(), seeded(recipe.seed, "head"):
            model, found = AutoModelForSequenceClassification.from_pretrained(
                folder,
                num_labels=outputs,
                dtype=torch.float32,
                local_files_only=True,
                ignore_mismatched_sizes=True,  # a head that the files hold for another task is made afresh
                output_loading_info=True,
            )
    except (OSError, ValueError, KeyError) as error:
        why = str(error).splitlines()[0]
        raise HarnessError("the model cannot be opened as a classifier", where=str(folder), why=why) from error
    fresh = {*found["missing_keys"], *(key for key, *_ in found["mismatched_keys"])}
    backbone = f"{model.base_model_prefix}."
    lost = sorted(name for name in fresh if name.startswith(backbone) and ".pooler." not in name)
    if lost:
        why = ", ".join(lost[:3])
        raise HarnessError("the model's files lack weights, which would start at random", where=str(folder), why=why)
    own = (words.pad_token_id, model.config.pad_token_id, 0, 1)
    model.config.pad_token_id = next(i for i in own if i is not None and (encoder or i != words.eos_token_id))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(recipe.train == "all" or name in fresh or not name.startswith(backbone))
    limit = min(recipe.max_length, _positions(folder, model))
    return Head(model.to("cuda" if torch.cuda.is_available() else "cpu"), words, encoder, outputs, limit)


def train_head(head: Head, rows: Sequence[Texts], labels: Sequence[float], recipe: Recipe, report: Report) -> None:
    """Train on labelled rows. labels: class numbers, or values of a regression.

    Batches are drawn without regard to length, since length may tell of the label; within one, rows of about the same
    length share a forward pass. StepFailed if the loss stops being a number.
    """
    encoded = head.encode(rows)
    head.cut = sum(row.cut for row in encoded)
    order = Order(len(rows), recipe.batch_size, recipe.seed, lambda i: 0)
    steps = recipe.epochs * order.per_epoch
    optimizer = torch.optim.AdamW(_groups(head.model, recipe.weight_decay), lr=recipe.lr)
    for step in range(steps):
        batch = order.batch(step)
        for group in optimizer.param_groups:
            group["lr"] = recipe.lr * lr_factor("linear", recipe.warmup, step / steps, (step + 1) / steps)
        with seeded(recipe.seed, "dropout", step):
            loss = _forward_backward(head, encoded, labels, batch, recipe.train == "all")
        if not math.isfinite(loss):
            raise StepFailed(f"the loss of the head stopped being a number at step {step + 1}", kind="user")
        torch.nn.utils.clip_grad_norm_([p for p in head.model.parameters() if p.grad is not None], 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        head.losses.append(loss)
        head.trained_tokens += sum(len(encoded[i].ids) for i in batch)
        report(step + 1, steps, f"loss {loss:.3f}")
    head.model.eval()


def apply_head(head: Head, rows: Sequence[Texts]) -> Iterator[tuple[int, Encoded, tuple[float, ...]]]:
    """(row number, the row as read, outputs) of every row, the shortest rows first.

    outputs: log-probabilities of the classes, or the value of a regression. StepFailed if one is not a number.
    """
    encoded = head.encode(rows)
    head.model.eval()
    for part in _passes(encoded, range(len(rows))):
        with torch.inference_mode():
            logits = head.logits([encoded[i] for i in part]).double()
            said = logits.log_softmax(-1) if head.outputs > 1 else logits
        if not bool(said.isfinite().all()):
            raise StepFailed("the head says what is not a number", kind="user")
        yield from ((i, encoded[i], tuple(values)) for i, values in zip(part, said.tolist(), strict=True))


def _forward_backward(
    head: Head, encoded: Sequence[Encoded], labels: Sequence[float], batch: Sequence[int], whole: bool
) -> float:
    """Gradients of the mean loss of a batch, and that loss. whole: the backbone trains too, so its dropout is on."""
    head.model.train(whole)
    total = 0.0
    for part in _passes(encoded, batch):
        logits = head.logits([encoded[i] for i in part])
        if head.outputs > 1:
            wanted = torch.tensor([int(labels[i]) for i in part], device=logits.device)
            loss = nn.functional.cross_entropy(logits, wanted, reduction="sum")
        else:
            wanted = torch.tensor([float(labels[i]) for i in part], device=logits.device)
            loss = nn.functional.mse_loss(logits[:, 0], wanted, reduction="sum")
        loss = loss / len(batch)
        loss.backward()
        total += float(loss.detach())
    return total


def _passes(encoded: Sequence[Encoded], rows: Sequence[int]) -> Iterator[list[int]]:
    """The rows, the shortest first, cut into parts that fit into one forward pass each."""
    part: list[int] = []
    for i in sorted(rows, key=lambda i: len(encoded[i].ids)):
        if part and len(encoded[i].ids) * (len(part) + 1) > PASS:
            yield part
            part = []
        part.append(i)
    if part:
        yield part


def _groups(model: nn.Module, decay: float) -> list[dict[str, Any]]:
    """Biases and norms, which are vectors, do not decay."""
    trained = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]


def _positions(folder: Path, model: Any) -> int:
    """The longest row that the model has positions for."""
    offset = (model.config.pad_token_id or 0) + 1 if "roberta" in str(model.config.model_type) else 0
    return (checkpoint.context(folder) or 1_000_000) - offset
