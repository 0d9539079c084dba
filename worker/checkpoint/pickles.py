"""Old weight files: pickles, read by torch with ``weights_only`` so that they cannot run code."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from worker.checkpoint.errors import IncompleteError, UnsafeFileError
from worker.checkpoint.headers import TensorHeader

# Of the zip format, and of pickles as torch wrote them before 1.6.
_BEGINNINGS = (b"PK", b"\x80")


def load_pickle(file: Path) -> Mapping[str, torch.Tensor]:
    """The tensors of a pickled state dict, read whole into memory.

    Raises:
        IncompleteError: the file is cut short or damaged.
        UnsafeFileError: it holds objects other than tensors.
    """
    return _load(file, "cpu")


def read_pickle_headers(file: Path) -> list[TensorHeader]:
    """Names, shapes and places of a pickled state dict; no tensor data is read.

    Raises:
        IncompleteError: the file is cut short or damaged.
        UnsafeFileError: it holds objects other than tensors.
    """
    # Meta tensors have shapes and no data; torch notes on their storage where the data lies.
    tensors = _load(file, "meta")
    return [
        TensorHeader(
            name,
            tuple(tensor.shape),
            str(tensor.dtype).removeprefix("torch."),
            tensor.numel() * tensor.element_size(),
            file,
            _offset(tensor),
        )
        for name, tensor in tensors.items()
    ]


def _offset(tensor: torch.Tensor) -> int | None:
    storage: Any = tensor.untyped_storage()
    # Files from before torch 1.6 are one stream, in which no place is known.
    start = getattr(storage, "_checkpoint_offset", None)
    if start is None or not tensor.is_contiguous():
        return None
    return int(start) + int(tensor.storage_offset()) * tensor.element_size()


def _load(file: Path, device: str) -> Mapping[str, torch.Tensor]:
    with file.open("rb") as stream:
        first = stream.read(12)
    if not first.startswith(_BEGINNINGS):
        begins = f"begins with {first!r}" if first else "is empty"
        raise IncompleteError(
            f"{file} is damaged, or no file of torch's: it {begins}; download or copy it again"
        )
    try:
        content = torch.load(file, map_location=device, weights_only=True)
    except pickle.UnpicklingError as error:
        if "truncated" in str(error):  # one from before the zip format
            raise IncompleteError(f"{file} is cut short; download or copy it again") from error
        raise UnsafeFileError(
            f"{file} is refused: it is a pickle that holds more than tensors, and reading it could "
            "run code. Convert it to safetensors where you trust it"
        ) from error
    except (RuntimeError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise IncompleteError(
            f"{file} is cut short or damaged ({_first_line(error)}); download or copy it again"
        ) from error
    if not isinstance(content, dict):
        raise UnsafeFileError(f"{file} holds a {type(content).__name__}, not named tensors")
    return {name: value for name, value in content.items() if isinstance(value, torch.Tensor)}


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
