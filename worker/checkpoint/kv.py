"""What keys and values of a context take, by a model's config alone."""

from __future__ import annotations

from typing import Any

import torch

# Layers whose state does not grow with the context.
_STATE_LAYERS = frozenset({"linear_attention", "conv", "mamba"})


def bytes_per_token(config: Any, dtype: torch.dtype) -> int:  # noqa: ANN401 - transformers is untyped
    """What a token's keys and values take in all layers that keep them."""
    text = config.get_text_config(decoder=True)
    layers = sum(kind not in _STATE_LAYERS for kind in _kinds(text))
    return layers * _layer_bytes(text, dtype)


def context_bytes(config: Any, dtype: torch.dtype, tokens: int) -> int:  # noqa: ANN401
    """What the keys and values of a context of so many tokens take.

    Layers with a sliding window keep no more than the window.
    """
    text = config.get_text_config(decoder=True)
    window = getattr(text, "sliding_window", None)
    if not getattr(text, "use_sliding_window", True):  # Qwen's configs name one that is not in use
        window = None
    has_kinds = bool(getattr(text, "layer_types", None))
    kept = 0
    for kind in _kinds(text):
        slides = kind == "sliding_attention" or (not has_kinds and window is not None)
        if kind not in _STATE_LAYERS:
            kept += min(tokens, window) if slides and window else tokens
    return kept * _layer_bytes(text, dtype)


def _kinds(text: Any) -> list[str]:  # noqa: ANN401
    kinds = getattr(text, "layer_types", None)
    return list(kinds) if kinds else ["full_attention"] * text.num_hidden_layers


def _layer_bytes(text: Any, dtype: torch.dtype) -> int:  # noqa: ANN401
    """Of one token in one layer."""
    head_dim = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    return int(2 * heads * head_dim * dtype.itemsize)
