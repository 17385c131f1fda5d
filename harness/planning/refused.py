"""Why a model, or a method on a model, cannot be run, from what is known of the model before it is opened.

Rules of one method are the method's own (`Method.check`); here are those that hold for every method. Nothing is opened
and no torch is loaded: what only the opened model can tell is left to the step that opens it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from harness.engines.base import Request
from harness.errors import HarnessError, Problems, Refused
from harness.methods.base import Method, Stage, stage_stack
from harness.methods.facts import ModelFacts

PLAIN = {"llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "granite", "smollm3", "olmo2"}
AFTER_HEAD = ("final_logit_softcapping", "logits_scaling", "logit_scale")  # settings that change a model's logits


def of_model(model: ModelFacts) -> list[Refused]:
    """What of its files contradicts itself, so that nothing can open it or trust it."""
    return [*_heads(model), *_tokens(model)]


def of_method(model: ModelFacts, stack: Sequence[Method], stages: Sequence[Stage], *, native: bool) -> list[Refused]:
    """What of a stack the model cannot support. native: our own loop trains it, which computes logits itself."""
    found = [*_logits(model)] if native and stages else []
    asked: set[int] = set()
    for members in [stage_stack(stack, stage) for stage in stages] or [tuple(stack)]:
        for member in members:
            if id(member) not in asked:
                asked.add(id(member))
                found += [*_layers(model, member), *_own(model, member, members)]
    return found


def no_text(model: ModelFacts) -> Refused | None:
    """Why it cannot write text, if it cannot. Encoders are told apart elsewhere."""
    if not model.causal:
        return Refused("it is no causal language model, but an encoder with a decoder", todo="use a causal model")
    if model.head is False:
        return Refused(
            "it has no output layer, so it cannot predict a token",
            why="its configuration says `tie_word_embeddings: false`, and its files have no `lm_head.weight`",
            todo="use the model that was saved with its head (`...ForCausalLM`)",
        )
    return None


def _heads(model: ModelFacts) -> Iterator[Refused]:
    """Head counts that do not fit each other, or the weights."""
    if model.heads and model.kv_heads and model.heads % model.kv_heads:
        yield _wrong(
            f"{model.heads} attention heads cannot share {model.kv_heads} key-value heads evenly",
            "`num_key_value_heads` must divide `num_attention_heads`",
        )
        return
    whole = model.heads and model.hidden and "head_dim" not in model.config
    if whole and model.kind in PLAIN and (model.hidden or 0) % (model.heads or 1):
        yield _wrong(
            f"a width of {model.hidden} cannot be split into {model.heads} attention heads",
            "`num_attention_heads` must divide `hidden_size`",
        )
        return
    if model.kind not in PLAIN or not model.head_dim:
        return
    for part, count in (("q_proj", model.heads), ("k_proj", model.kv_heads)):
        layer, widths = next(((n, w) for n, w in model.linears.items() if n.endswith(f".{part}")), ("", (0, 0)))
        if layer and count and widths[0] != count * model.head_dim:
            yield _wrong(
                f"the configuration says {count} heads of {model.head_dim} numbers, and `{layer}` gives {widths[0]}",
                "configuration and weights are not of one model",
            )
            return


def _wrong(what: str, why: str) -> Refused:
    return Refused(what, why=why, todo="copy the model's config.json again")


def _tokens(model: ModelFacts) -> Iterator[Refused]:
    """Tokens without a row of the embedding. One that was added and that nothing uses does no harm."""
    tokenizer = model.tokenizer
    if tokenizer is None or not model.rows:
        return
    ends = {getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad", "unk", "mask")}
    added = tokenizer.added_tokens_decoder
    beyond = [(i, text) for text, i in tokenizer.vocab.items() if i >= model.rows]
    used = [(i, t) for i, t in beyond if i not in added or i in ends or t in tokenizer.chat_template]
    if used:
        number, text = min(used)
        yield Refused(
            f"its tokenizer does not match it: token {number} ({text!r}) has no row among the {model.rows} of its "
            "embedding",
            todo="use the tokenizer that belongs to the model, or a model whose embedding was enlarged for it",
        )


def _logits(model: ModelFacts) -> Iterator[Refused]:
    name = next((n for n in AFTER_HEAD if model.config.get(n) not in (None, 1, 1.0)), None)
    if name:
        yield Refused(
            "the native trainer does not know what this model does to its logits after the output layer",
            why=f"its configuration says `{name}: {model.config[name]}`",
            todo="choose another model",
        )


def _layers(model: ModelFacts, member: Method) -> Iterator[Refused]:
    """Attention weights and hidden states that a member asks for, by layer, counted as Python does."""
    for need in sorted(member.needs):
        kind, _, place = need.partition(":")
        count = model.layers and {"attention": model.layers, "hidden": model.layers + 1}.get(kind)
        if count and not -count <= int(place) < count:
            yield Refused(
                f"`{member.name}` reads the {kind} of layer {place}, and the model has {model.layers} layers",
                todo=f"choose a layer from {-count} to {count - 1}",
            )


def no_room(stack: Iterable[Method], lengths: Mapping[str, int | None]) -> Refused | None:
    """Why answers that a member samples cannot be as long as they may be. lengths: bounds on prompt and answer, by what
    sets them."""
    for member in stack:
        longest = int((member.rollouts or {}).get("max_tokens", 0))
        for bound, length in lengths.items():
            if length is not None and longest >= length:
                return Refused(
                    f"`{member.name}` samples answers of up to {longest} tokens, and {bound} leaves "
                    f"{length} for prompt and answer together",
                    todo="lower `max_tokens` of the method, or raise that length",
                )
    return None


def _own(model: ModelFacts, member: Method, stack: Sequence[Method]) -> Iterable[Any]:
    try:
        member.check(model, stack)
    except Problems as several:
        return several.problems
    except HarnessError as one:
        return [one]
    return []


def sends_conversations(stack: Sequence[Method]) -> bool:
    """Whether what a task asks as a conversation reaches the engine as one; a member's `prompt` may make it a text."""
    request = Request(messages=({"role": "user", "content": ""},))
    for member in stack:
        request = member.prompt(request, None)
    return request.messages is not None
