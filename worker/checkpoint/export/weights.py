"""A model's tensors under the names of the hub's Llava checkpoints, with rows for what is new."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import torch

from worker.checkpoint.merge import AdapterMerger
from worker.checkpoint.plan import PlannedTensor
from worker.checkpoint.tensors import TensorStore
from worker.checkpoint.writer import OutputTensor

# Transformers 4 and 5, and other engines, read these; model's own first, then the hub's.
_PREFIXES = {
    # MPT's have no name of their own there.
    "model.language_model.wte.": "language_model.wte.",
    "model.language_model.blocks.": "language_model.blocks.",
    "model.language_model.norm_f.": "language_model.norm_f.",
    "model.language_model.": "language_model.model.",
    "lm_head.": "language_model.lm_head.",
    "model.vision_tower.": "vision_tower.vision_model.",
    "model.multi_modal_projector.": "multi_modal_projector.",
    "model.image_newline": "image_newline",
}
_PROJECTOR = "model.multi_modal_projector."
_VOCABULARY = (
    "model.language_model.embed_tokens.weight",
    "model.language_model.wte.weight",
    "lm_head.weight",
)


@dataclass(frozen=True)
class WeightExport:
    """How a model's tensors are written.

    Attributes:
        tensors: where they are, by parameter name.
        store: reads them.
        merger: adds an adapter; None without one.
        num_rows: of the embedding and the head; those beyond the model's own are copies.
        copied_row: of which row: one that the model never says.
        depth: linear layers of the projector; 1 gets a second one that changes nothing.
        dtype: torch's name of what floats are written in; None keeps each as it is.
    """

    tensors: Mapping[str, PlannedTensor]
    store: TensorStore
    merger: AdapterMerger | None
    num_rows: int
    copied_row: int
    depth: int
    dtype: str | None

    def outputs(self) -> list[OutputTensor]:
        """The tensors to write, in the order of the names."""
        made = [*map(self._output, self.tensors)]
        if self.depth == 1:
            made += self._identity()
        return sorted(made, key=lambda tensor: tensor.name)

    def _output(self, name: str) -> OutputTensor:
        header = self.tensors[name].header
        shape = header.shape
        if name in _VOCABULARY:
            shape = (self.num_rows, *shape[1:])
        written = _hub_name(name)
        if self.depth == 1 and name.startswith(_PROJECTOR):
            written = f"multi_modal_projector.linear_1.{name.rpartition('.')[2]}"
        return OutputTensor(written, shape, self._dtype(header.dtype), partial(self._make, name))

    def _make(self, name: str) -> torch.Tensor:
        tensor = self.store.read(self.tensors[name])
        if self.merger is not None and self.merger.covers(name):
            tensor = self.merger.merge(name, tensor)
        missing = self.num_rows - len(tensor) if name in _VOCABULARY else 0
        if missing > 0:
            row = tensor[self.copied_row].expand(missing, -1)
            tensor = torch.cat([tensor, row])
        return tensor

    def _identity(self) -> Iterator[OutputTensor]:
        """A second layer that gives back what it is given, to the last bit."""
        weight = self.tensors[f"{_PROJECTOR}0.weight"].header
        size, dtype = weight.shape[0], self._dtype(weight.dtype)
        layers: dict[str, tuple[tuple[int, ...], Callable[[], torch.Tensor]]] = {
            "weight": ((size, size), partial(torch.eye, size)),
            "bias": ((size,), partial(torch.zeros, size)),
        }
        for kind, (shape, make) in layers.items():
            yield OutputTensor(f"multi_modal_projector.linear_2.{kind}", shape, dtype, make)

    def _dtype(self, stored: str) -> str:
        is_float = getattr(torch, stored).is_floating_point
        return self.dtype if self.dtype is not None and is_float else stored


def _hub_name(name: str) -> str:
    for own, hub in _PREFIXES.items():
        if name.startswith(own):
            return hub + name.removeprefix(own)
    return name
