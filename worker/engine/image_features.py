"""Images as the language model takes them, each encoded once for as long as it is remembered."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch

from worker.engine.lru import ByteLru

# Inputs with a number for each token of the prompt; they say nothing about an image.
_PER_TOKEN = ("token_type_ids", "mm_token_type_ids")
# Of families whose images are given as one long list of patches: time, height and width of each.
_GRID = "image_grid_thw"


class ImageFeatures:
    """The vision tower with a memory; belongs to the model's thread.

    Args:
        capacity_bytes: what remembered features may take; 0 keeps nothing.
    """

    def __init__(self, capacity_bytes: int) -> None:
        self._cache: ByteLru[Hashable, torch.Tensor] = ByteLru(capacity_bytes)
        self.encoded = 0  # images that went through the tower
        self.hits = 0  # images that did not have to

    @property
    def num_bytes(self) -> int:
        """What the remembered features take."""
        return self._cache.num_bytes

    def release(self) -> int:
        """Forgets all features; the bytes that this freed."""
        return self._cache.clear()

    def of(
        self,
        model: Any,  # noqa: ANN401 - transformers is untyped
        inputs: Mapping[str, torch.Tensor],
        *,
        root: Hashable,
        digests: Sequence[bytes],
        wanted: Sequence[int] | None,
    ) -> torch.Tensor:
        """The features of a prompt's images, in order: ``(tokens, hidden_size)``.

        Args:
            model: transformers' model, with the adapter and the projector in place.
            inputs: what its first forward takes besides the ids, on its device.
            root: what the features depend on besides the images: adapter and projector.
            digests: of the content and preprocessing of each image.
            wanted: which images; None where they cannot be told apart, which means all.
        """
        inputs = {name: tensor for name, tensor in inputs.items() if name not in _PER_TOKEN}
        apart = None if wanted is None else _apart(inputs, len(digests))
        if wanted is None or apart is None:
            features = self._one(model, inputs, (root, tuple(digests)), len(digests))
            if wanted is None or len(wanted) == len(digests):
                return features
            raise ValueError("images that are encoded together are wanted together")
        return torch.cat([self._one(model, apart[i], (root, digests[i]), 1) for i in wanted])

    @staticmethod
    def can_be_told_apart(inputs: Mapping[str, torch.Tensor], count: int) -> bool:
        """Whether each of the images can be encoded alone."""
        kept = {name: tensor for name, tensor in inputs.items() if name not in _PER_TOKEN}
        return _apart(kept, count) is not None

    def _one(
        self,
        model: Any,  # noqa: ANN401
        inputs: Mapping[str, torch.Tensor],
        key: Hashable,
        count: int,
    ) -> torch.Tensor:
        found = self._cache.get(key)
        if found is not None:
            self.hits += count
            return found
        encoder = model if hasattr(model, "get_image_features") else model.model
        output = encoder.get_image_features(**inputs).pooler_output
        parts = [output] if isinstance(output, torch.Tensor) else list(output)
        features = torch.cat([part.reshape(-1, part.shape[-1]) for part in parts])
        self.encoded += count
        self._cache.put(key, features, features.nbytes)
        return features


def _apart(
    inputs: Mapping[str, torch.Tensor], count: int
) -> list[dict[str, torch.Tensor]] | None:  # fmt: skip
    """The inputs of each image; None where it is not known which are whose."""
    if count == 1:
        return [dict(inputs)]
    if _GRID in inputs:
        grids = inputs[_GRID]
        others = set(inputs) - {_GRID, "pixel_values"}
        if len(grids) != count or others:
            return None
        patches = torch.split(inputs["pixel_values"], grids.prod(dim=-1).tolist())
        return [
            {"pixel_values": pixels, _GRID: grids[i : i + 1]} for i, pixels in enumerate(patches)
        ]
    if any(len(tensor) != count for tensor in inputs.values()):
        return None
    return [{name: tensor[i : i + 1] for name, tensor in inputs.items()} for i in range(count)]
