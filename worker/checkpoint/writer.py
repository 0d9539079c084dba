"""Writes weights as safetensors, tensor after tensor: no more than one is in memory.

Source of the format: safetensors' README, section "Format"; of the index: transformers' shards.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from worker.checkpoint.headers import DTYPES

_SAFETENSORS_NAMES = {name: (code, size) for code, (name, size) in DTYPES.items()}
_ALIGNMENT = 8  # bytes; tensor data starts at a multiple of it


@dataclass(frozen=True, slots=True)
class OutputTensor:
    """A tensor to write, made when its turn comes.

    Attributes:
        name: in the file.
        shape: of what ``make`` gives.
        dtype: torch's name of what is written; ``make`` may give another, it is converted.
        make: reads or computes it.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    make: Callable[[], torch.Tensor]

    @property
    def num_bytes(self) -> int:
        """Bytes in the file."""
        return math.prod(self.shape) * _SAFETENSORS_NAMES[self.dtype][1]


def write_weights(
    folder: Path,
    tensors: Sequence[OutputTensor],
    *,
    max_shard_bytes: int,
    on_written: Callable[[int], None],
) -> None:
    """Writes ``model.safetensors``, or shards of it and their index.

    Args:
        folder: where; it exists.
        tensors: in the order in which they are to lie.
        max_shard_bytes: a shard has no more, unless one tensor alone has.
        on_written: called with the bytes of each tensor that has been written.
    """
    shards = _shards(tensors, max_shard_bytes)
    if len(shards) == 1:
        _write_file(folder / "model.safetensors", shards[0], on_written)
        return
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        _write_file(folder / name, shard, on_written)
        weight_map |= {tensor.name: name for tensor in shard}
    total = sum(tensor.num_bytes for tensor in tensors)
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    text = json.dumps(index, indent=2) + "\n"
    (folder / "model.safetensors.index.json").write_text(text, encoding="utf-8")


def _shards(
    tensors: Sequence[OutputTensor], max_shard_bytes: int
) -> list[list[OutputTensor]]:  # fmt: skip
    shards: list[list[OutputTensor]] = [[]]
    size = 0
    for tensor in tensors:
        if shards[-1] and size + tensor.num_bytes > max_shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append(tensor)
        size += tensor.num_bytes
    return shards


def _write_file(
    file: Path, tensors: Sequence[OutputTensor], on_written: Callable[[int], None]
) -> None:
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for tensor in tensors:
        end = offset + tensor.num_bytes
        entries[tensor.name] = {
            "dtype": _SAFETENSORS_NAMES[tensor.dtype][0],
            "shape": list(tensor.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    header = json.dumps(entries, separators=(",", ":")).encode()
    header += b" " * (-len(header) % _ALIGNMENT)
    with file.open("wb") as stream:
        stream.write(struct.pack("<Q", len(header)))
        stream.write(header)
        for tensor in tensors:
            stream.write(_bytes(tensor))
            on_written(tensor.num_bytes)
        stream.flush()
        # The folder gets its name only once its data is on the disk.
        os.fsync(stream.fileno())


def _bytes(tensor: OutputTensor) -> memoryview:
    made = tensor.make()
    if tuple(made.shape) != tensor.shape:
        raise ValueError(f"{tensor.name} was announced as {tensor.shape} and is {made.shape}")
    flat = made.to(getattr(torch, tensor.dtype)).contiguous().reshape(-1)
    return memoryview(flat.view(torch.uint8).numpy().data) if flat.numel() else memoryview(b"")
