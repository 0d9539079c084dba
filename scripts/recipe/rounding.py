"""Rounds weights to 4 bits (nf4, blocks of 64) while a step runs: a model can learn to bear it.

The gradient of the rounded weights is applied to the exact ones (a straight-through estimate).
"""

from __future__ import annotations

import random
from typing import Final

import torch
from torch import nn

# The 16 levels of the NormalFloat4 format (QLoRA, Dettmers et al. 2023, appendix E).
_LEVELS: Final = torch.tensor(
    [
        -1.0, -0.6961928, -0.52507305, -0.39491749, -0.28444138, -0.18477343, -0.09105004, 0.0,
        0.0795803, 0.1609302, 0.2461123, 0.33791524, 0.44070983, 0.562617, 0.72295684, 1.0,
    ]
)  # fmt: skip
_MIDDLES: Final = (_LEVELS[1:] + _LEVELS[:-1]) / 2
_BLOCK: Final = 64


def round_to_nf4(weight: torch.Tensor) -> torch.Tensor:
    """The weight as nf4 would give it back; its size must be a multiple of 64."""
    blocks = weight.reshape(-1, _BLOCK)
    scale = blocks.abs().amax(dim=1, keepdim=True).clamp(min=1e-12)
    return (_LEVELS[torch.bucketize(blocks / scale, _MIDDLES)] * scale).view_as(weight)


class Rounding:
    """Swaps the linear weights of a model's layers for rounded ones around a step."""

    def __init__(self, model: nn.Module, first_step: int, share: float, seed: int) -> None:
        self._weights = [
            module.weight
            for name, module in model.named_modules()
            if isinstance(module, nn.Linear) and ".layers." in f".{name}"
        ]
        self._first_step = first_step
        self._share = share
        self._rng = random.Random(seed)
        self._exact: list[torch.Tensor] = []

    def before_step(self, step: int) -> None:
        """Round, on a `share` of the steps from `first_step` on."""
        if step < self._first_step or self._rng.random() >= self._share:
            return
        with torch.no_grad():
            for weight in self._weights:
                self._exact.append(weight.detach().clone())
                weight.copy_(round_to_nf4(weight))

    def after_backward(self) -> None:
        """Put the exact weights back; their gradients stay."""
        with torch.no_grad():
            for weight, exact in zip(self._weights, self._exact, strict=False):
                weight.copy_(exact)
        self._exact.clear()
