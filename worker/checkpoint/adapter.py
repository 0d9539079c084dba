"""An unmerged LoRA: PEFT around the loaded model, each adapter module where its tensors say."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from worker.checkpoint.errors import AdapterError
from worker.checkpoint.formats import ADAPTER_FILES
from worker.checkpoint.pickles import load_pickle
from worker.checkpoint.plan import AdapterSource

# PEFT's name of a tensor: the module inside the model, then the kind of tensor.
_TENSOR = re.compile(
    r"(?:base_model\.model\.)?(?P<module>.+)\.(?P<kind>lora_[AB]|lora_embedding_[AB]"
    r"|lora_magnitude_vector)(?P<rest>\..*)?"
)


def attach_adapter(model: Any, source: AdapterSource, *, name: str) -> Any:  # noqa: ANN401
    """The model with an adapter around it; the base's weights stay as they are.

    Args:
        model: a loaded transformers model, quantised or not.
        source: the adapter's folder, and how its module names map to the model's.
        name: PEFT's name for it.

    Raises:
        AdapterError: it is no LoRA, or aims at modules that the model lacks, or at other shapes.
    """
    # Imported on use: PEFT takes a second, and most checkpoints have no adapter.
    from peft import PeftConfig, get_peft_model, set_peft_model_state_dict  # noqa: PLC0415

    folder = source.folder
    config = PeftConfig.from_pretrained(str(folder.path))
    if str(getattr(config.peft_type, "value", config.peft_type)) != "LORA":
        raise AdapterError(f"{folder.path} is a {config.peft_type} adapter; LoRA is supported")
    file = folder.first(*ADAPTER_FILES)
    if file is None:
        raise AdapterError(f"{folder.path} lacks {' or '.join(ADAPTER_FILES)}")
    tensors, targets = _renamed(_read(file), source)
    _require_targets(model, targets, folder.path)
    # The tensors say which modules are adapted. The config's list of suffixes (such as "q_proj")
    # would also catch the vision tower's layers.
    config.target_modules = sorted(targets)
    config.inference_mode = True
    # PEFT warns where this differs from the model's name; which base it is was settled by the plan.
    config.base_model_name_or_path = model.name_or_path
    for key in ("rank_pattern", "alpha_pattern"):
        setattr(config, key, {source.rename(k): v for k, v in (getattr(config, key) or {}).items()})
    with warnings.catch_warnings():
        # PEFT asks the model by a name that transformers has deprecated; nothing of ours.
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*")
        wrapped = get_peft_model(model, config, adapter_name=name, autocast_adapter_dtype=False)
    try:
        result = set_peft_model_state_dict(wrapped, tensors, adapter_name=name)
    except RuntimeError as error:
        raise AdapterError(
            f"{file} does not fit its base: {' '.join(str(error).split())[:400]}"
        ) from error
    if result.unexpected_keys:
        raise AdapterError(f"{file} has tensors without a place: {_some(result.unexpected_keys)}")
    wrapped.eval()
    return wrapped


def _read(file: Path) -> Mapping[str, torch.Tensor]:
    if file.suffix == ".safetensors":
        tensors: dict[str, torch.Tensor] = load_file(file)
        return tensors
    return load_pickle(file)


def _renamed(
    tensors: Mapping[str, torch.Tensor], source: AdapterSource
) -> tuple[dict[str, torch.Tensor], set[str]]:
    """The tensors under the model's names, and the modules that they adapt."""
    renamed: dict[str, torch.Tensor] = {}
    targets: set[str] = set()
    for key, tensor in tensors.items():
        match = _TENSOR.fullmatch(key)
        if match is None:
            raise AdapterError(
                f"{source.folder.path} holds {key!r}, which is not a LoRA tensor; it may be of a "
                "kind of adapter that is not supported"
            )
        module = source.rename(match["module"])
        targets.add(module)
        renamed[f"base_model.model.{module}.{match['kind']}{match['rest'] or ''}"] = tensor
    return renamed, targets


def _require_targets(model: Any, targets: set[str], folder: Path) -> None:  # noqa: ANN401
    lacking = sorted(targets - {name for name, _ in model.named_modules()})
    if lacking:
        raise AdapterError(
            f"the adapter {folder} aims at {len(lacking)} modules that its base lacks: "
            f"{_some(lacking)}. It was trained over another model"
        )


def _some(names: list[str], limit: int = 3) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
