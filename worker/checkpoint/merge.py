"""An adapter added into its base's weights, one module at a time.

PEFT itself does the arithmetic (ranks and scales by pattern, DoRA, embeddings), in float32, on a
model that consists of the one module; its result is rounded once, where it is written.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from worker.checkpoint.adapter import adapter_config, read_adapter
from worker.checkpoint.errors import AdapterError
from worker.checkpoint.plan import AdapterSource, PlannedTensor
from worker.checkpoint.quantise import quiet_bitsandbytes

_NAME = "default"


class AdapterMerger:
    """Merges the weights of the modules that an adapter is for.

    Args:
        source: the adapter.
        tensors: of the model, by parameter name.

    Raises:
        AdapterError: the adapter holds something else than a LoRA, or is for other modules.
    """

    def __init__(self, source: AdapterSource, tensors: Mapping[str, PlannedTensor]) -> None:
        quiet_bitsandbytes()
        self._source = source
        modules = {name.removesuffix(".weight") for name in tensors if name.endswith(".weight")}
        self._adapters = read_adapter(source, modules)
        lacking = sorted(set(self._adapters) - modules)
        if lacking:
            raise AdapterError(
                f"the adapter {source.folder.path} aims at {len(lacking)} modules that its base "
                f"lacks, such as {lacking[0]}. It was trained over another model"
            )
        self._config = adapter_config(source, modules, targets=self._adapters)
        # PEFT would ask a model for a task about its ways to generate; one layer has none.
        self._config.task_type = None

    def covers(self, parameter: str) -> bool:
        """Whether the adapter changes a parameter."""
        return parameter.removesuffix(".weight") in self._adapters

    def merge(self, parameter: str, weight: torch.Tensor) -> torch.Tensor:
        """A covered parameter with the adapter added, in float32.

        Raises:
            AdapterError: the adapter's tensors have other shapes.
        """
        # Imported on use: PEFT takes a second.
        from peft import get_peft_model, set_peft_model_state_dict  # noqa: PLC0415

        module = parameter.removesuffix(".weight")
        tensors = self._adapters[module]
        is_embedding = any(kind.startswith("lora_embedding") for kind in tensors)
        self._config.target_modules = [module]
        with warnings.catch_warnings():
            # PEFT asks what kind of model it wraps; this one is of none.
            warnings.simplefilter("ignore")
            wrapped = get_peft_model(
                _holding(module, weight.float(), is_embedding=is_embedding),
                self._config,
                adapter_name=_NAME,
            )
        named = {f"base_model.model.{module}.{kind}": value for kind, value in tensors.items()}
        try:
            result = set_peft_model_state_dict(wrapped, named, adapter_name=_NAME)
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:400]
            raise AdapterError(f"{self._source.folder.path} does not fit: {reason}") from error
        if result.unexpected_keys:
            raise AdapterError(
                f"{self._source.folder.path} has a tensor without a place: "
                f"{result.unexpected_keys[0]}"
            )
        merged: torch.Tensor = wrapped.merge_and_unload().get_submodule(module).weight.data
        return merged


def _holding(module: str, weight: torch.Tensor, *, is_embedding: bool) -> nn.Module:
    """A model with one layer, at the place that it has in the whole."""
    rows, columns = weight.shape
    layer: Any
    with torch.device("meta"):
        layer = (
            nn.Embedding(rows, columns) if is_embedding else nn.Linear(columns, rows, bias=False)
        )
    layer.weight = nn.Parameter(weight, requires_grad=False)
    *path, last = module.split(".")
    root = place = nn.Module()
    for name in path:
        place.add_module(name, nn.Module())
        place = place.get_submodule(name)
    place.add_module(last, layer)
    return root
