"""Whether a checkpoint's weights fit: what they will take, and what the device has free."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import nn

from controller.protocol.fleet import Quantisation
from worker.checkpoint.errors import MemoryShortageError
from worker.checkpoint.placement import Placement
from worker.checkpoint.plan import PlannedTensor
from worker.checkpoint.quantise import is_kept

# Bytes a weight. 4-bit: half a byte, and scales of 8 bits for each block of 64 weights with their
# own scales (double quantisation).
_QUANTISED_BYTES = {Quantisation.INT8: 1.0, Quantisation.NF4: 0.5 + 1 / 64 + 4 / (64 * 256)}
_GIB = 1024**3

# A container's limits, cgroup v2 and v1.
_CGROUPS = (
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (
        Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
        Path("/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ),
)


@dataclass(frozen=True, slots=True)
class WeightCount:
    """Numbers in a model by what quantisation does to them."""

    quantisable: int  # weights of the language model's linear layers
    others: int

    def num_bytes(self, quantisation: Quantisation, dtype: torch.dtype) -> int:
        """What they take in memory."""
        size = _QUANTISED_BYTES.get(quantisation, float(dtype.itemsize))
        return int(self.quantisable * size) + self.others * dtype.itemsize


def count_weights(
    bones: Any,  # noqa: ANN401 - transformers is untyped
    tensors: Mapping[str, PlannedTensor],
) -> WeightCount:
    """The weights of a skeleton's linear layers, and all others on disk."""
    quantisable = sum(
        module.weight.numel()
        for name, module in bones.named_modules()
        if isinstance(module, nn.Linear) and not is_kept(name)
    )
    total = sum(tensor.header.num_elements for tensor in tensors.values())
    return WeightCount(quantisable, max(0, total - quantisable))


def free_bytes(device: torch.device) -> int:
    """What a device has free now; for the CPU, within the container's limit."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory())
    return min(int(psutil.virtual_memory().available), *_container_free(), 2**63)


def _container_free() -> list[int]:
    free = []
    for limit_file, used_file in _CGROUPS:
        try:
            limit, used = limit_file.read_text().strip(), used_file.read_text().strip()
        except OSError:
            continue
        if limit.isdigit() and used.isdigit():
            # Cached file pages count as used and are given back on demand.
            free.append(max(0, int(limit) - int(used) + _cached(used_file.parent)))
    return free


def _cached(cgroup: Path) -> int:
    try:
        lines = (cgroup / "memory.stat").read_text().splitlines()
    except OSError:
        return 0
    counters = dict(line.split(" ", 1) for line in lines if " " in line)
    return int(counters.get("inactive_file", 0))


def require_memory(
    weights: WeightCount, quantisation: Quantisation, placement: Placement, free: int
) -> None:
    """Checks that the weights fit into what is free.

    Raises:
        MemoryShortageError: they do not; says what is needed, what is free, and what would fit.
    """
    needed = weights.num_bytes(quantisation, placement.dtype)
    if needed <= free:
        return
    smaller = [
        (flag, weights.num_bytes(kind, dtype.dtype))
        for flag, kind, dtype in (
            ("--dtype bfloat16", quantisation, replace(placement, dtype=torch.bfloat16)),
            ("--load-8bit", Quantisation.INT8, placement),
            ("--load-4bit", Quantisation.NF4, placement),
        )
    ]
    fitting = next((f"{flag} needs {_gib(size)}" for flag, size in smaller if size <= free), None)
    way_out = (
        f"With {fitting}" if fitting else "Not even --load-4bit would fit; use a larger device"
    )
    raise MemoryShortageError(
        f"not enough memory on {placement.device}: the weights need {_gib(needed)} "
        f"(in {placement.dtype_name}, quantisation {quantisation}), and {_gib(free)} are free. "
        f"{way_out}"
    )


def _gib(num_bytes: int) -> str:
    return (
        f"{num_bytes / _GIB:.1f} GiB" if num_bytes >= _GIB / 10 else f"{num_bytes / 2**20:.1f} MiB"
    )
