"""Attention over binned sequences, as an attention implementation of transformers.

A query in a bin looks at the shared prefix and into its own bin only, so nothing else is
multiplied: about a third of the work that a dense mask over the whole sequence makes.
"""

from __future__ import annotations

from typing import Final

import torch
from torch.nn import functional
from transformers import AttentionInterface

BINNED: Final = "binned"


def _attend(  # noqa: PLR0917  # transformers' own signature
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor,
    scaling: float,
    **_: object,
) -> tuple[torch.Tensor, None]:
    """`query`, `key` and `value` are (B, heads, S, D); the additive mask is as in `Batch.mask`."""
    del module
    if attention_mask.shape[-1] == query.shape[2]:
        scores = (query @ key.transpose(-1, -2)) * scaling + attention_mask.to(query.dtype)
        seen = torch.softmax(scores, dim=-1).to(value.dtype) @ value
        return seen.transpose(1, 2).contiguous(), None
    rows, heads, _length, width = query.shape
    bins, size = attention_mask.shape[1:3]
    prefix = attention_mask.shape[-1] - size
    first_key, first_value = key[:, :, :prefix], value[:, :, :prefix]
    first = functional.scaled_dot_product_attention(
        query[:, :, :prefix], first_key, first_value, is_causal=True, scale=scaling
    )
    late_query = query[:, :, prefix:]
    shape = (rows, heads, bins, size, width)
    own_key, own_value = key[:, :, prefix:].reshape(shape), value[:, :, prefix:].reshape(shape)
    to_prefix = (late_query @ first_key.transpose(-1, -2)).view(rows, heads, bins, size, prefix)
    to_own = late_query.reshape(shape) @ own_key.transpose(-1, -2)
    scores = torch.cat([to_prefix, to_own], dim=-1) * scaling
    shares = torch.softmax(scores + attention_mask[:, None].to(scores.dtype), dim=-1)
    shares = shares.to(value.dtype)
    from_prefix = shares[..., :prefix].reshape(rows, heads, bins * size, prefix) @ first_value
    from_own = (shares[..., prefix:] @ own_value).view(rows, heads, bins * size, width)
    seen = torch.cat([first, from_prefix + from_own], dim=2)
    return seen.transpose(1, 2).contiguous(), None


AttentionInterface.register(BINNED, _attend)
