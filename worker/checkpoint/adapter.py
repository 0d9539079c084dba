"""An unmerged LoRA: PEFT around the loaded model, each adapter module where its tensors say."""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Container
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from worker.checkpoint.errors import AdapterError
from worker.checkpoint.folder import CheckpointFolder
from worker.checkpoint.headers import read_headers
from worker.checkpoint.lora import LoraPair, scaling_of
from worker.checkpoint.partial import ADAPTER_FILES, adapter_settings
from worker.checkpoint.plan import AdapterSource
from worker.checkpoint.preflight import some
from worker.checkpoint.quantise import quiet_bitsandbytes
from worker.checkpoint.tensors import load_tensors

# PEFT's name of a tensor: the module inside the model, then the kind of tensor.
_TENSOR = re.compile(
    r"(?:base_model\.model\.)?(?P<module>.+)\.(?P<kind>lora_[AB]|lora_embedding_[AB]"
    r"|lora_magnitude_vector)(?P<rest>\..*)?"
)
# Tensors of an adapter that is nothing but two matrices a layer.
_SIMPLE = re.compile(r"\.lora_[AB](\.weight)?$")


def check_adapter(bones: Any, source: AdapterSource) -> None:  # noqa: ANN401
    """Checks an adapter against a model's skeleton, by the headers of its file.

    Raises:
        AdapterError: it is no LoRA, or aims at modules that the model lacks, or at other shapes.
    """
    folder = source.folder
    settings = adapter_settings(folder)
    kind = str(settings.get("peft_type", "unknown"))
    if kind != "LORA":
        raise AdapterError(f"{folder.path} is a {kind} adapter; LoRA is what is supported")
    modules = dict(bones.named_modules())
    headers = read_headers(_file(folder))
    targets = {header.name: _target(header.name, source, modules) for header in headers}
    lacking = sorted({t.module for t in targets.values() if t.module not in modules})
    if lacking:
        raise AdapterError(
            f"the adapter {folder.path} aims at {len(lacking)} modules that its base lacks: "
            f"{some(lacking)}. It was trained over another model"
        )
    for header in headers:
        target = targets[header.name]
        weight = getattr(modules[target.module], "weight", None)
        side = {"lora_A": 1, "lora_B": 0}.get(target.kind)
        if weight is None or side is None:
            continue
        wanted, found = weight.shape[side], header.shape[side]
        if wanted != found:
            raise AdapterError(
                f"the adapter {folder.path} does not fit its base: {target.module} has "
                f"{wanted} {'inputs' if side else 'outputs'}, the adapter's {target.kind} {found}. "
                "It was trained over another model"
            )


def is_plain(source: AdapterSource) -> bool:
    """Whether an adapter is two matrices a linear layer and nothing else, so that it can share."""
    settings = adapter_settings(source.folder)
    if settings.get("use_dora") or settings.get("fan_in_fan_out"):
        return False
    headers = read_headers(_file(source.folder))
    return all(_SIMPLE.search(header.name) for header in headers)


def lora_pairs(model: Any, source: AdapterSource) -> dict[str, LoraPair]:  # noqa: ANN401
    """A plain adapter's matrices, by the module of a model that each is for.

    Args:
        model: a loaded transformers model; checked with `check_adapter`.
        source: the adapter's folder, and how its module names map to the model's.

    Raises:
        AdapterError: a module has only one of its two matrices.
    """
    modules = {module for module, _ in model.named_modules()}
    found = read_adapter(source, modules)
    config = adapter_config(source, modules, targets=found)
    pairs: dict[str, LoraPair] = {}
    for module, tensors in found.items():
        sides = {kind.removesuffix(".weight"): tensor for kind, tensor in tensors.items()}
        if set(sides) != {"lora_A", "lora_B"}:
            raise AdapterError(
                f"{_file(source.folder)} has only half an adapter for {module}; is it complete?"
            )
        down, up = sides["lora_A"], sides["lora_B"]
        pairs[module] = LoraPair(down, up, scaling_of(config, module, len(down)))
    return pairs


def adapter_weights(source: AdapterSource) -> int:
    """How many numbers an adapter holds, by the headers of its file."""
    return sum(header.num_elements for header in read_headers(_file(source.folder)))


def attach_adapter(model: Any, source: AdapterSource, *, name: str) -> Any:  # noqa: ANN401
    """The model with an adapter around it; the base's weights stay as they are.

    Args:
        model: a loaded transformers model, quantised or not; checked with `check_adapter`.
        source: the adapter's folder, and how its module names map to the model's.
        name: PEFT's name for it.

    Raises:
        AdapterError: its tensors do not fit.
    """
    quiet_bitsandbytes()
    # Imported on use: PEFT takes a second, and most checkpoints have no adapter.
    from peft import get_peft_model, set_peft_model_state_dict  # noqa: PLC0415

    modules = {module for module, _ in model.named_modules()}
    by_module = read_adapter(source, modules)
    tensors = {
        f"base_model.model.{module}.{kind}": tensor
        for module, kinds in by_module.items()
        for kind, tensor in kinds.items()
    }
    config = adapter_config(source, modules, targets=by_module)
    # PEFT warns where this differs from the model's name; which base it is was settled by the plan.
    config.base_model_name_or_path = model.name_or_path
    file = _file(source.folder)
    with warnings.catch_warnings():
        # PEFT asks the model by a name that transformers has deprecated; nothing of ours.
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*")
        wrapped = get_peft_model(model, config, adapter_name=name, autocast_adapter_dtype=False)
    try:
        result = set_peft_model_state_dict(wrapped, tensors, adapter_name=name)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:400]
        raise AdapterError(f"{file} does not fit its base: {reason}") from error
    if result.unexpected_keys:
        raise AdapterError(f"{file} has tensors without a place: {some(result.unexpected_keys)}")
    wrapped.eval()
    return wrapped


def read_adapter(
    source: AdapterSource, modules: Container[str]
) -> dict[str, dict[str, torch.Tensor]]:
    """An adapter's tensors by the module that they adapt, as the model calls it, and their kind.

    Args:
        source: the adapter.
        modules: names of the model's modules.

    Raises:
        AdapterError: it holds something else than a LoRA.
    """
    by_module: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in load_tensors(_file(source.folder)).items():
        target = _target(key, source, modules)
        by_module.setdefault(target.module, {})[f"{target.kind}{target.rest}"] = tensor
    return by_module


def adapter_config(
    source: AdapterSource, modules: Container[str], *, targets: Collection[str]
) -> Any:  # noqa: ANN401 - PEFT is untyped
    """PEFT's config of an adapter, for the model's own module names.

    Raises:
        AdapterError: PEFT does not take it.
    """
    from peft import PeftConfig  # noqa: PLC0415 - it takes a second

    try:
        config = PeftConfig.from_pretrained(str(source.folder.path))
    except (TypeError, ValueError, KeyError) as error:
        raise AdapterError(
            f"{source.folder.path}/adapter_config.json is not one that PEFT takes: "
            f"{' '.join(str(error).split())}"
        ) from error
    # The tensors say which modules are adapted. The config's list of suffixes (such as "q_proj")
    # would also catch the vision tower's layers.
    config.target_modules = sorted(targets)
    config.inference_mode = True
    for key in ("rank_pattern", "alpha_pattern"):
        patterns = getattr(config, key) or {}
        named = {_named(module, source, modules): value for module, value in patterns.items()}
        setattr(config, key, named)
    return config


@dataclass(frozen=True, slots=True)
class _Target:
    module: str  # as the model calls it
    kind: str  # "lora_A", ...
    rest: str  # ".weight"


def _named(module: str, source: AdapterSource, modules: Container[str]) -> str:
    """The adapter's module as the model calls it; unchanged where the model has none of its names.

    Patterns of ranks are also given as suffixes, which stay as they are.
    """
    return next((name for name in source.candidates(module) if name in modules), module)


def _target(key: str, source: AdapterSource, modules: Container[str]) -> _Target:
    match = _TENSOR.fullmatch(key)
    if match is None:
        raise AdapterError(
            f"{source.folder.path} holds {key!r}, which is not a LoRA tensor; it may be of a "
            "kind of adapter that is not supported"
        )
    module = _named(match["module"], source, modules)
    return _Target(module, match["kind"], match["rest"] or "")


def _file(folder: CheckpointFolder) -> Path:
    file = folder.first(*ADAPTER_FILES)
    if file is None:
        raise AdapterError(f"{folder.path} lacks {' or '.join(ADAPTER_FILES)}")
    return file
