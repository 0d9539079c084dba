"""Tensors that stay on disk until the model takes them, one by one: there is no second copy.

A tensor is mapped by itself. One that is converted, quantised or sent to a GPU takes its mapping
with it when it goes, so that nothing stays beside what was made of it; one that is taken as it is
stays mapped, and its pages are those of the file, which all processes share.
"""

from __future__ import annotations

import mmap
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from worker.checkpoint import delta
from worker.checkpoint.errors import IncompleteError
from worker.checkpoint.headers import TensorHeader, read_headers
from worker.checkpoint.pickles import load_pickle
from worker.checkpoint.plan import Part, PlannedTensor

_PIECE = 1 << 18  # numbers that are held at once of a tensor that is added to another

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
        return self._store.read(self._planned)[index]

    def get_shape(self) -> list[int]:
        """The shape, from the header."""
        return list(self._planned.header.shape)

    def get_dtype(self) -> str:
        """The dtype by safetensors' name, from the header."""
        name = self._planned.header.dtype
        return _SAFETENSORS_DTYPES.get(name, name)


class TensorStore:
    """Reads planned tensors; from any thread.

    Args:
        on_read: called after each tensor with its part and its bytes, one call at a time.
        maps: whether tensors are mapped; else they are read into memory of their own.
    """

    def __init__(self, on_read: Callable[[Part, int], None], *, maps: bool = False) -> None:
        self._on_read = on_read
        self._take = map_tensor if maps else read_tensor
        self._lock = threading.Lock()
        self._whole: dict[Path, Mapping[str, torch.Tensor]] = {}

    def lazy(self, planned: Mapping[str, PlannedTensor]) -> dict[str, StoredTensor]:
        """A state dict of tensors that are still on disk."""
        if self._take is map_tensor:
            files = dict.fromkeys(tensor.header.file for tensor in planned.values())
            # Beside this thread: where all of it is cached, this still takes 8 ms for each GiB.
            threading.Thread(target=_read_ahead, args=(list(files),), daemon=True).start()
        return {name: StoredTensor(tensor, self) for name, tensor in planned.items()}

    def read(self, planned: PlannedTensor) -> torch.Tensor:
        """One tensor, on the CPU, in the file's dtype.

        Raises:
            IncompleteError: the file has changed since its header was read.
        """
        if planned.base is None:
            tensor = self._read(planned.header)
        else:
            # Mapped whatever the rest is: the base's pieces come and go beside it, and malloc would
            # keep the gaps that they leave between tensors.
            tensor = self._read(planned.header, map_tensor)
            tensor = delta.combine(tensor, self.pieces(planned.base), sign=1)
        with self._lock:
            self._on_read(planned.part, planned.header.num_bytes)
        return tensor

    def _read(
        self,
        header: TensorHeader,
        take: Callable[[TensorHeader, int], torch.Tensor] | None = None,
    ) -> torch.Tensor:
        if header.offset is None:
            return self._from_whole_file(header)
        return (take or self._take)(header, header.offset)

    def pieces(self, header: TensorHeader) -> Iterator[torch.Tensor]:
        """A tensor's numbers in their order, a few MiB at a time: each is gone with the next."""
        if header.offset is None:
            yield self._from_whole_file(header).reshape(-1)
            return
        size = header.num_bytes // max(1, header.num_elements)
        for start in range(0, header.num_elements, _PIECE):
            count = min(_PIECE, header.num_elements - start)
            piece = replace(header, shape=(count,), num_bytes=count * size)
            yield read_tensor(piece, header.offset + start * size)

    def _from_whole_file(self, header: TensorHeader) -> torch.Tensor:
        with self._lock:
            if header.file not in self._whole:
                self._whole[header.file] = load_pickle(header.file)
            # A copy: whoever asked for it may change it.
            return self._whole[header.file][header.name].clone()

    def close(self) -> None:
        """Forgets files that had to be read whole."""
        self._whole.clear()


def _read_ahead(files: Sequence[Path]) -> None:
    """Asks the system for whole files: a disk that is asked in pages, as mapping does, is slow."""
    if not hasattr(os, "posix_fadvise"):
        return
    for file in files:
        # A file that cannot be read is reported where a tensor of it is taken.
        with suppress(OSError), file.open("rb") as stream:
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)


def read_tensor(header: TensorHeader, offset: int) -> torch.Tensor:
    """A tensor that lies in one piece from byte ``offset`` of its file."""
    dtype: torch.dtype = getattr(torch, header.dtype)
    data = torch.empty(header.num_bytes, dtype=torch.uint8)
    if header.num_bytes:
        view = memoryview(data.numpy().data)
        with header.file.open("rb", buffering=0) as stream:
            stream.seek(offset)
            # The system reads at most 2 GiB at once.
            while view:
                count = stream.readinto(view)
                if not count:
                    raise IncompleteError(f"{header.file} was cut short while it was being read")
                view = view[count:]
    return data.view(dtype).reshape(header.shape)


def map_tensor(header: TensorHeader, offset: int) -> torch.Tensor:
    """A tensor whose memory is its place in the file, for as long as the tensor lives.

    It may be written to, which copies the page and leaves the file alone. Where the file is cut
    short under it, the process is killed by the system.

    Raises:
        IncompleteError: the file has become too short already.
    """
    dtype: torch.dtype = getattr(torch, header.dtype)
    if not header.num_bytes:
        return torch.empty(header.shape, dtype=dtype)
    start = offset - offset % mmap.ALLOCATIONGRANULARITY
    with header.file.open("rb") as stream:
        if os.fstat(stream.fileno()).st_size < offset + header.num_bytes:
            raise IncompleteError(f"{header.file} was cut short while it was being read")
        length = offset - start + header.num_bytes
        mapped = mmap.mmap(stream.fileno(), length, access=mmap.ACCESS_COPY, offset=start)
    flat = torch.frombuffer(mapped, dtype=dtype, count=header.num_elements, offset=offset - start)
    return flat.reshape(header.shape)


def load_tensors(file: Path) -> Mapping[str, torch.Tensor]:
    """All tensors of a small weight file."""
    if file.suffix != ".safetensors":
        return load_pickle(file)
    return {
        header.name: read_tensor(header, header.offset)
        for header in read_headers(file)
        if header.offset is not None
    }
