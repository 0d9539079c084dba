"""LLaVA over MPT, on transformers' own Mpt as far as that computes what MosaicML's code did.

Transformers' Mpt leaves a number of MPT's settings out without a word; a checkpoint that has one of
them would answer with nonsense, so it is refused. The published LLaVA-MPT checkpoints have none.

Source of the layout: the LLaVA repository, ``llava/model/language_model/llava_mpt.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from worker.checkpoint.errors import ArchitectureError

EMBEDDING = "model.language_model.wte.weight"
HEAD = "lm_head.weight"

# Settings that transformers' Mpt takes as they are.
_TAKEN = (
    "d_model",
    "n_heads",
    "n_layers",
    "max_seq_len",
    "vocab_size",
    "layer_norm_epsilon",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
)
_TAKEN_OF_ATTENTION = ("clip_qkv", "softmax_scale")

# What it computes with whatever the config says; a missing key means MPT's own default.
_FIXED: Mapping[str, tuple[object, ...]] = {
    "expansion_ratio": (4,),
    "no_bias": (True,),
    "logit_scale": (None,),
    "norm_type": ("low_precision_layernorm", "layernorm"),
    "tie_word_embeddings": (True,),
}
_DEFAULTS: Mapping[str, object] = {
    "expansion_ratio": 4,
    "no_bias": False,
    "logit_scale": None,
    "norm_type": "low_precision_layernorm",
    "tie_word_embeddings": True,
}
_FIXED_OF_ATTENTION: Mapping[str, tuple[object, ...]] = {
    "alibi": (True,),
    "alibi_bias_max": (8,),
    "attn_type": ("multihead_attention",),
    "prefix_lm": (False,),
    "qk_ln": (False,),
}
_DEFAULTS_OF_ATTENTION: Mapping[str, object] = {
    "alibi": False,
    "alibi_bias_max": 8,
    "attn_type": "multihead_attention",
    "prefix_lm": False,
    "qk_ln": False,
}


def language_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Transformers' ``MptConfig`` as a dictionary, without its ``model_type``.

    The head is not tied to the embedding in it, since transformers' Llava looks for the embedding
    under the name that Llama gives it; `head_from_embedding` fills both.

    Raises:
        ArchitectureError: the config has a setting that transformers' Mpt does not have.
    """
    attention = dict(config.get("attn_config") or {})
    unlike = [
        *_unlike(config, _FIXED, _DEFAULTS),
        *(f"attn_config.{text}"
          for text in _unlike(attention, _FIXED_OF_ATTENTION, _DEFAULTS_OF_ATTENTION)),
    ]  # fmt: skip
    if unlike:
        raise ArchitectureError(
            f"this LLaVA-MPT checkpoint has {', '.join(unlike)}, which transformers' Mpt does not "
            "compute: it would answer with nonsense, so it is not loaded. Use the code that it "
            "was trained with"
        )
    taken = {key: config[key] for key in _TAKEN if key in config}
    # Configs have whole numbers here too, and transformers insists on the others.
    numbers = {key: attention.get(key) for key in _TAKEN_OF_ATTENTION}
    taken["attn_config"] = {
        key: None if number is None else float(number) for key, number in numbers.items()
    }
    return {**taken, "tie_word_embeddings": False}


def _unlike(
    config: Mapping[str, Any],
    fixed: Mapping[str, tuple[object, ...]],
    defaults: Mapping[str, object],
) -> list[str]:
    found = {key: config.get(key, defaults[key]) for key in fixed}
    return [f"{key} {found[key]!r}" for key, values in fixed.items() if found[key] not in values]


def head_from_embedding(rename: Callable[[str], str | None]) -> Callable[[str], str | None]:
    """Maps the embedding to the head, and nothing else; for a second look at the same files."""
    return lambda name: HEAD if rename(name) == EMBEDDING else None
