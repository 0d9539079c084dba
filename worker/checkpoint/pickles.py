"""Old weight files: pickles, read by torch with ``weights_only`` so that they cannot run code."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch

from worker.checkpoint.errors import IncompleteError, UnsafeFileError
from worker.checkpoint.headers import TensorHeader


def load_pickle(file: Path, *, device: str = "cpu") -> Mapping[str, torch.Tensor]:
    """The tensors of a pickled state dict; mapped from the file where its format allows.

    Raises:
        IncompleteError: the file is cut short or damaged.
        UnsafeFileError: it holds objects other than tensors.
    """
    # Only the zip format (torch >= 1.6) can be mapped; older files are read whole.
    mapped = zipfile.is_zipfile(file) and device != "meta"
    try:
        content = torch.load(file, map_location=device, weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        raise UnsafeFileError(
            f"{file} is refused: it is a pickle that holds more than tensors, and reading it could "
            "run code. Convert it to safetensors where you trust it"
        ) from error
    except (RuntimeError, EOFError, OSError) as error:
        raise IncompleteError(
            f"{file} is cut short or damaged ({str(error).splitlines()[0]}); "
            "download or copy it again"
        ) from error
    if not isinstance(content, dict):
        raise UnsafeFileError(f"{file} holds a {type(content).__name__}, not named tensors")
    return {name: value for name, value in content.items() if isinstance(value, torch.Tensor)}


def read_pickle_headers(file: Path) -> list[TensorHeader]:
    """Names and shapes of a pickled state dict; no tensor data is read."""
    return [
        TensorHeader(
            name,
            tuple(tensor.shape),
            str(tensor.dtype).removeprefix("torch."),
            tensor.numel() * tensor.element_size(),
            file,
        )
        for name, tensor in load_pickle(file, device="meta").items()
    ]
