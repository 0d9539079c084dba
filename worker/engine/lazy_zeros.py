"""Zeros that take memory only when they are written to."""

from __future__ import annotations

import math
import mmap

import torch

# Smaller ones come from memory that is there already.
_LEAST_BYTES = 1 << 20


def zeros(shape: tuple[int, ...], like: torch.Tensor) -> torch.Tensor:
    """Zeros of a shape, with the device and dtype of a tensor.

    On a CPU they are mapped, where torch's own would touch every page at once.
    """
    num_bytes = math.prod(shape) * like.element_size()
    if like.device.type != "cpu" or num_bytes < _LEAST_BYTES or not hasattr(mmap, "MAP_ANONYMOUS"):
        return like.new_zeros(shape)
    memory = mmap.mmap(-1, num_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    # The tensor keeps the mapping alive, and it goes with the tensor.
    return torch.frombuffer(memory, dtype=like.dtype).view(shape)
