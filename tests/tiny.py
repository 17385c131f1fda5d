"""A tiny random causal model with a byte-level tokenizer and a chat template, made on the spot, never downloaded."""

from __future__ import annotations

from pathlib import Path

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def make_tiny_model(folder: Path, *, seed: int = 0, chat: bool = True, width: int = 32, context: int = 512) -> Path:
    """A 2-layer Llama, vocabulary of 260 byte-level tokens, tied embeddings; its pad token is its end token."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<unk>"]
    vocab = {token: i for i, token in enumerate([*specials, *letters])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        unk_token="<unk>",
        additional_special_tokens=["<|endoftext|>"],
        clean_up_tokenization_spaces=False,
    )
    if chat:
        fast.chat_template = TEMPLATE
    fast.save_pretrained(folder)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(vocab),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=context,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
    )
    LlamaForCausalLM(config).float().save_pretrained(folder)
    return folder


def make_tiny_encoder(folder: Path, family: str, *, seed: int = 0, named: bool = True) -> Path:
    """A 2-layer encoder that reads words of `WORDS`; its class is the one that the family's own files name.

    family: bert, electra or deberta-v2.  named: whether its configuration names the class, which DeBERTa's does not.
    """
    import json
    import warnings

    import torch
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocab = {token: i for i, token in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [("[CLS]", 2), ("[SEP]", 3)]
    pair = "[CLS] $A [SEP] $B:1 [SEP]:1"
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", pair=pair, special_tokens=ends)
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, mask_token="[MASK]", **special).save_pretrained(folder)
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    wide = {"vocab_size": len(vocab), "max_position_embeddings": 64, "pad_token_id": 0, **size}
    torch.manual_seed(seed)
    match family:
        case "bert":
            model = transformers.BertForMaskedLM(transformers.BertConfig(**wide))
        case "electra":
            model = transformers.ElectraForPreTraining(transformers.ElectraConfig(embedding_size=32, **wide))
        case _:
            with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # its module scripts functions
                model = transformers.DebertaV2ForMaskedLM(transformers.DebertaV2Config(type_vocab_size=0, **wide))
    model.save_pretrained(folder)
    if not named:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if k != "architectures"}))
    return folder


WORDS = ("the", "a", "film", "play", "cast", "is", "was", "good", "bad", "fine", "poor", "great", "dull", "very", "not")
