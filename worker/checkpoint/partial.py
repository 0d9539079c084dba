"""Checkpoints that are no whole model: what files make one, and the base that it lies over."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from worker.checkpoint import kinds
from worker.checkpoint.errors import BaseModelError, IncompleteError, PathError
from worker.checkpoint.folder import CheckpointFolder, locate
from worker.checkpoint.kinds import require_kinds
from worker.checkpoint.spec import LoadSpec

PROJECTOR_FILES = ("mm_projector.safetensors", "mm_projector.bin")
NON_LORA_FILES = ("non_lora_trainables.safetensors", "non_lora_trainables.bin")
PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json")
ADAPTER_FILES = ("adapter_model.safetensors", "adapter_model.bin")


def is_adapter(folder: CheckpointFolder) -> bool:
    """Whether it lies over a base, in the way of PEFT."""
    return folder.has("adapter_config.json")


def require_adapter_weights(folder: CheckpointFolder) -> None:
    """Raises an IncompleteError where an adapter is its config alone."""
    if folder.first(*ADAPTER_FILES) is None:
        raise IncompleteError(
            f"{folder.path} has an adapter_config.json and no {' or '.join(ADAPTER_FILES)}. "
            f"It holds: {folder.listing()}"
        )


def adapter_settings(folder: CheckpointFolder) -> Mapping[str, Any]:
    """What ``adapter_config.json`` says; empty where there is none.

    Raises:
        FormatError: it is no JSON object, or has a value of another kind than it is read as.
    """
    found = folder.json("adapter_config.json") or {}
    require_kinds(found, kinds.ADAPTER, origin=folder.path / "adapter_config.json")
    return found


def weights_of(folder: CheckpointFolder) -> tuple[Path, ...]:
    """Files of whole weights; an IncompleteError where there are none."""
    files = folder.weight_files()
    if not files:
        raise IncompleteError(f"{folder.path} has no weights. It holds: {folder.listing()}")
    return files


def open_base(folder: CheckpointFolder, spec: LoadSpec, why: str) -> CheckpointFolder:
    """The base that was asked for, else the one that the adapter's config names.

    Args:
        folder: what lies over it.
        spec: what was asked for.
        why: what the base is to it, for the message.

    Raises:
        BaseModelError: there is none, or it is not where it should be.
    """
    if spec.model_base is not None:
        try:
            return locate(spec.model_base)
        except PathError as error:
            raise BaseModelError(f"the base (--model-base) cannot be opened: {error}") from error
    named = adapter_settings(folder).get("base_model_name_or_path")
    if not named:
        raise BaseModelError(
            f"{folder.path} is not a whole model: give the language model that {why} "
            "as --model-base"
        )
    # Adapters usually lie beside their base, or name it as the hub does.
    for candidate in (folder.path / named, folder.path.resolve().parent / named):
        if candidate.is_dir():
            return CheckpointFolder.open(candidate)
    try:
        return locate(str(named))
    except PathError as error:
        raise BaseModelError(
            f"{folder.path} is not a whole model, and its adapter_config.json names the base "
            f"{named!r}, which was found neither beside it nor elsewhere ({error}). "
            "Give it as --model-base"
        ) from error
