"""The types of peft 0.21 as a table: one row makes one method (`peft_family.py`), or says why there is none.

Pure data, read at planning. Defaults are peft's own unless the row's text says otherwise; they are not of equal size,
so a fair comparison sets the rank of each to a common number of parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

Serving = Literal["merge", "native", "hf"]


@dataclass(frozen=True)
class Type:
    """One method of the family.

    peft: peft's name of the type.  about: what is trained, and departures from peft's defaults.
    params: the method's parameters with their defaults, under peft's own names.  fixed: fields that make the variant.
    dropout: peft's name for dropout on the adapter's input, offered as `dropout`.  knobs: search ranges.
    serving: "merge" is folded into plain weights in fp32; "native" leaves a low-rank adapter that vLLM itself reads;
    "hf" cannot be folded and is served by the engine `hf` only.
    start: "base" where an untrained adapter leaves the logits as they were, "moved" where it does not.
    still: parts of names of the adapter's own parameters that peft does not train.
    random: a forward pass in training draws numbers, so a step is never split.  linear: targets are linear layers.
    later: as in `Method`.
    """

    peft: str
    about: str
    paper: str = ""
    params: Mapping[str, Any] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    dropout: str = ""
    knobs: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    serving: Serving = "merge"
    start: Literal["base", "moved"] = "base"
    still: tuple[str, ...] = ()
    random: bool = False
    linear: bool = True
    later: Mapping[str, Any] = field(default_factory=dict)


_R: dict[str, tuple[float, float]] = {"r": (4, 128)}
_LORA: dict[str, Any] = {
    "params": {"r": 16, "lora_alpha": 32.0},
    "dropout": "lora_dropout",
    "knobs": {"r": (4, 128), "lora_alpha": (4, 256)},
}


def _lora(about: str, paper: str = "", serving: Serving = "merge", still: tuple[str, ...] = (), **fixed: Any) -> Type:
    return Type("LORA", about, paper, serving=serving, still=still, fixed=fixed, **_LORA)


TYPES: dict[str, Type] = {
    "rslora": _lora("LoRA scaled by alpha / sqrt(r).", "arXiv 2312.03732", "native", use_rslora=True),
    "lora_orthogonal": replace(
        _lora(
            "LoRA whose A and B start orthogonal, B's effect taken off.", "", "native", init_lora_weights="orthogonal"
        ),
        knobs={"lora_alpha": (4, 256)},  # peft takes even ranks only, and half of a range of ranks would fail
    ),
    "mica": _lora(
        "LoRA with B fixed to minor singular directions of W; only A trains.",
        "arXiv 2604.01694",
        "native",
        (".lora_B.",),
        init_lora_weights="mica",
    ),
    "dora": _lora("LoRA on the direction of W, with a trained length a column.", "arXiv 2402.09353", use_dora=True),
    "pissa": _lora(
        "LoRA started from the largest singular triplets of W, which the frozen rest lacks.",
        "arXiv 2404.02948",
        init_lora_weights="pissa",
    ),
    "olora": _lora(
        "LoRA started from the QR factors of W, which the frozen rest lacks.",
        "arXiv 2406.01775",
        init_lora_weights="olora",
    ),
    "adalora": Type(
        "ADALORA",
        "dW = B diag(E) A; ranks are taken from layers that matter less, and A, B are kept near orthogonal. "
        "warm and settled are peft's tinit and tfinal as shares of the run.",
        "arXiv 2303.10512",
        {
            "init_r": 12,
            "target_r": 8,
            "lora_alpha": 8.0,
            "beta1": 0.85,
            "beta2": 0.85,
            "orth_reg_weight": 0.5,
            "warm": 0.0,
            "settled": 0.0,
            "deltaT": 1,
        },
        dropout="lora_dropout",
        knobs={"init_r": (8, 64), "target_r": (2, 8)},
        still=(".ranknum.",),
    ),
    "loha": Type(
        "LOHA",
        "Hadamard product of two low-rank products.",
        "arXiv 2108.06098",
        {"r": 8, "alpha": 8.0},
        knobs=_R,
    ),
    "lokr": Type("LOKR", "Kronecker product of small factors.", "arXiv 2309.14859", {"r": 8, "alpha": 8.0}, knobs=_R),
    "oft": Type(
        "OFT",
        "W turned by block-diagonal orthogonal matrices; the block must divide the input width.",
        "arXiv 2306.07280",
        {"oft_block_size": 32},
    ),
    "boft": Type(
        "BOFT",
        "W turned by butterfly-factored orthogonal matrices.",
        "arXiv 2311.06243",
        {"boft_block_size": 4, "boft_n_butterfly_factor": 1},
        dropout="boft_dropout",
    ),
    "hra": Type(  # an odd rank starts from random reflections, so half of a range of ranks would fail
        "HRA",
        "W turned by a chain of Householder reflections, an even number, which cancel in pairs at the start.",
        "arXiv 2405.17484",
        {"r": 8},
    ),
    "psoft": Type(
        "PSOFT",
        "An orthogonal map inside the principal subspace of W.",
        params={"r": 32, "psoft_alpha": 32.0},
        dropout="psoft_dropout",
        knobs=_R,
    ),
    "ia3": Type(
        "IA3",
        "Trained scales of keys, values and the input of the MLP's last layer.",
        "arXiv 2205.05638",
        {"target_modules": ("k_proj", "v_proj", "down_proj"), "feedforward_modules": ("down_proj",)},
    ),
    "vera": Type(
        "VERA",
        "Shared frozen random A and B; two trained vectors a layer.",
        "arXiv 2310.11454",
        {"r": 256, "d_initial": 0.1},
        dropout="vera_dropout",
        knobs={"r": (64, 1024)},
    ),
    "pvera": Type(
        "PVERA",
        "VeRA with a sampled latent while it trains, and its mean afterwards.",
        "arXiv 2512.07703",
        {"r": 256, "d_initial": 0.1},
        dropout="pvera_dropout",
        knobs={"r": (64, 1024)},
        random=True,
    ),
    "vblora": Type(
        "VBLORA",
        "A and B put together from one shared bank of vectors. The vectors' length must divide every width, and peft's "
        "256 does not divide those of small models: 64 here.",
        "arXiv 2405.15179",
        {"r": 4, "num_vectors": 256, "vector_length": 64, "topk": 2},
        dropout="vblora_dropout",
        start="moved",
    ),
    "unilora": Type(
        "UNILORA",
        "Every A and B is a fixed random projection of one trained vector.",
        "arXiv 2506.00799",
        {"r": 4, "theta_d_length": 256},
        dropout="unilora_dropout",
        start="moved",
        knobs={"theta_d_length": (64, 4096)},
    ),
    "randlora": Type(
        "RANDLORA",
        "A full-rank sum of frozen random low-rank bases with trained scales.",
        "arXiv 2502.00987",
        {"r": 32, "randlora_alpha": 640.0},
        dropout="randlora_dropout",
        knobs=_R,
    ),
    "tinylora": Type(
        "TINYLORA",
        "A few trained numbers spread over the singular directions of W.",
        "arXiv 2602.04118",
        {"r": 2, "u": 64},
        dropout="tinylora_dropout",
    ),
    "fourierft": Type(
        "FOURIERFT",
        "Trained Fourier coefficients of dW. peft starts from random ones, which moves the model: zeros here.",
        "arXiv 2405.03003",
        {"n_frequency": 1000, "scaling": 150.0, "init_weights": True},
        knobs={"n_frequency": (100, 10000), "scaling": (30, 300)},
    ),
    "waveft": Type(
        "WAVEFT",
        "Trained sparse coefficients of dW in a wavelet basis.",
        params={"n_frequency": 2592, "scaling": 25.0},
        knobs={"n_frequency": (100, 10000), "scaling": (5, 100)},
    ),
    "c3a": Type(
        "C3A",
        "dW of circulant blocks. The block must divide every width, and peft's 256 does not divide those of small "
        "models: 64 here. peft starts from random blocks, which moves the model: zeros here.",
        "arXiv 2407.19342",
        {"block_size": 64, "init_weights": True},
    ),
    "miss": Type(
        "MISS",
        "dW repeats one small trained matrix over shards of the input.",
        "arXiv 2409.15371",
        {"r": 64},
        dropout="miss_dropout",
        knobs=_R,
    ),
    "shira": Type(
        "SHIRA",
        "As many entries of W, chosen at random, as a LoRA of rank r would have.",
        "arXiv 2406.13175",
        {"r": 32},
        knobs=_R,
    ),
    "supertuning": Type(
        "SUPERTUNING",
        "The entries of W of the largest size.",
        "arXiv 2607.09287",
        {"sparsity": 0.99},
        knobs={"sparsity": (0.9, 0.999)},
    ),
    "road": Type(
        "ROAD",
        "Outputs turned and scaled in pairs; the group must divide the output width.",
        "arXiv 2409.00119",
        {"group_size": 64},
    ),
    "hira": Type("HIRA", "dW = W times BA, entry by entry.", "", {"r": 32}, dropout="hira_dropout", knobs=_R),
    "delora": Type(
        "DELORA",
        "LoRA with normed directions and a trained strength.",
        "arXiv 2503.18225",
        {"r": 8, "delora_lambda": 15},
        knobs=_R,
    ),
    "gralora": Type(
        "GRALORA",
        "LoRA in a grid of blocks of W.",
        params={"r": 32, "alpha": 64, "gralora_k": 2},
        dropout="gralora_dropout",
        knobs={"alpha": (8, 256)},  # its rank is a multiple of gralora_k
    ),
    "glora": Type("GLORA", "Trained scales and shifts of W and of the bias.", params={"r": 8}, knobs=_R),
    "frod": Type(
        "FROD",
        "A joint decomposition of all layers, with trained sparse and diagonal parts.",
        params={"sparse_rate": 0.01},
        fixed={"progressbar": False},
        dropout="frod_dropout",
    ),
    "adamss": Type(
        "ADAMSS",
        "Low-rank updates inside clusters of the singular subspace of W.",
        params={"r": 100, "num_subspaces": 5, "subspace_rank": 1},
    ),
    "deft": Type(
        "DEFT", "A projection of W taken out and another put in.", params={"r": 8}, dropout="deft_dropout", knobs=_R
    ),
    "peanut": Type("PEANUT", "dW is a small network of W.", "arXiv 2410.01870", {"r": 32, "depth": 0}, knobs=_R),
    "osf": Type("OSF", "The part of W of the smallest singular values, kept orthogonal to the rest."),
    "ln_tuning": Type("LN_TUNING", "The weights of the norms only.", "arXiv 2312.11420", linear=False),
    "trainable_tokens": Type(
        "TRAINABLE_TOKENS",
        "Rows of the embedding, and of the output layer where it is tied. None given: the special tokens.",
        params={"token_indices": ()},
        linear=False,
    ),
    "beft": Type(
        "BEFT",
        "A bias on the values. Folding it would need a bias in the layer, which Llama-like models lack.",
        "arXiv 2509.15974",
        {"target_modules": ("v_proj",)},
        serving="hf",
    ),
    "prompt": Type(
        "PROMPT_TUNING",
        "Trained embeddings in front of every sequence, started from the embeddings of words drawn at random, as in "
        "the paper (peft's own start is random numbers). UNVERIFIED default: 20 tokens.",
        "arXiv 2104.08691",
        {"num_virtual_tokens": 20, "prompt_tuning_init": "SAMPLE_VOCAB"},
        knobs={"num_virtual_tokens": (5, 100)},
        serving="hf",
        start="moved",
        linear=False,
    ),
    "p_tuning": Type(
        "P_TUNING",
        "Embeddings in front of every sequence, made by a trained two-layer network. UNVERIFIED default: 20 tokens.",
        "arXiv 2103.10385",
        {"num_virtual_tokens": 20},
        knobs={"num_virtual_tokens": (5, 100)},
        serving="hf",
        start="moved",
        linear=False,
    ),
    "prefix": Type(
        "PREFIX_TUNING",
        "Trained keys and values that every layer sees before the sequence, drawn at random; with `prefix_projection` "
        "a trained two-layer network makes them. UNVERIFIED defaults: 10 tokens, no network.",
        "arXiv 2101.00190",
        {"num_virtual_tokens": 10, "prefix_projection": False},
        later={"prefix_projection": False},
        knobs={"num_virtual_tokens": (5, 100)},
        serving="hf",
        start="moved",
        linear=False,
    ),
}

ELSEWHERE = {"LORA": "lora"}  # a type that a method of its own offers

WHY_NOT = {  # each goes on from "it"
    "POLY": "routes between skills by task ids, which rows do not have",
    "XLORA": "gates LoRA adapters that have been trained already",
    "SHADOW": "trains a second network beside the decoder, which belongs to no layer and cannot be folded",
    "ADAPTION_PROMPT": "replaces whole attention modules and is not a layer adapter, so its gates cannot be folded",
    "MULTITASK_PROMPT_TUNING": "shares one prompt between tasks by task ids, which rows do not have",
    "CPT": "trains labelled rows as a prompt, with a type for every token, which is a method of its own",
    "CARTRIDGE": "distils a document into a key-value cache, which is not fine-tuning on rows",
    "LILY": "mixes its matrices by the mean over all tokens of a batch: so padding, other rows and later tokens count",
}
