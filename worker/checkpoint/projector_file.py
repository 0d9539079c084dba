"""An original LLaVA checkpoint's projector alone, as its stage-1 training leaves it."""

from __future__ import annotations

import torch

from worker.checkpoint import delta, llava
from worker.checkpoint.errors import FormatError, IncompleteError
from worker.checkpoint.folder import CheckpointFolder
from worker.checkpoint.headers import TensorHeader, read_headers
from worker.checkpoint.output import Output, write_json
from worker.checkpoint.partial import NON_LORA_FILES, PROJECTOR_FILES
from worker.checkpoint.plan import Part, PlannedTensor, part_of
from worker.checkpoint.tensors import TensorStore


def extract_projector(folder: CheckpointFolder, output: Output) -> None:
    """Writes ``mm_projector.bin`` and a ``config.json``, which load with ``--model-base``.

    Args:
        folder: a whole checkpoint, an adapter, or a projector.
        output: where.

    Raises:
        FormatError: it is no original LLaVA checkpoint.
        IncompleteError: it has no projector.
        OutputError: it cannot be written.
    """
    if not llava.is_original(folder.config):
        raise FormatError(
            f"{folder.path} is no original LLaVA checkpoint: its config.json has no mm_* keys"
        )
    output.require_usable([folder.path])
    headers = _projector(folder)
    if not headers:
        raise IncompleteError(
            f"{folder.path} has no tensors of a projector. It holds: {folder.listing()}"
        )
    config = {key: value for key, value in folder.config.items() if key != delta.MARKER}
    total = sum(header.num_bytes for header in headers)
    store = TensorStore(lambda _part, _count: None)
    add = output.meter("extracting the projector", total)
    tensors = {}
    try:
        for header in headers:
            tensor = store.read(PlannedTensor(header, Part.PROJECTOR))
            tensors[llava.original_name(header.name)] = tensor.clone()
            add(header.num_bytes)
    finally:
        store.close()
    with output.folder([folder.path], num_bytes=total) as made:
        write_json(made / "config.json", config)
        torch.save(tensors, made / "mm_projector.bin")


def _projector(folder: CheckpointFolder) -> list[TensorHeader]:
    files = folder.weight_files()
    if not files:
        only = folder.first(*NON_LORA_FILES, *PROJECTOR_FILES)
        files = () if only is None else (only,)
    rename = llava.renamer(llava.projector_depth(folder.config))
    named = [(rename(header.name), header) for file in files for header in read_headers(file)]
    return [
        header
        for name, header in named
        if name is not None and part_of(name) is Part.PROJECTOR
    ]  # fmt: skip
