"""Zeros that take memory when they are written to, and take it quickly."""

from __future__ import annotations

import math
import mmap

import torch

_HAS_HUGE_PAGES = hasattr(mmap, "MADV_HUGEPAGE")  # Linux
_HUGE_PAGE = 2 << 20


def zeros(shape: tuple[int, ...], like: torch.Tensor) -> torch.Tensor:
    """Zeros of a shape, with the device and dtype of a tensor.

    On a CPU under Linux they are mapped, in huge pages where the system allows it: torch's own
    zeros touch each small page at once, which takes eight times as long as all that is done with
    them in a decode step.
    """
    num_bytes = math.prod(shape) * like.element_size()
    if like.device.type != "cpu" or not _HAS_HUGE_PAGES or num_bytes < _HUGE_PAGE:
        return like.new_zeros(shape)
    memory = mmap.mmap(-1, num_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_HUGEPAGE)
    # The tensor keeps the mapping alive, and it goes with the tensor.
    return torch.frombuffer(memory, dtype=like.dtype).view(shape)
