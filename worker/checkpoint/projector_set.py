"""Projectors over one vision tower, of which one at a time is in the model."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from worker.checkpoint.errors import AdapterError
from worker.checkpoint.preflight import some

_HOME = "model."  # of what is exchanged, in transformers' Llava classes
_NUMBERS = itertools.count(1)


class Projector:
    """What lies between the vision tower and the language model, with a number of its own.

    Attributes:
        number: never given twice in a process, so that no cache takes one for another.
    """

    def __init__(self, parts: Mapping[str, nn.Module | nn.Parameter]) -> None:
        self.number = next(_NUMBERS)
        self._parts = dict(parts)  # by attribute of the model inside

    @classmethod
    def in_place(cls, model: Any) -> Projector:  # noqa: ANN401 - transformers is untyped
        """The one that a model was loaded with."""
        inner = model.model
        names = ("multi_modal_projector", "image_newline")
        return cls({name: getattr(inner, name) for name in names if hasattr(inner, name)})

    @property
    def num_bytes(self) -> int:
        """What it takes."""
        tensors = (
            tensor
            for part in self._parts.values()
            for tensor in (part.parameters() if isinstance(part, nn.Module) else (part,))
        )
        return sum(tensor.nbytes for tensor in tensors)

    def another(self, tensors: Mapping[str, torch.Tensor]) -> Projector:
        """One of the same shape with other weights.

        Args:
            tensors: by the names that the model has for its own.

        Raises:
            AdapterError: they are not those of a projector of this shape.
        """
        parts = copy.deepcopy(self._parts)
        wanted = {
            f"{_HOME}{name}{'.' + inner if inner else ''}": tensor
            for name, part in parts.items()
            for inner, tensor in (
                part.named_parameters() if isinstance(part, nn.Module) else (("", part),)
            )
        }
        missing = sorted(wanted.keys() - tensors.keys())
        foreign = sorted(tensors.keys() - wanted.keys())
        if missing or foreign:
            what = f"lacks {some(missing)}" if missing else f"also has {some(foreign)}"
            raise AdapterError(
                f"its projector does not share its base with the others: it {what}. Serve it alone"
            )
        for name, tensor in tensors.items():
            if tensor.shape != wanted[name].shape:
                raise AdapterError(
                    f"its projector has another shape than the others: {name} is "
                    f"{tuple(tensor.shape)} instead of {tuple(wanted[name].shape)}"
                )
            with torch.no_grad():
                wanted[name].copy_(tensor)
        return Projector(parts)

    def install(self, model: Any) -> None:  # noqa: ANN401
        """Puts it into the model; cheap."""
        for name, part in self._parts.items():
            if getattr(model.model, name) is not part:
                setattr(model.model, name, part)
