"""Several LoRA adapters beside the weights of one model; rows of a batch take different ones.

Each adapted layer has a hook that adds what the adapters make of its input. All adapters of a layer
lie in one pair of matrices: one adapter for all rows is a slice of them, and different adapters are
one product over all, in which each row keeps its own adapter's part. So a mixed batch costs two
products a layer, however many adapters are in it. The layer itself, full or quantised, stays as it
was.

Source of the method: LoRA, arXiv:2106.09685, and its scaling by rank, arXiv:2312.03732.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from worker.checkpoint.errors import AdapterError
from worker.checkpoint.plan import Part, part_of


@dataclass(frozen=True, slots=True)
class LoraPair:
    """An adapter's two matrices for one layer.

    Attributes:
        down: ``(rank, inputs)``.
        up: ``(outputs, rank)``.
        scaling: what their product is multiplied with.
    """

    down: torch.Tensor
    up: torch.Tensor
    scaling: float


def scaling_of(config: Any, module: str, rank: int) -> float:  # noqa: ANN401 - PEFT is untyped
    """What PEFT multiplies an adapter's product with, by its ``LoraConfig``."""
    from peft.utils.other import get_pattern_key  # noqa: PLC0415 - PEFT's own rule, on use

    patterns = config.alpha_pattern or {}
    alpha = patterns.get(get_pattern_key(list(patterns), module), config.lora_alpha)
    return float(alpha) / (math.sqrt(rank) if config.use_rslora else rank)


class AdapterSet:
    """The adapters of one model, and which of them are in use. Belongs to the model's thread.

    Args:
        model: a transformers model in eval mode, quantised or not.
        dtype: of the adapters' weights.
    """

    def __init__(self, model: nn.Module, dtype: torch.dtype) -> None:
        self._modules = dict(model.named_modules())
        self._dtype = dtype
        self._layers: dict[str, _AdaptedLayer] = {}
        self._targets: dict[int, frozenset[str]] = {}  # modules of each adapter
        self._next = 1  # numbers are never given twice, so that no cache takes one for another
        self._route = _Route()

    @property
    def num_bytes(self) -> int:
        """What all adapters take."""
        return sum(layer.num_bytes for layer in self._layers.values())

    @property
    def route(self) -> tuple[int, int | None, bool]:
        """Which kernels run on which memory, as far as adapters decide it.

        How often adapters came or went, the one that is in use, and whether rows differ. Which row
        goes where is no part of it: that is told by masks, which stay in their places.
        """
        return self._route.changes, self._route.one, self._route.rows is not None

    def __len__(self) -> int:
        return len(self._targets)

    def add(self, pairs: Mapping[str, LoraPair]) -> int:
        """Takes an adapter in; its number.

        Args:
            pairs: by the name of the module that each adapts.

        Raises:
            AdapterError: a module is not there or is no linear layer; nothing was added.
        """
        for name in pairs:
            if not isinstance(self._modules.get(name), nn.Linear):
                raise AdapterError(f"the model has no linear layer {name}, which an adapter is for")
        adapter, self._next = self._next, self._next + 1
        self._targets[adapter] = frozenset(pairs)
        for name, pair in pairs.items():
            if name not in self._layers:
                self._layers[name] = _AdaptedLayer(self._modules[name], self._route)
            self._layers[name].add(adapter, pair, self._dtype)
        self._route.changed()
        return adapter

    def remove(self, adapter: int) -> None:
        """Forgets an adapter; no row may use it."""
        for name in self._targets.pop(adapter):
            layer = self._layers[name]
            layer.remove(adapter)
            if layer.is_empty:
                layer.unhook()
                del self._layers[name]
        self._route.changed()

    def touches_images(self, adapter: int) -> bool:
        """Whether it changes what the language model gets to see of an image."""
        return any(
            part_of(name + ".") is not Part.LANGUAGE_MODEL for name in self._targets[adapter]
        )

    def use(self, adapter: int | None) -> None:
        """One adapter for all that runs from here on; None is the model alone."""
        self._route.set_one(adapter)

    def use_rows(self, adapters: Sequence[int | None]) -> None:
        """One adapter for each row of the batches that run from here on."""
        if len(set(adapters)) == 1:
            self._route.set_one(adapters[0])
        else:
            self._route.set_rows(tuple(adapters))


# Adapters of a layer, with the first of their ranks and the one after the last.
_Layout = tuple[tuple[int, int, int], ...]


class _Route:
    """Who goes through which adapter now, as all layers' hooks look at it."""

    def __init__(self) -> None:
        self.one: int | None = None
        self.rows: tuple[int | None, ...] | None = None  # instead of one for all
        self.changes = 0  # how often adapters came or went
        # By rows and layout; filled again in place, as what was recorded reads them there.
        self._masks: dict[tuple[int, _Layout], torch.Tensor] = {}

    def set_one(self, adapter: int | None) -> None:
        self.one, self.rows = adapter, None

    def set_rows(self, adapters: tuple[int | None, ...]) -> None:
        if adapters == self.rows:
            return
        self.one, self.rows = None, adapters
        with torch.inference_mode():  # which they may have been made in
            for (rows, layout), mask in self._masks.items():
                if rows == len(adapters):
                    mask.copy_(_mask(adapters, layout))

    def changed(self) -> None:
        self.changes += 1
        self._masks.clear()

    def mask(self, spans: Mapping[int, slice], like: torch.Tensor) -> torch.Tensor:
        """``(rows, 1, ranks)``: 1 where a row goes through its own adapter.

        It is one for all layers that have the same adapters with the same ranks.
        """
        assert self.rows is not None  # noqa: S101 - only asked where rows differ
        layout = tuple((adapter, span.start, span.stop) for adapter, span in spans.items())
        found = self._masks.get((len(self.rows), layout))
        if found is None:
            found = _mask(self.rows, layout).to(like)
            self._masks[len(self.rows), layout] = found
        return found


def _mask(rows: Sequence[int | None], layout: _Layout) -> torch.Tensor:
    """See `_Route.mask`; on the CPU."""
    mask = torch.zeros(len(rows), 1, max(stop for _, _, stop in layout))
    for row, own in enumerate(rows):
        for adapter, start, stop in layout:
            mask[row, 0, start:stop] = own == adapter
    return mask


class _AdaptedLayer:
    """A linear layer's adapters: ``down`` is ``(ranks, inputs)``, ``up`` ``(ranks, outputs)``."""

    def __init__(self, module: nn.Module, route: _Route) -> None:
        self._module = module
        self._route = route
        self._spans: dict[int, slice] = {}
        self._down: torch.Tensor | None = None
        self._up: torch.Tensor | None = None
        self._hook = module.register_forward_hook(self._add_to)

    @property
    def is_empty(self) -> bool:
        return not self._spans

    @property
    def num_bytes(self) -> int:
        if self._down is None or self._up is None:
            return 0
        return self._down.nbytes + self._up.nbytes

    def unhook(self) -> None:
        self._hook.remove()

    def add(self, adapter: int, pair: LoraPair, dtype: torch.dtype) -> None:
        weight: torch.Tensor = self._module.weight  # type: ignore[assignment] # a parameter
        # Scaled here, in float32, and not in each step.
        up = (pair.up.float() * pair.scaling).T.to(weight.device, dtype)
        down = pair.down.to(weight.device, dtype)
        rank = len(down)
        start = 0 if self._down is None else len(self._down)
        self._spans[adapter] = slice(start, start + rank)
        self._down = down if self._down is None else torch.cat([self._down, down])
        self._up = up.contiguous() if self._up is None else torch.cat([self._up, up])

    def remove(self, adapter: int) -> None:
        gone = self._spans.pop(adapter)
        if self._down is None or self._up is None or not self._spans:
            self._down = self._up = None
            return
        self._down = torch.cat([self._down[: gone.start], self._down[gone.stop :]])
        self._up = torch.cat([self._up[: gone.start], self._up[gone.stop :]])
        width = gone.stop - gone.start
        for other, span in self._spans.items():
            if span.start >= gone.stop:
                self._spans[other] = slice(span.start - width, span.stop - width)

    def _add_to(
        self, _module: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor
    ) -> torch.Tensor | None:
        down, up = self._down, self._up
        if down is None or up is None:
            return None
        given = args[0].to(down.dtype)
        if self._route.rows is None:
            span = self._spans.get(self._route.one) if self._route.one is not None else None
            if span is None:
                return None
            inner = functional.linear(given, down[span])
            up = up[span]
        else:
            inner = functional.linear(given, down) * self._route.mask(self._spans, given)
        return output + (inner @ up).to(output.dtype)
