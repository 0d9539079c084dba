"""What a CLIP-style encoder sees: a square view, as numbers.

Every step is done as the original LLaVA does it (PIL's bicubic resize, float32), since a model
answers differently to pixels that are only nearly the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from controller.protocol.chat import ImageProcessMode
from worker.vision.tiles import Normalisation

_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
_CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

# LLaVA's names in a config for what `ImageProcessMode` calls crop and pad.
_DEFAULT_MODES = {
    "square": ImageProcessMode.CROP,
    "pad": ImageProcessMode.PAD,
}


def default_mode(aspect_ratio: str) -> ImageProcessMode:
    """The mode that a checkpoint's ``image_aspect_ratio`` means."""
    if aspect_ratio.startswith("anyres"):  # "anyres", "anyres_max_9"
        return ImageProcessMode.ANYRES
    return _DEFAULT_MODES[aspect_ratio]


@lru_cache
def _normalised(
    scale: float, mean: tuple[float, ...], std: tuple[float, ...]
) -> npt.NDArray[np.float32]:
    """What each of a byte's values becomes, of shape ``(3, 256)``.

    To look a pixel up is eleven times as fast as to compute it, and gives the very same number.
    """
    scaled = (np.arange(256, dtype=np.uint8)[:, None] * scale).astype(np.float32)
    normalised = (scaled - np.asarray(mean, np.float32)) / np.asarray(std, np.float32)
    return np.ascontiguousarray(normalised.T)


@dataclass(frozen=True, slots=True)
class ClipProcessor:
    """Resizing, cropping and normalising for one encoder.

    Attributes:
        side: of the encoder's square input, pixels.
        keeps_aspect: whether the shortest side is brought to size and the centre cut out (CLIP),
            or both sides are brought to size (SigLIP).
        resample: PIL's filter.
        scale: factor from 0..255 to 0..1.
        mean: of each channel, after scaling.
        std: of each channel, after scaling.
    """

    side: int
    keeps_aspect: bool = True
    resample: int = Image.Resampling.BICUBIC
    scale: float = 1 / 255
    mean: tuple[float, ...] = _CLIP_MEAN
    std: tuple[float, ...] = _CLIP_STD

    @classmethod
    def from_config(cls, config: Mapping[str, Any], side: int) -> ClipProcessor:
        """From a ``preprocessor_config.json``; what it leaves out is CLIP's."""
        size = config.get("size", side)
        squared = isinstance(size, Mapping) and "shortest_edge" not in size
        return cls(
            side=side,
            keeps_aspect=not squared,
            resample=int(config.get("resample", Image.Resampling.BICUBIC)),
            scale=float(config.get("rescale_factor", 1 / 255)),
            mean=tuple(config.get("image_mean", _CLIP_MEAN)),
            std=tuple(config.get("image_std", _CLIP_STD)),
        )

    @property
    def mean_colour(self) -> tuple[int, int, int]:
        """The encoder's grey: what padding is filled with."""
        red, green, blue = (int(channel * 255) for channel in self.mean)
        return red, green, blue

    def view(self, image: Image.Image, mode: ImageProcessMode) -> Image.Image:
        """The square that the encoder sees of an RGB image, before it becomes numbers."""
        return self.fit(self.reshape(image, mode))

    def reshape(self, image: Image.Image, mode: ImageProcessMode) -> Image.Image:
        """The part of ``mode`` that comes before the encoder's own resize and crop."""
        if mode is ImageProcessMode.PAD:
            return pad_to_square(image, self.mean_colour)
        if mode is ImageProcessMode.RESIZE:
            return image.resize((self.side, self.side), Image.Resampling.BICUBIC)
        return image

    def reshaped_size(self, size: tuple[int, int], mode: ImageProcessMode) -> tuple[int, int]:
        """The (width, height) that `reshape` brings an image of this one to."""
        if mode is ImageProcessMode.PAD:
            return (max(size), max(size))
        if mode is ImageProcessMode.RESIZE:
            return (self.side, self.side)
        return size

    def fit(self, image: Image.Image) -> Image.Image:
        """The encoder's own resize and centre crop."""
        side = self.side
        if not self.keeps_aspect:
            return image.resize((side, side), self.resample)
        width, height = image.size
        short, long = min(width, height), max(width, height)
        scaled = int(side * long / short)
        size = (side, scaled) if width <= height else (scaled, side)
        resized = image.resize(size, self.resample)
        left, top = (size[0] - side) // 2, (size[1] - side) // 2
        return resized.crop((left, top, left + side, top + side))

    def pixels(self, view: Image.Image) -> npt.NDArray[np.float32]:
        """A view as the encoder's input: ``(3, side, side)``, normalised."""
        values = np.asarray(view)
        found = np.empty((3, *values.shape[:2]), dtype=np.float32)
        for channel, table in enumerate(_normalised(self.scale, self.mean, self.std)):
            # "clip" does without a check; a byte is never out of the table's 256.
            np.take(table, values[:, :, channel], out=found[channel], mode="clip")
        return found

    def picture(self, pixels: npt.NDArray[np.float32]) -> Image.Image:
        """The view that became ``pixels``."""
        return Normalisation(self.mean, self.std, self.scale).picture(pixels)


def pad_to_square(image: Image.Image, colour: tuple[int, int, int]) -> Image.Image:
    """An RGB image in the middle of a square of its longer side."""
    width, height = image.size
    if width == height:
        return image
    side = max(width, height)
    square = Image.new("RGB", (side, side), colour)
    square.paste(image, ((side - width) // 2, (side - height) // 2))
    return square
