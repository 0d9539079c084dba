"""From an encoder's input back to pictures, so that people can see what the model sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

Pixels = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class ImageView:
    """What an encoder sees of one image.

    Attributes:
        tiles: its inputs in their order, as pictures.
        image_tokens: how many tokens stand for the image in a prompt.
        grid: rows and columns that the tiles make; None where they make no grid.
        overview_index: which tile is the whole image made small; None where none is. The others
            are the grid, row by row.
    """

    tiles: tuple[Image.Image, ...]
    image_tokens: int
    grid: tuple[int, int] | None = None
    overview_index: int | None = None


@dataclass(frozen=True, slots=True)
class Normalisation:
    """How a picture became numbers: ``(value * scale - mean) / std``, by channel."""

    mean: Sequence[float] = (0.0, 0.0, 0.0)
    std: Sequence[float] = (1.0, 1.0, 1.0)
    scale: float = 1 / 255

    def picture(self, pixels: Pixels) -> Image.Image:
        """The picture that became ``pixels``, of shape ``(3, height, width)``."""
        mean = np.asarray(self.mean, dtype=np.float32)[:, None, None]
        std = np.asarray(self.std, dtype=np.float32)[:, None, None]
        values = np.rint((pixels * std + mean) / self.scale).clip(0, 255).astype(np.uint8)
        return Image.fromarray(np.ascontiguousarray(values.transpose(1, 2, 0)))


@dataclass(frozen=True, slots=True)
class PatchLayout:
    """How Qwen's processors cut a picture into rows of numbers.

    Source of the order: ``Qwen2VLImageProcessor._preprocess`` of transformers.

    Attributes:
        side: of a patch, pixels.
        merge: patches a side that become one token; they follow each other.
        frames: of time in one patch; a picture is the same in all of them.
    """

    side: int
    merge: int
    frames: int

    def pixels(self, patches: Pixels, rows: int, columns: int) -> Pixels:
        """A picture's ``(rows * columns, 3 * frames * side * side)`` as ``(3, height, width)``."""
        merge, side = self.merge, self.side
        cut = patches.reshape(
            rows // merge, columns // merge, merge, merge, 3, self.frames, side, side
        )[:, :, :, :, :, 0]
        return cut.transpose(4, 0, 2, 5, 1, 3, 6).reshape(3, rows * side, columns * side)
