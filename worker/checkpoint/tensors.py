"""Tensors that stay on disk until the model takes them, one by one: there is no second copy."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from worker.checkpoint.pickles import load_pickle
from worker.checkpoint.plan import Part, PlannedTensor

# safetensors' names, which transformers asks a lazy tensor for.
_SAFETENSORS_DTYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "float64": "F64"}


class StoredTensor:
    """A tensor of a weight file, read when it is indexed (``stored[...]``).

    Has the methods of safetensors' slices, which is the kind of lazy tensor that transformers
    takes in a state dict.
    """

    def __init__(self, planned: PlannedTensor, store: TensorStore) -> None:
        self._planned = planned
        self._store = store

    def __getitem__(self, index: Any) -> torch.Tensor:  # noqa: ANN401 - torch's own index types
        tensor = self._store.read(self._planned)
        return tensor[index]

    def get_shape(self) -> list[int]:
        """The shape, from the header."""
        return list(self._planned.header.shape)

    def get_dtype(self) -> str:
        """The dtype by safetensors' name, from the header."""
        name = self._planned.header.dtype
        return _SAFETENSORS_DTYPES.get(name, name)


class TensorStore:
    """Open weight files. Close it when the model has what it needs.

    Args:
        on_read: called after each tensor with its part and its bytes; from any thread, one at a
            time.
    """

    def __init__(self, on_read: Callable[[Part, int], None]) -> None:
        self._on_read = on_read
        self._lock = threading.Lock()
        self._safetensors: dict[Path, Any] = {}
        self._pickles: dict[Path, Mapping[str, torch.Tensor]] = {}

    def lazy(self, planned: Mapping[str, PlannedTensor]) -> dict[str, StoredTensor]:
        """A state dict of tensors that are still on disk."""
        return {name: StoredTensor(tensor, self) for name, tensor in planned.items()}

    def read(self, planned: PlannedTensor) -> torch.Tensor:
        """One tensor, on the CPU, in the file's dtype."""
        header = planned.header
        tensor = self._tensor(header.file, header.name)
        with self._lock:
            self._on_read(planned.part, header.num_bytes)
        return tensor

    def _tensor(self, file: Path, name: str) -> torch.Tensor:
        with self._lock:
            if file.suffix != ".safetensors":
                if file not in self._pickles:
                    self._pickles[file] = load_pickle(file)
                return self._pickles[file][name]
            if file not in self._safetensors:
                self._safetensors[file] = safe_open(file, framework="pt")
            handle = self._safetensors[file]
        # Outside the lock: several threads may read at once.
        tensor: torch.Tensor = handle.get_tensor(name)
        return tensor

    def close(self) -> None:
        """Forgets the files; tensors that were read stay valid."""
        self._safetensors.clear()
        self._pickles.clear()
