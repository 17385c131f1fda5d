"""One pass of a model over a padded batch, up to the last hidden states. The output head is left to `tokens.py`.

Batches are padded on the right, so in a causal model no real position ever sees padding and no mask is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from harness.errors import HarnessError
from harness.methods.base import NO_TARGET
from harness.training.sequences import Seq


@dataclass(frozen=True)
class Batch:
    """Padded sequences. ids, targets [rows, length]; lengths [rows]; positions [rows, length] and mask
    [rows, 1, length, length] (True = seen) only where a sequence brings its own."""

    ids: Tensor
    targets: Tensor
    lengths: Tensor
    seqs: tuple[Seq, ...]
    positions: Tensor | None = None
    mask: Tensor | None = None

    @property
    def tokens(self) -> int:
        """Tokens that are not padding."""
        return sum(len(q.ids) for q in self.seqs)

    def attention_mask(self, model: Any) -> Tensor:
        """The mask as a layer of the model takes it, a causal one where sequences bring none. For layers called by
        themselves, where what an attention kernel does without a mask is its own choice."""
        longest = self.ids.shape[1]
        causal = torch.ones(1, 1, longest, longest, dtype=torch.bool, device=self.ids.device).tril()
        mask = causal if self.mask is None else self.mask
        if model.config._attn_implementation == "sdpa":
            return mask
        return torch.zeros(mask.shape, device=mask.device).masked_fill(~mask, torch.finfo(torch.float32).min)


def make_batch(seqs: Sequence[Seq], device: torch.device) -> Batch:
    """Pad on the right. What stands in the padding does not matter: nothing reads it, and no target is there."""
    longest = max(len(q.ids) for q in seqs)

    def pad(values: Sequence[int], filler: int) -> list[int]:
        return [*values, *[filler] * (longest - len(values))]

    own = any(q.positions is not None or q.mask is not None for q in seqs)
    places = [pad(q.positions or range(len(q.ids)), 0) for q in seqs]
    return Batch(
        ids=torch.tensor([pad(q.ids, 0) for q in seqs], device=device),
        targets=torch.tensor([pad(q.targets, NO_TARGET) for q in seqs], device=device),
        lengths=torch.tensor([len(q.ids) for q in seqs], device=device),
        seqs=tuple(seqs),
        positions=torch.tensor(places, device=device) if own else None,
        mask=_masks(seqs, longest).to(device) if own else None,
    )


def _masks(seqs: Sequence[Seq], longest: int) -> Tensor:
    """Everyone sees at least itself, or a padded position's softmax would have nothing to sum."""
    masks = torch.eye(longest, dtype=torch.bool).repeat(len(seqs), 1, 1)
    for i, q in enumerate(seqs):
        n = len(q.ids)
        masks[i, :n, :n] = torch.ones(n, n, dtype=torch.bool).tril() if q.mask is None else q.mask
    return masks[:, None]


def run_model(
    model: nn.Module,
    batch: Batch,
    *,
    embed: Callable[[Tensor], Tensor] | None = None,
    states: bool = False,
    attentions: bool = False,
) -> Any:
    """hidden [rows, length, width], head (hidden -> logits), and where asked states and attentions, one a layer.

    embed: changes the input embeddings [rows, length, width]. A model that is not a Hugging Face causal LM is called
    with the batch, and what it returns is given back as it is; `hidden` and `head` in it feed `tok.logp`.
    """
    if not hasattr(model, "get_output_embeddings"):
        return model(batch)
    inputs: dict[str, Any] = {"input_ids": batch.ids}
    if embed is not None:
        inputs = {"inputs_embeds": embed(model.get_input_embeddings()(batch.ids))}
    if batch.mask is not None:
        inputs |= {"attention_mask": batch.attention_mask(model), "position_ids": batch.positions}
    out = model.base_model(**inputs, use_cache=False, output_hidden_states=states, output_attentions=attentions)
    return SimpleNamespace(
        hidden=out.last_hidden_state,
        head=model.get_output_embeddings(),
        states=out.hidden_states if states else None,
        attentions=out.attentions if attentions else None,
    )


def check_head(model: nn.Module) -> None:
    """HarnessError if the model's logits are not its output layer applied to its last hidden states (a soft cap or a
    scale after the head), since then `tok.logp` would not be the model's."""
    if not hasattr(model, "get_output_embeddings"):
        return
    device = next(model.parameters()).device
    ids = torch.arange(4, device=device)[None]
    with torch.no_grad():
        whole = model(input_ids=ids, use_cache=False).logits
        parts = model.get_output_embeddings()(model.base_model(input_ids=ids, use_cache=False).last_hidden_state)
    if not torch.allclose(whole.float(), parts.float(), rtol=1e-3, atol=1e-3):
        raise HarnessError(
            f"{type(model).__name__} changes its logits after the output layer, which this trainer does not know",
            todo="choose another model",
        )
