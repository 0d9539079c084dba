"""Numbers from Python on their way to the device, without waiting for what it still does."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def upload(values: Sequence[object], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """A tensor of these numbers, or of these rows of numbers, on a device.

    ``torch.tensor(values, device="cuda")`` waits until the device has done all it was given. Memory
    that is pinned is read while the CPU goes on; torch does not use it again before that is done.
    """
    if device.type != "cuda":
        return torch.tensor(values, dtype=dtype, device=device)
    return torch.tensor(values, dtype=dtype, pin_memory=True).to(device, non_blocking=True)
