"""Delta weights on disk: made from a base and a model, and put together again."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch

from worker.checkpoint import delta, llava
from worker.checkpoint.errors import FormatError, IncompleteError
from worker.checkpoint.folder import CheckpointFolder
from worker.checkpoint.headers import TensorHeader, read_headers
from worker.checkpoint.output import TEMPLATE_FILES, TOKENIZER_FILES, Output, copy_files, write_json
from worker.checkpoint.plan import Part, PlannedTensor
from worker.checkpoint.tensors import TensorStore
from worker.checkpoint.writer import OutputTensor, write_weights

_COPIED = (*TOKENIZER_FILES, *TEMPLATE_FILES, "generation_config.json", "preprocessor_config.json")


def apply_delta(base: CheckpointFolder, delta_folder: CheckpointFolder, output: Output) -> None:
    """Writes the model that a delta was made of.

    Args:
        base: what the delta was made over.
        delta_folder: the delta; its names, dtypes, config and tokenizer are the model's.
        output: where.

    Raises:
        CheckpointError: they do not belong together, or it cannot be written.
    """
    config = {key: value for key, value in delta_folder.config.items() if key != delta.MARKER}
    _write(base, delta_folder, config, output, phase="applying the delta", sign=1)


def make_delta(base: CheckpointFolder, target: CheckpointFolder, output: Output) -> None:
    """Writes what a model differs by from its base.

    Args:
        base: what the model was trained from.
        target: the model.
        output: where.

    Raises:
        CheckpointError: the model is a delta itself, they do not belong together, or it cannot be
            written.
    """
    if target.weight_files() and delta.says_delta(target, _renamer()):
        raise FormatError(f"{target.path} holds delta weights already")
    config = {**target.config, delta.MARKER: True}
    _write(base, target, config, output, phase="making the delta", sign=-1)


def _write(
    base: CheckpointFolder,
    folder: CheckpointFolder,
    config: Mapping[str, Any],
    output: Output,
    *,
    phase: str,
    sign: int,
) -> None:
    inputs = [base.path, folder.path]
    output.require_usable(inputs)
    mine, bases = _headers(folder), _headers(base)
    pairs = delta.pair(mine, bases, home=base.path)
    store = TensorStore(lambda _part, _count: None)

    def read(header: TensorHeader) -> torch.Tensor:
        return store.read(PlannedTensor(header, Part.LANGUAGE_MODEL))

    def make(name: str) -> torch.Tensor:
        tensor = read(mine[name])
        return (
            delta.combine(tensor, store.pieces(pairs[name]), sign=sign) if name in pairs else tensor
        )

    tensors = [
        OutputTensor(header.name, header.shape, header.dtype, partial(make, name))
        for name, header in mine.items()
    ]
    total = sum(tensor.num_bytes for tensor in tensors)
    try:
        with output.folder(inputs, num_bytes=total) as made:
            write_json(made / "config.json", config)
            copy_files(folder, _COPIED, made)
            write_weights(
                made,
                tensors,
                max_shard_bytes=output.max_shard_bytes,
                on_written=output.meter(phase, total),
            )
    finally:
        store.close()


def _headers(folder: CheckpointFolder) -> dict[str, TensorHeader]:
    """The tensors of a folder's whole weights by transformers' parameter name."""
    files = folder.weight_files()
    if not files:
        raise IncompleteError(f"{folder.path} has no whole weights. It holds: {folder.listing()}")
    rename = _renamer()
    named = {rename(header.name): header for file in files for header in read_headers(file)}
    return {name: header for name, header in named.items() if name is not None}


def _renamer() -> delta.Rename:
    # Base and delta only need the same name for the same tensor, whatever the projector's depth.
    return llava.renamer(1)
